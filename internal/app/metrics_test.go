package app

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// described finds name and labels in what a prometheus.Desc says of itself.
var described = regexp.MustCompile(`fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`)

// told finds a row of the table in docs/operations.md.
var told = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|([^|]*)\\|")

func TestTheTableOfMetricsIsWhatAProcessHas(t *testing.T) {
	t.Parallel()
	cfg := base(t)
	cfg.Traces = startCollector(t).url
	r := start(t, cfg)
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		r.metrics.Describe(descs)
	}()
	has := map[string][]string{}
	for d := range descs {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("a description of another form: %s", d)
		}
		if strings.HasPrefix(m[1], "go_") || strings.HasPrefix(m[1], "process_") || strings.HasPrefix(m[1], "promhttp_") {
			continue // the library's own
		}
		labels := []string{}
		if m[2] != "" {
			labels = strings.Split(m[2], ",")
		}
		slices.Sort(labels)
		has[m[1]] = labels
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	tells := map[string][]string{}
	for _, row := range told.FindAllStringSubmatch(section, -1) {
		labels := []string{}
		for label := range strings.SplitSeq(row[2], ",") {
			if label = strings.Trim(strings.TrimSpace(label), "`"); label != "" {
				labels = append(labels, label)
			}
		}
		slices.Sort(labels)
		tells[row[1]] = labels
	}
	if diff := cmp.Diff(has, tells); diff != "" {
		t.Errorf("docs/operations.md (-process +page):\n%s", diff)
	}
	if len(has) < 50 {
		t.Errorf("only %d metrics were found", len(has))
	}
}
