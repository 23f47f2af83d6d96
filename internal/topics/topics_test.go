package topics_test

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/topics"
)

func described(want []topics.Topic) []topics.Described {
	have := make([]topics.Described, len(want))
	for i, t := range want {
		have[i] = topics.Described{Name: t.Name, Partitions: t.Partitions, Replication: t.Replication, Configs: maps.Clone(t.Configs)}
		have[i].Configs["some.default"] = "1"
	}
	return have
}

func TestARequestTopicTellsItsLane(t *testing.T) {
	t.Parallel()
	n := topics.Names{Prefix: "p."}
	for _, lane := range event.Lanes() {
		got, ok := n.LaneOf(n.Requests(lane))
		if !ok || got != lane {
			t.Errorf("%s is of lane %v, %v", n.Requests(lane), got, ok)
		}
	}
	for _, other := range []string{n.Tokens(), n.Control(), n.Jobs(), n.Pulse(), n.Dead(), "p.requests.urgent", "requests.batch", ""} {
		if lane, ok := n.LaneOf(other); ok || lane != event.NoLane {
			t.Errorf("%q is of lane %v", other, lane)
		}
	}
}

func TestTheCatalogueKeepsItsPromises(t *testing.T) {
	t.Parallel()
	n := topics.Names{Prefix: topics.DefaultPrefix}
	byName := map[string]topics.Topic{}
	for _, topic := range topics.Catalogue(topics.Options{Replication: 3}) {
		byName[topic.Name] = topic
		if topic.Purpose == "" || topic.Replication != 3 || topic.Configs["min.insync.replicas"] != "2" {
			t.Errorf("%+v", topic)
		}
		if topic.Configs["message.timestamp.type"] != "CreateTime" || topic.Configs["unclean.leader.election.enable"] != "false" {
			t.Errorf("%s: %v", topic.Name, topic.Configs)
		}
		if ms, err := strconv.Atoi(topic.Configs["segment.ms"]); err != nil || ms > 3_600_000 {
			t.Errorf("%s: segments of %s ms", topic.Name, topic.Configs["segment.ms"])
		}
	}
	number := func(name, key string) int {
		v, err := strconv.Atoi(byName[name].Configs[key])
		if err != nil {
			t.Errorf("%s %s: %v", name, key, err)
		}
		return v
	}
	kept := func(name string) int { return number(name, "retention.ms") }
	if kept(n.Requests(event.Batch)) >= kept(n.Tokens()) {
		t.Error("requests are kept for as long as tokens: an old one would be started anew")
	}
	if kept(n.Jobs()) != -1 {
		t.Error("jobs are not kept for ever")
	}
	if byName[n.Pulse()].Configs["cleanup.policy"] != "compact" || byName[n.Pulse()].Partitions != 1 {
		t.Errorf("pulse: %+v", byName[n.Pulse()])
	}
	for name := range byName {
		if name != n.Dead() && number(name, "max.message.bytes") >= number(n.Dead(), "max.message.bytes") {
			t.Errorf("%s takes records that dead does not", name)
		}
	}
	for _, lane := range event.Lanes() {
		if byName[n.Requests(lane)].Partitions != byName[n.Tokens()].Partitions {
			t.Errorf("lane %v has another partition count than tokens", lane)
		}
	}
	sizes := topics.MaxBytes(topics.Catalogue(topics.Options{MaxOutputBytes: 5 << 20}))
	if sizes[n.Jobs()] != 5<<20 || sizes[n.Dead()] != 6<<20 || len(sizes) != len(byName) {
		t.Errorf("sizes: %v", sizes)
	}
}

func TestAPlanSaysWhatIsMissingDifferentAndImpossible(t *testing.T) {
	t.Parallel()
	want := topics.Catalogue(topics.Options{Prefix: "p."})
	if plan := topics.Plan(want, described(want)); len(plan) != 0 {
		t.Fatalf("a plan where nothing differs: %v", plan)
	}
	have := described(want)
	have[0].Partitions = 5
	have[1].Configs["retention.ms"] = "7"
	delete(have[1].Configs, "segment.ms")
	have = slices.Delete(have, 2, 3)
	plan := topics.Plan(want, have)
	got := make([]string, len(plan))
	for i, c := range plan {
		got[i] = c.String()
	}
	if diff := cmp.Diff([]string{
		"refuse p.requests.interactive: it has 5 partitions where 12 are configured; a prefix keeps its partition count for life: configure 5, or choose a new prefix",
		"change p.requests.standard: retention.ms 7 → 259200000, segment.ms (unset) → 3600000",
		"create p.requests.batch: 12 partitions, 1 copies (requests of the batch lane)",
	}, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if s := (topics.Change{}).String(); s != "nothing" {
		t.Errorf("no change is %q", s)
	}
	err := topics.Check(want, have)
	if !errors.Is(err, topics.ErrMissing) || !errors.Is(err, topics.ErrMismatch) {
		t.Fatalf("check: %v", err)
	}
	for _, part := range []string{"p.requests.batch", "p.requests.interactive", "penstock topic apply"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
	have = described(want)
	have[1].Configs["retention.ms"] = "7"
	if err := topics.Check(want, have); err != nil {
		t.Errorf("a configuration that differs keeps a process from starting: %v", err)
	}
}

func TestAnAppliedPlanLeavesNothingToDo(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := topics.Catalogue(topics.Options{Prefix: "p.", Partitions: 3})
		have := slices.DeleteFunc(described(want), func(topics.Described) bool { return rapid.Bool().Draw(t, "missing") })
		for i := range have {
			for _, key := range slices.Sorted(maps.Keys(have[i].Configs)) {
				if rapid.Bool().Draw(t, "differs") {
					have[i].Configs[key] = "other"
				}
			}
		}
		for _, c := range topics.Plan(want, have) {
			switch c.Kind {
			case topics.Create:
				have = append(have, described([]topics.Topic{c.Topic})...)
			case topics.Alter:
				i := slices.IndexFunc(have, func(d topics.Described) bool { return d.Name == c.Topic.Name })
				for _, cf := range c.Configs {
					have[i].Configs[cf.Key] = cf.To
				}
			default:
				t.Fatalf("refused: %v", c)
			}
		}
		if again := topics.Plan(want, have); len(again) != 0 {
			t.Fatalf("still to do: %v", again)
		}
	})
}
