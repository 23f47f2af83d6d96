package docs_test

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/topics"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rows gives the rows of the first table behind a line, each with its cells.
func rows(t *testing.T, page, behind string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n"+behind+"\n")
	if !ok {
		t.Fatalf("there is no line %q", behind)
	}
	var table [][]string
	for line := range strings.Lines(rest) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 2 {
			if table != nil {
				break
			}
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		table = append(table, cells)
	}
	if len(table) < 3 {
		t.Fatalf("there is no table behind %q", behind)
	}
	return table[2:] // without head and rule
}

func TestTheTableOfErrorCodesIsTheCodes(t *testing.T) {
	t.Parallel()
	var want [][]string
	for _, k := range fault.Table() {
		retry := "no"
		if k.Retry {
			retry = "yes"
		}
		want = append(want, []string{string(k.Code), strconv.Itoa(k.Status), k.Type, retry, k.Meaning})
	}
	if diff := cmp.Diff(want, rows(t, read(t, "api.md"), "### Error codes")); diff != "" {
		t.Errorf("api.md (-code +page):\n%s", diff)
	}
}

func TestTheTableOfTopicsIsTheCatalogue(t *testing.T) {
	t.Parallel()
	told := map[string][]string{}
	for _, cells := range rows(t, read(t, "architecture.md"), "## Topics") {
		told[cells[0]] = cells
	}
	kept := map[string]string{"259200000": "3 days", "604800000": "7 days", "2592000000": "30 days", "-1": "for ever", "": "compacted"}
	seen := map[string]bool{}
	for _, topic := range topics.Catalogue(topics.Options{}) {
		name := strings.TrimPrefix(topic.Name, topics.DefaultPrefix)
		if strings.HasPrefix(name, "requests.") {
			name = "requests.<lane>"
		}
		seen[name] = true
		want := []string{kept[topic.Configs["retention.ms"]], strconv.Itoa(int(topic.Partitions))}
		if cells := told[name]; cells == nil || !cmp.Equal(want, cells[4:]) {
			t.Errorf("%s: the page has %q, want it to end in %q", topic.Name, cells, want)
		}
	}
	if len(told) != len(seen) {
		t.Errorf("the page has %d topics, the catalogue %d", len(told), len(seen))
	}
}

func TestThePythonSampleIsTheFileThatRuns(t *testing.T) {
	t.Parallel()
	_, rest, _ := strings.Cut(read(t, "records.md"), "```python\n")
	sample, _, ok := strings.Cut(rest, "```")
	if want := read(t, "examples/read_tokens.py"); !ok || sample != want {
		t.Errorf("records.md has another sample than examples/read_tokens.py:\n%s", cmp.Diff(want, sample))
	}
}

// link finds the target of a Markdown link to a file.
var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestEveryLinkBetweenPagesLeadsSomewhere(t *testing.T) {
	t.Parallel()
	pages := []string{"../README.md", "../CHANGELOG.md", "../CONTRIBUTING.md"}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 10 {
		t.Fatalf("only these pages were found: %q", pages)
	}
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, filepath.ToSlash(page)), -1) {
			if u, err := url.Parse(m[1]); err != nil || u.IsAbs() {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), filepath.FromSlash(m[1]))); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// target finds a fuzz target in a test file, or in the table.
var target = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(|` + "`(\\w+\\.Fuzz\\w+)`")

func TestTheTableOfFuzzTargetsIsTheTargets(t *testing.T) {
	t.Parallel()
	told, found := map[string]bool{}, map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(read(t, "../CONTRIBUTING.md"), -1) {
		told[m[2]] = true
	}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range target.FindAllStringSubmatch(read(t, path), -1) {
				if m[1] != "" {
					found[filepath.Base(filepath.Dir(path))+"."+m[1]] = true
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(told, found); diff != "" {
		t.Errorf("CONTRIBUTING.md has another table of fuzz targets than there are (-page +code):\n%s", diff)
	}
}
