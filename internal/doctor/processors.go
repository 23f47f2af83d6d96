package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// Group is what Processors asks; *kafka.Cluster has it.
type Group interface {
	Members(ctx context.Context, group string) ([]kafka.Member, error)
	Committed(ctx context.Context, group string) (map[kafka.TopicPartition]kafka.Commit, error)
	Offsets(ctx context.Context, topic string, at kafka.At) (map[int32]int64, error)
}

// muchLag is from how many requests behind a growing lag is worth a word.
const muchLag = 100

// Processors looks whether every partition of requests has somebody who works on
// it, and whether the work keeps up: it watches the lag for a while.
func Processors(ctx context.Context, cfg Config, c Group, names topics.Names) []Finding {
	const check, lag = "processors", "processors.lag"
	group := names.Prefix + "processors"
	look := func() (map[kafka.TopicPartition]int64, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.Patience)
		defer cancel()
		return lags(ctx, c, group, names)
	}
	asking, cancel := context.WithTimeout(ctx, cfg.Patience)
	members, err := c.Members(asking, group)
	cancel()
	if err != nil {
		return []Finding{denied(check, "the group "+group+" cannot be looked at", err)}
	}
	before, err := look()
	if err != nil {
		return []Finding{denied(lag, "the lag of the processors cannot be looked at", err)}
	}
	list := []Finding{owners(members, before)}
	pause := time.NewTimer(cfg.Watch)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return list
	}
	after, err := look()
	if err != nil {
		return append(list, denied(lag, "the lag of the processors cannot be looked at", err))
	}
	was, is := sum(before), sum(after)
	if is > was && is >= muchLag {
		return append(list, Finding{
			lag, Warn, fmt.Sprintf("%d requests are not done, %d more than %v ago", is, is-was, cfg.Watch), "more comes in than is done",
			"start more processors, raise --max-in-flight, or let less in; if nothing at all is done, look for the provider's errors in the processors' logs",
		})
	}
	return append(list, ok(lag, "%d requests are not done", is))
}

// owners compares who is in the group with what there is to own.
func owners(members []kafka.Member, lag map[kafka.TopicPartition]int64) Finding {
	const check = "processors"
	owned := map[kafka.TopicPartition]bool{}
	for _, m := range members {
		for _, tp := range m.Partitions {
			owned[tp] = true
		}
	}
	var alone []string
	var waiting int64
	for tp, n := range lag {
		if !owned[tp] {
			alone = append(alone, tp.String())
			waiting += n
		}
	}
	switch {
	case len(members) == 0 && waiting > 0:
		return Finding{
			check, Fail, fmt.Sprintf("nobody works, and %d requests wait", waiting), "the processors' group has no members",
			"start `penstock run --roles processors` with the same --kafka and --prefix; if one runs, its log says why it has not joined",
		}
	case len(members) == 0:
		return Finding{
			check, Warn, "nobody works, and nothing waits", "the processors' group has no members", "start `penstock run --roles processors` before there is work",
		}
	case len(alone) > 0:
		f := Finding{
			check, Warn, fmt.Sprintf("nobody owns %s, in which %d requests wait", some(alone), waiting),
			"the processors that run have other --lanes, or the group is about to hand them out",
			"give each lane to some processor (--lanes); if this does not pass within half a minute, look at the processors' logs",
		}
		if waiting > 0 {
			f.Status = Fail
		}
		return f
	default:
		return ok(check, "%s, every partition is owned", count(len(members), "processor"))
	}
}

// lags tells how many requests of each partition are not done.
func lags(ctx context.Context, c Group, group string, names topics.Names) (map[kafka.TopicPartition]int64, error) {
	committed, err := c.Committed(ctx, group)
	if err != nil {
		return nil, err //nolint:wrapcheck // the finding says what was asked
	}
	all := map[kafka.TopicPartition]int64{}
	for _, topic := range lanes(names) {
		starts, err := c.Offsets(ctx, topic, kafka.Start())
		if err != nil {
			return nil, err //nolint:wrapcheck // see above
		}
		ends, err := c.Offsets(ctx, topic, kafka.End())
		if err != nil {
			return nil, err //nolint:wrapcheck // see above
		}
		for p, end := range ends {
			tp := kafka.TopicPartition{Topic: topic, Partition: p}
			from := starts[p]
			if commit, ok := committed[tp]; ok {
				from = max(from, commit.Next)
			}
			all[tp] = max(0, end-from)
		}
	}
	return all, nil
}

func sum(all map[kafka.TopicPartition]int64) (n int64) {
	for _, v := range all {
		n += v
	}
	return n
}

// Pulses is what ProcessorClocks reads; *kafka.Cluster has it.
type Pulses interface {
	Offset(ctx context.Context, tp kafka.TopicPartition, at kafka.At) (int64, error)
	Fetch(ctx context.Context, tp kafka.TopicPartition, from int64, maxBytes int32, maxWait time.Duration) (kafka.Fetched, error)
}

// farApart is how far two clocks may be from each other: ids, deadlines and
// look-ups by time allow for a second.
const farApart = time.Second

// ProcessorClocks compares the times of the newest pulses with ours. A pulse from
// the future tells that clocks differ; an old one may only be an owner's last.
func ProcessorClocks(ctx context.Context, c Pulses, names topics.Names, now func() time.Time) []Finding {
	const check = "clocks.processors"
	tp := kafka.TopicPartition{Topic: names.Pulse()}
	end, err := c.Offset(ctx, tp, kafka.End())
	if err != nil {
		return []Finding{denied(check, "the pulses cannot be read", err)}
	}
	if end == 0 {
		return nil
	}
	const newest = 64 // records
	got, err := c.Fetch(ctx, tp, max(0, end-newest), 1<<20, 0)
	if err != nil {
		return []Finding{denied(check, "the pulses cannot be read", err)}
	}
	var ahead time.Duration
	owner := ""
	for i := range got.Records {
		if by := got.Records[i].Time.Sub(now()); by > ahead {
			ahead, owner = by, ownerOf(got.Records[i].Value)
		}
	}
	if ahead > farApart {
		return []Finding{{
			check, Fail, fmt.Sprintf("the clock of %s is %v ahead of this machine's", owner, ahead.Round(time.Millisecond)),
			"a job's output is found by time, and deadlines are kept by it",
			"have every machine keep its time with NTP (chronyd, systemd-timesyncd)",
		}}
	}
	return []Finding{ok(check, "no processor's is ahead of this machine's")}
}

func ownerOf(value []byte) string {
	var p event.Pulse
	if v, err := event.ScanHead(value); err != nil || event.DecodeData(v.Data, &p) != nil {
		return "a processor"
	}
	return p.Owner
}
