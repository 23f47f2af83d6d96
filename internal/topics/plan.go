package topics

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Described is a topic as a cluster has it.
type Described struct {
	Name        string
	ID          [16]byte // new with every creation
	Partitions  int32
	Replication int16
	Configs     map[string]string // what is in force, defaults included
}

// ChangeKind says what a Change does.
type ChangeKind uint8

// The kinds of change.
const (
	Create ChangeKind = iota + 1 // the topic is missing
	Alter                        // configurations differ
	Refuse                       // the difference cannot be made good
)

// Change is what would bring one topic of a cluster to what it should be.
type Change struct {
	Kind    ChangeKind
	Topic   Topic
	Configs []ConfigChange // of Alter, by key
	Reason  string         // of Refuse
}

// ConfigChange is one configuration that differs.
type ConfigChange struct {
	Key      string
	From, To string // From is "" where the cluster has none
}

// String says the change to a person, in one line.
func (c Change) String() string {
	switch c.Kind {
	case Create:
		return fmt.Sprintf("create %s: %d partitions, %d copies (%s)",
			c.Topic.Name, c.Topic.Partitions, c.Topic.Replication, c.Topic.Purpose)
	case Alter:
		parts := make([]string, len(c.Configs))
		for i, cc := range c.Configs {
			parts[i] = cc.String()
		}
		return "change " + c.Topic.Name + ": " + strings.Join(parts, ", ")
	case Refuse:
		return "refuse " + c.Topic.Name + ": " + c.Reason
	default:
		return "nothing"
	}
}

// String says the change as "key from → to".
func (c ConfigChange) String() string {
	from := c.From
	if from == "" {
		from = "(unset)"
	}
	return c.Key + " " + from + " → " + c.To
}

// Plan lists what would bring have to want, in want's order: nothing where they
// agree. What have holds beyond want is left alone, and so is replication,
// which is the operator's to move.
func Plan(want []Topic, have []Described) []Change {
	present := make(map[string]Described, len(have))
	for _, d := range have {
		present[d.Name] = d
	}
	var plan []Change
	for _, t := range want {
		d, ok := present[t.Name]
		if !ok {
			plan = append(plan, Change{Kind: Create, Topic: t})
			continue
		}
		if d.Partitions != t.Partitions {
			plan = append(plan, Change{Kind: Refuse, Topic: t, Reason: mismatch(t, d)})
			continue
		}
		if diff := differing(t.Configs, d.Configs); len(diff) > 0 {
			plan = append(plan, Change{Kind: Alter, Topic: t, Configs: diff})
		}
	}
	return plan
}

func differing(want, have map[string]string) []ConfigChange {
	var diff []ConfigChange
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if have[key] != want[key] {
			diff = append(diff, ConfigChange{Key: key, From: have[key], To: want[key]})
		}
	}
	return diff
}

func mismatch(t Topic, d Described) string {
	return fmt.Sprintf("it has %d partitions where %d are configured; a prefix keeps its partition count for life: configure %d, or choose a new prefix",
		d.Partitions, t.Partitions, d.Partitions)
}

// ErrMissing says that a topic is not there.
var ErrMissing = errors.New("topics are missing")

// ErrMismatch says that a topic is there, but not as it must be.
var ErrMismatch = errors.New("topic does not match")

// Check is what start-up asks: it names the topics that are missing and what to
// run (ErrMissing), and those with another partition count (ErrMismatch).
// Configurations that differ do not keep a process from starting.
func Check(want []Topic, have []Described) error {
	var (
		missing  []string
		problems []error
	)
	for _, c := range Plan(want, have) {
		switch c.Kind {
		case Create:
			missing = append(missing, c.Topic.Name)
		case Refuse:
			problems = append(problems, fmt.Errorf("%w: %s: %s", ErrMismatch, c.Topic.Name, c.Reason))
		default: // a configuration that differs stops nobody
		}
	}
	if len(missing) > 0 {
		problems = append(problems, fmt.Errorf("%w: %s: create them with `penstock topic apply`",
			ErrMissing, strings.Join(missing, ", ")))
	}
	return errors.Join(problems...)
}
