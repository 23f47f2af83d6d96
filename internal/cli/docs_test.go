package cli_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/cli"
)

func TestTheTableOfSettingsInTheDocsIsTheConfiguration(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	code := cli.Run(t.Context(), []string{"config", "-o", "jsonl"}, cli.System{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs})
	if code != 0 {
		t.Fatalf("penstock config: exit %d: %s", code, &errs)
	}
	var want [][]string
	for line := range strings.Lines(out.String()) {
		var row struct {
			Setting string `json:"setting"`
			Value   string `json:"value"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if row.Setting == "output" {
			row.Value = "table" // it was asked for otherwise
		}
		variable := "PENSTOCK_" + strings.ToUpper(strings.ReplaceAll(row.Setting, "-", "_"))
		want = append(want, []string{row.Setting, row.Value, variable})
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n| setting | default | variable |")
	var got [][]string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		switch {
		case strings.TrimSpace(line) == "":
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("docs/operations.md (-code +page):\n%s", diff)
			}
			return
		case strings.HasPrefix(line, "| `"):
			for i := range cells {
				cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
			}
			got = append(got, cells[1:4])
		}
	}
	t.Error("docs/operations.md has no end of a table of settings")
}
