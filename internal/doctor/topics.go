package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// Describer is what Topics asks; *kafka.Cluster has it.
type Describer interface {
	Describe(ctx context.Context, names ...string) ([]topics.Described, error)
}

// Topics looks whether the topics are there, and as they should be.
func Topics(ctx context.Context, c Describer, want []topics.Topic) ([]topics.Described, []Finding) {
	const check = "topics"
	have, err := c.Describe(ctx, namesOf(want)...)
	if err != nil {
		return nil, []Finding{denied(check, "the topics cannot be looked at", err)}
	}
	var list []Finding
	var missing []string
	for _, change := range topics.Plan(want, have) {
		switch change.Kind {
		case topics.Create:
			missing = append(missing, change.Topic.Name)
		case topics.Refuse:
			list = append(list, Finding{
				"topics.partitions", Fail, change.Topic.Name + " has another partition count than is configured", change.Reason,
				"set --partitions (PENSTOCK_PARTITIONS) to what the topic has, on every process, or take a new --prefix",
			})
		default:
			for _, c := range change.Configs {
				list = append(list, config(change.Topic.Name, c))
			}
		}
	}
	if len(missing) > 0 {
		list = append(list, Finding{
			check, Fail, "missing: " + strings.Join(missing, ", "), "no process starts without them",
			"run `penstock topic apply`, with the same --prefix, --partitions and --replication as the processes",
		})
	}
	list = append(list, copies(want, have)...)
	if len(list) == 0 {
		list = append(list, ok(check, "all %d are as they should be", len(want)))
	}
	return have, list
}

func namesOf(want []topics.Topic) []string {
	names := make([]string, len(want))
	for i, t := range want {
		names[i] = t.Name
	}
	return names
}

// config is a setting of a topic that differs.
func config(topic string, c topics.ConfigChange) Finding {
	f := Finding{
		"topics.config", Warn, topic + ": " + c.Key + " is " + unset(c.From) + ", and should be " + c.To, "",
		"run `penstock topic apply`, which sets it",
	}
	switch c.Key {
	case "cleanup.policy":
		f.Status, f.Why = Fail, "what is compacted or deleted where it must not be is lost: a compacted topic of requests or tokens keeps one record a key"
	case "message.timestamp.type":
		f.Status, f.Why = Fail, "a job's output is found by the time in its id, so the producers' times must stay"
	case "max.message.bytes":
		f.Why = "the brokers' limit and the producers' differ"
		if less(c.From, c.To) {
			f.Status, f.Why = Fail, "records that Penstock takes for good are refused by the broker: outputs and facts that are large cannot be written"
		}
	case "retention.ms", "retention.bytes":
		f.Why = "requests must be kept for less time than tokens, and facts for ever"
		if less(c.From, c.To) {
			f.Why = "records go earlier than they should: work that waits longer than that is lost, and is told as expired"
		}
	case "min.insync.replicas":
		f.Why = "with fewer copies in sync than that, an acknowledged record can be lost with one broker"
	case "unclean.leader.election.enable":
		f.Why = "a copy that is behind may become the leader, and acknowledged records are lost"
	default:
		f.Why = "it is another value than the one Penstock is tested with"
	}
	return f
}

func unset(v string) string {
	if v == "" {
		return "(unset)"
	}
	return v
}

// less tells whether a limit is below another; -1 is none.
func less(have, want string) bool {
	h, err := strconv.ParseInt(have, 10, 64)
	w, err2 := strconv.ParseInt(want, 10, 64)
	if err != nil || err2 != nil || h < 0 {
		return false
	}
	return w < 0 || h < w
}

// copies compares the replication.
func copies(want []topics.Topic, have []topics.Described) []Finding {
	need := map[string]int16{}
	for _, t := range want {
		need[t.Name] = t.Replication
	}
	var few []string
	for _, d := range have {
		if d.Replication < need[d.Name] {
			few = append(few, fmt.Sprintf("%s (%d)", d.Name, d.Replication))
		}
	}
	if len(few) == 0 {
		return nil
	}
	return []Finding{{
		"topics.replication", Warn, "fewer copies than --replication says: " + strings.Join(few, ", "), "a broker that is lost takes their partitions with it",
		"move them with kafka-reassign-partitions; `penstock topic apply` leaves the copies of a topic that is there alone",
	}}
}

// Copier is what Copies asks; *kafka.Cluster has it.
type Copier interface {
	Unwell(ctx context.Context, names ...string) ([]kafka.Unwell, error)
}

// Copies looks whether every partition has a leader and enough copies in sync.
func Copies(ctx context.Context, c Copier, want []topics.Topic) []Finding {
	const check = "topics.copies"
	unwell, err := c.Unwell(ctx, namesOf(want)...)
	if err != nil {
		return []Finding{denied(check, "the partitions cannot be looked at", err)}
	}
	least := map[string]string{}
	for _, t := range want {
		least[t.Name] = t.Configs["min.insync.replicas"]
	}
	var dead, late []string
	for _, u := range unwell {
		if u.Leaderless || less(strconv.Itoa(u.InSync), least[u.Topic]) {
			dead = append(dead, u.String())
		} else {
			late = append(late, u.String())
		}
	}
	var list []Finding
	if len(dead) > 0 {
		list = append(list, Finding{
			check, Fail, "cannot be written: " + some(dead), "they have no leader, or fewer copies in sync than min.insync.replicas",
			"start the brokers that are away; the cluster's log says why a copy does not catch up",
		})
	}
	if len(late) > 0 {
		list = append(list, Finding{
			check, Warn, "copies are behind: " + some(late), "a broker is away or slow", "start it, or see why it is slow",
		})
	}
	if len(list) == 0 {
		list = append(list, ok(check, "every partition has a leader and all its copies"))
	}
	return list
}

// some names a few of a list.
func some(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
