package gateway

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// spoilt is what damaging damages.
const spoilt = "what a disk has damaged"

// damaging is a connection on which a text does not arrive as it was sent.
type damaging struct {
	net.Conn
	met int // bytes of the text that have come
}

func (d *damaging) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	for i := range b[:n] {
		if b[i] != spoilt[d.met] {
			d.met = 0
		}
		if b[i] == spoilt[d.met] {
			d.met++
		}
		if d.met == len(spoilt) {
			d.met, b[i] = 0, '!'
		}
	}
	return n, err
}

// damage has the gateway read from Kafka through damaging.
func (g *ground) damage() {
	g.Helper()
	c, err := kafka.Open(g.Context(), kafka.Config{
		Brokers: []string{g.addr},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return &damaging{Conn: conn}, err
		},
	})
	g.no(err)
	g.Cleanup(c.Close)
	g.restart(func(cfg *Config) { cfg.Cluster = c })
	g.Cleanup(g.stop) // before the cluster's end
}

func TestWatchersAreToldOfABatchThatCannotBeDecodedAndGoOnBehindIt(t *testing.T) {
	for name, budget := range map[string]int{"from memory": 64 << 20, "from Kafka": 1} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, Config{BudgetBytes: budget}, func(g *ground) {
				g.damage()
				a := g.author()
				other := g.authorOf("another", a.part)
				a.started()
				other.started()
				live, beside := g.open(events(a)), g.open(events(other)+fmt.Sprintf("?partition=%d", a.part))
				part := g.open(fmt.Sprintf("/v1/topics/tokens/partitions/%d/events", a.part))
				live.must()
				beside.must()
				part.must()
				part.must()
				a.say(spoilt)
				at := ""
				for who, c := range map[string]*client{"the job's": live, "another job's": beside, "the partition's": part} {
					e := c.must()
					if e.Type != streamGap || e.Data.Reason != gapCorrupt {
						t.Fatalf("%s watcher got %s, want a gap", who, e.data)
					}
					at = e.id
				}
				a.say("behind it")
				a.complete()
				if rest := live.rest(); len(rest) != 2 || rest[0].Seq != 2 || rest[1].Type != event.OutputCompleted {
					t.Errorf("behind it came %v", rest)
				}
				other.complete()
				if rest := beside.rest(); len(rest) != 1 || rest[0].Seq != 1 {
					t.Errorf("the other job's stream goes on with %v", rest)
				}
				if rest := g.open(events(a), "Last-Event-ID", at).rest(); len(rest) != 2 || rest[0].Seq != 2 {
					t.Errorf("who comes back with the gap's cursor gets %v", rest)
				}
				if all := g.open(events(a)).rest(); len(all) != 4 || all[1].Data.Reason != gapCorrupt {
					t.Errorf("who comes anew gets %v", all)
				}
				if _, err := g.gateway.Lookup().Job(t.Context(), "default", a.head.Job, nil); err == nil {
					t.Error("a lookup gives a text of which a part is missing")
				}
				a.row("the whole answer")
				for over, all := range g.overBoth(a, "") {
					if len(all) != 4 || all[1].Data.Reason != gapCorrupt || all[2].Data.Text != "the whole answer" {
						t.Errorf("over %s: %v; want the start, a gap, the whole answer, the end", over, all)
					}
				}
			})
		})
	}
}

func TestAJobWhoseRequestStandsBehindABatchThatCannotBeDecodedIsFound(t *testing.T) {
	onBoth(t, Config{}, func(g *ground) {
		g.damage()
		a := g.author()
		g.append(event.Record{Topic: g.names.Requests(event.Standard), Partition: a.part, Value: []byte(spoilt)})
		a.request(event.Standard)
		if _, err := g.gateway.Lookup().Job(t.Context(), "default", a.head.Job, nil); err != nil {
			t.Error(err)
		}
	})
}
