package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// metrics are the labels of all metrics by name: those of Penstock from the table
// in docs/operations.md, which a test of internal/app holds to what a process
// has, and those of Go's client and Prometheus itself that are used here.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile(repository + "/docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	have := map[string][]string{
		"up": {}, "process_cpu_seconds_total": {}, "process_resident_memory_bytes": {}, "go_goroutines": {},
	}
	name := regexp.MustCompile("`([a-z_]+)`")
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z_]+`) \\|([^|]*)\\|").FindAllStringSubmatch(section, -1) {
		labels := []string{}
		for _, l := range name.FindAllStringSubmatch(row[2], -1) {
			labels = append(labels, l[1])
		}
		have[strings.Trim(row[1], "`")] = labels
	}
	if len(have) < 30 {
		t.Fatalf("the table has only %d metrics", len(have))
	}
	return have
}

// targetLabels are what Prometheus adds to every series.
var targetLabels = []string{"job", "instance"}

// labelsOf are the labels of a series by its name, as it is stored: a histogram is
// three.
func labelsOf(have map[string][]string, name string) ([]string, bool) {
	for _, part := range []string{"", "_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, part)
		if labels, known := have[base]; ok && known {
			labels = slices.Concat(labels, targetLabels)
			if part == "_bucket" {
				labels = append(labels, "le")
			}
			return labels, true
		}
	}
	return nil, false
}

// verify holds an expression to the metrics that there are, and gives the labels
// that its series may have.
func verify(have map[string][]string, text string) (map[string]bool, error) {
	expr, err := parser.ParseExpr(strings.NewReplacer("$__rate_interval", "5m", "$__interval", "1m").Replace(text))
	if err != nil {
		return nil, err
	}
	labels := map[string]bool{}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		if _, known := labelsOf(have, selector.Name); !known {
			err = fmt.Errorf("there is no metric %q", selector.Name)
			return nil
		}
		own, _ := labelsOf(have, selector.Name)
		for _, m := range selector.LabelMatchers {
			if m.Name != "__name__" && !slices.Contains(own, m.Name) {
				err = fmt.Errorf("%s has no label %q", selector.Name, m.Name)
			}
		}
		for _, l := range own {
			labels[l] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		a, ok := node.(*parser.AggregateExpr)
		if !ok {
			return nil
		}
		under := map[string]bool{}
		parser.Inspect(a.Expr, func(node parser.Node, _ []parser.Node) error {
			if s, ok := node.(*parser.VectorSelector); ok {
				own, _ := labelsOf(have, s.Name)
				for _, l := range own {
					under[l] = true
				}
			}
			return nil
		})
		for _, l := range a.Grouping {
			if !under[l] {
				err = fmt.Errorf("%s is grouped by %q, which it does not have", a.Expr, l)
			}
		}
		return nil
	})
	if a, ok := expr.(*parser.AggregateExpr); ok && !a.Without {
		labels = map[string]bool{}
		for _, l := range a.Grouping {
			labels[l] = true
		}
	}
	return labels, err
}

func TestAnUnknownMetricOrLabelIsFound(t *testing.T) {
	t.Parallel()
	have := map[string][]string{"jobs_total": {"lane"}, "wait_seconds": {"lane"}}
	for expr, want := range map[string]string{
		`sum by (lane) (rate(jobs_total[5m]))`:                                "",
		`histogram_quantile(.9, sum by (le) (rate(wait_seconds_bucket[5m])))`: "",
		`rate(job_total[5m])`:                                                 `no metric "job_total"`,
		`jobs_total{line="batch"}`:                                            `no label "line"`,
		`jobs_total{job="x"} or sum(gone)`:                                    `no metric "gone"`,
		`sum by (topic) (jobs_total)`:                                         `grouped by "topic"`,
		`sum by (le) (wait_seconds_sum) / 2`:                                  `grouped by "le"`,
		`sum by (lane) (jobs_total`:                                           "parse error",
	} {
		_, err := verify(have, expr)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", expr, err, want)
		}
	}
}

// panel is what is looked at of a dashboard's panel.
type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ H, W, X, Y int }
	Datasource  struct{ UID string }
	Targets     []struct{ RefID, Expr, LegendFormat string }
}

func TestTheDashboardShowsMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(repository + "/deploy/grafana/penstock.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		UID, Title string
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Panels []panel
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	have := metrics(t)
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range board.Templating.List {
		variables[v.Name] = true
	}
	if len(board.Panels) < 20 || board.UID == "" {
		t.Fatalf("it has %d panels", len(board.Panels))
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		if ids[p.ID] {
			t.Errorf("%s: the id %d is another's too", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%s lies on %s, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" || p.Description == "" {
			t.Errorf("%s asks nothing, or a certain server, or says nothing of itself", p.Title)
		}
		for _, q := range p.Targets {
			labels, err := verify(have, q.Expr)
			if err != nil {
				t.Errorf("%s: %v", p.Title, err)
			}
			for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if !labels[m[1]] && !strings.Contains(q.Expr, "by (le, "+m[1]+")") {
					t.Errorf("%s: the legend names %q, which %s has not", p.Title, m[1], q.Expr)
				}
			}
			for _, m := range regexp.MustCompile(`\$(\w+)`).FindAllStringSubmatch(q.Expr, -1) {
				if !variables[m[1]] {
					t.Errorf("%s: there is no variable %s", p.Title, m[1])
				}
			}
		}
	}
}

func TestTheAlertsWatchMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(repository + "/deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(repository + "/deploy/prometheus/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	have, seen := metrics(t), 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			seen++
			if _, err := verify(have, r.Expr); err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s has the severity %q", r.Alert, s)
			}
			if keys := slices.Sorted(maps.Keys(r.Annotations)); !slices.Equal(keys, []string{"description", "summary"}) {
				t.Errorf("%s tells %q", r.Alert, keys)
			}
			if !strings.Contains(string(tests), r.Alert) {
				t.Errorf("%s has no test in alerts_test.yaml", r.Alert)
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d alerts were found", seen)
	}
}

func TestPrometheusTakesItsFiles(t *testing.T) {
	t.Parallel()
	dir := repository + "/deploy/prometheus/"
	for _, args := range [][]string{
		{"check", "config", dir + "prometheus.yaml"},
		{"check", "rules", dir + "alerts.yaml"},
		{"test", "rules", dir + "alerts_test.yaml"},
	} {
		if said, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v (on Debian it is in the package prometheus)\n%s", strings.Join(args, " "), err, said)
		}
	}
}
