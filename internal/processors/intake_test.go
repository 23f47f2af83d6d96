package processors

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/topics"
)

// One poll may bring a partition's last records and that those behind them are gone.
func TestWhatWasReadGoesBeforeWhatIsGone(t *testing.T) {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	p := &Processor{
		cfg: Config{Names: topics.Names{Prefix: "p."}}.withDefaults(), log: slog.New(slog.DiscardHandler),
		now: time.Now, metrics: m, box: newMailbox(),
	}
	tp := kafka.TopicPartition{Topic: p.cfg.Names.Requests(event.Standard), Partition: 1}
	err = newIntake(p, nil).hand(t.Context(), kafka.Poll{
		Records: []event.Record{{Topic: tp.Topic, Partition: tp.Partition, Offset: 199, Value: []byte("{}")}},
		Faults:  []kafka.PartitionFault{{TopicPartition: tp, Err: &kafka.OutOfRangeError{TopicPartition: tp, Offset: 200, Earliest: 500}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := p.box.take(nil)
	if len(got) != 2 {
		t.Fatalf("%v", got)
	}
	lp := engine.LP{Lane: event.Standard, Partition: 1}
	if read, ok := got[0].(engine.Requests); !ok || read.LP != lp || read.Requests[0].Offset != 199 {
		t.Errorf("%+v comes first", got[0])
	}
	if got[1] != (engine.RequestsGone{LP: lp, Earliest: 500}) {
		t.Errorf("%+v comes second", got[1])
	}
}
