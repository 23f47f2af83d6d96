package processors

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/topics"
)

// nowhere is a log that takes everything at once, and remembers the tokens.
type nowhere struct {
	tokens string
	mu     sync.Mutex
	recs   []event.Record
	facts  int
	noting bool
	later  []event.Type // of those that may wait, while noting
}

func (n *nowhere) Later(rec event.Record, done func(kafka.Ack, error)) error {
	if !n.noting {
		return n.Go(rec, done)
	}
	if v, err := event.ScanHead(rec.Value); err == nil {
		n.mu.Lock()
		n.later = append(n.later, v.Type)
		n.mu.Unlock()
	}
	return n.Go(rec, done)
}

func (n *nowhere) Go(rec event.Record, done func(kafka.Ack, error)) error {
	n.mu.Lock()
	if rec.Topic == n.tokens {
		n.recs = append(n.recs, rec)
	} else {
		n.facts++
	}
	n.mu.Unlock()
	done(kafka.Ack{}, nil)
	return nil
}

func (*nowhere) Flush(context.Context) error { return nil }
func (*nowhere) Close()                      {}

// BenchmarkTask is a task's whole way through the process, without Kafka: from
// its record on the request topic to its fact, with the call of a model that
// answers at once, the read-back and the engine. 500 are under way at once.
func BenchmarkTask(b *testing.B) {
	for name, stream := range map[string]bool{"watched": true, "unwatched": false} {
		b.Run(name, func(b *testing.B) {
			w := newTaskWorld(b)
			const atOnce = 500
			b.ReportAllocs()
			left := 0
			var recs []event.Record
			for b.Loop() {
				if left == 0 {
					b.StopTimer()
					recs = w.requests(atOnce, stream)
					left = atOnce
					b.StartTimer()
					w.run(recs)
				}
				left--
			}
			b.StopTimer()
			w.p.workers.end()
		})
	}
}

// taskWorld feeds a Processor's engine by hand.
type taskWorld struct {
	p              *Processor
	log            *nowhere
	lp             engine.LP
	next, position int64
}

func newTaskWorld(tb testing.TB) *taskWorld {
	tb.Helper()
	names := topics.Names{Prefix: "p."}
	models, err := llm.NewRegistry(nil, simulated.New())
	if err != nil {
		tb.Fatal(err)
	}
	p, err := New(Config{Names: names, Owner: "me", Engine: engine.Config{PulseEvery: 24 * time.Hour, EvictAfter: -1}}, nil, models, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		tb.Fatal(err)
	}
	log := &nowhere{tokens: names.Tokens()}
	p.out, p.alive, p.commit = log, tb.Context(), newCommitter(p)
	w := &taskWorld{p: p, log: log, lp: engine.LP{Lane: event.Standard}}
	w.own()
	return w
}

// own has the engine own its LP.
func (w *taskWorld) own() {
	w.p.engine.Step(w.p.now(), engine.Tick{}) // the first pulse, of nothing
	for _, in := range []engine.Input{
		engine.LeaseRenewed{Sent: w.p.now().Add(time.Hour), Member: "m"}, // for the whole run
		engine.PulseSeen{LP: w.lp, Released: true},
	} {
		w.p.engine.Step(w.p.now(), in)
	}
	w.p.engine.Step(w.p.now(), engine.Assigned{LP: w.lp, Life: 1, Member: "m"})
	w.p.engine.Step(w.p.now(), engine.Located{LP: w.lp, Gen: 1})
	h := event.Head{Type: event.LaneClaimed, V: 1, Time: w.p.now(), Lane: w.lp.Lane, Epoch: 1}
	w.log.recs = append(w.log.recs, event.Record{Value: event.Append(nil, &h, event.Encode(event.Claim{Owner: "me"}))})
	w.readBack()
}

func (w *taskWorld) requests(n int, stream bool) []event.Record {
	recs := make([]event.Record, n)
	for i := range recs {
		h := event.Head{Type: event.JobRequested, V: 1, Time: w.p.now(), Tenant: "default", Job: fmt.Sprintf("job-%d", w.next)}
		recs[i] = event.Record{Topic: "p.requests.standard", Offset: w.next, Time: h.Time, Key: []byte(h.Job), Value: event.Append(nil, &h,
			fmt.Appendf(nil, `{"endpoint":"/v1/chat/completions","body":{"model":%q,"messages":[{"role":"user","content":"hello there, how are you doing today?"}]},"stream":%t}`, "sim:tokens=1,ttft=0s,gap=0s", stream))}
		w.next++
	}
	return recs
}

// run takes requests to their facts.
func (w *taskWorld) run(recs []event.Record) {
	in := engine.Requests{LP: w.lp, Requests: make([]*engine.Request, len(recs))}
	for i := range recs {
		in.Requests[i] = decode(&recs[i])
	}
	w.p.step(in)
	w.deliver(len(recs))
	w.readBack()
	w.deliver(len(recs))
}

// deliver gives the engine so many inputs, when they are there.
func (w *taskWorld) deliver(n int) {
	for n > 0 {
		<-w.p.box.some
		for _, in := range w.p.box.take(nil) {
			w.p.step(in)
			n--
		}
	}
}

func (w *taskWorld) readBack() {
	c := kafka.Chunk{From: w.position, Next: w.position + int64(len(w.log.recs)), Records: w.log.recs}
	for i := range c.Records {
		c.Records[i].Offset = w.position + int64(i)
	}
	w.position, w.log.recs = c.Next, nil
	in, err := w.p.tokensInput(&c)
	if err != nil {
		panic(err)
	}
	w.p.step(in)
}
