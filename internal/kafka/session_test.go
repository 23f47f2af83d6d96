package kafka_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/internal/kafka"
)

// ear hears the requests that a cluster's clients write.
type ear struct {
	link    *link
	mu      sync.Mutex
	fetches []*kmsg.FetchRequest
}

func (e *ear) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := e.link.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return heard{conn, e}, nil
}

type heard struct {
	net.Conn
	ear *ear
}

// Write notes a request: the client writes each at once. It begins with length,
// key, version, correlation and the client's id.
func (h heard) Write(b []byte) (int, error) {
	h.ear.mu.Lock()
	key, version := int16(binary.BigEndian.Uint16(b[4:])), int16(binary.BigEndian.Uint16(b[6:]))
	if key == int16(kmsg.Fetch) {
		body := b[14+binary.BigEndian.Uint16(b[12:]):]
		req := kmsg.NewPtrFetchRequest()
		if req.SetVersion(version); req.IsFlexible() {
			body = body[1:]
		}
		if req.ReadFrom(body) == nil {
			h.ear.fetches = append(h.ear.fetches, req)
		}
	}
	h.ear.mu.Unlock()
	return h.Conn.Write(b)
}

// heardSince returns the fetches from a place on, and the place behind them.
func (e *ear) heardSince(i int) ([]*kmsg.FetchRequest, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.fetches[i:]), len(e.fetches)
}

func named(reqs ...*kmsg.FetchRequest) (n int) {
	for _, req := range reqs {
		for _, t := range req.Topics {
			n += len(t.Partitions)
		}
	}
	return n
}

// listen makes a cluster whose requests are heard.
func (g *ground) listen() (*kafka.Cluster, *ear) {
	g.Helper()
	e := &ear{link: newLink()}
	c, err := kafka.Open(g.ctx, kafka.Config{Brokers: []string{g.addr}, Dial: e.dial})
	g.no(err)
	g.Cleanup(c.Close)
	return c, e
}

func (g *ground) listeningTail(cfg kafka.TailConfig) (*kafka.Tail, *ear) {
	g.Helper()
	c, e := g.listen()
	tail, err := c.NewTail(cfg)
	g.no(err)
	g.Cleanup(tail.Close)
	return tail, e
}

// reading is what a tail has read of each partition that it follows, checked
// for order and gaps.
type reading struct {
	*ground
	tail *kafka.Tail
	next map[int32]int64
	told map[int32]bool // its end, since it was followed
}

func (r *reading) follow(part int32, from int64) {
	r.tail.Follow(part, from)
	r.next[part], r.told[part] = from, false
}

func (r *reading) until(want string, enough func() bool) {
	r.Helper()
	for !enough() {
		chunks, err := r.tail.Poll(r.ctx)
		if err != nil {
			r.Fatalf("waiting for %s, at %v, told %v: %v", want, r.next, r.told, err)
		}
		for _, ch := range chunks {
			r.no(ch.Err)
			next, ok := r.next[ch.Partition]
			if !ok || ch.From != next {
				r.Fatalf("partition %d: read from %d, want %d (followed: %v)", ch.Partition, ch.From, next, ok)
			}
			for _, rec := range ch.Records {
				if rec.Offset != next {
					r.Fatalf("partition %d: offset %d, want %d", ch.Partition, rec.Offset, next)
				}
				next++
			}
			r.next[ch.Partition] = ch.Next
			r.told[ch.Partition] = r.told[ch.Partition] || ch.Next == ch.HighWatermark
		}
	}
}

func (r *reading) allTold() bool {
	for part := range r.next {
		if !r.told[part] {
			return false
		}
	}
	return true
}

func (g *ground) reading(tail *kafka.Tail) *reading {
	return &reading{g, tail, map[int32]int64{}, map[int32]bool{}}
}

func TestAFetchNamesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		const parts, rounds = 12, 60
		topic := g.topic("tokens", parts)
		tail, ear := g.listeningTail(kafka.TailConfig{Topic: topic, FetchMaxWait: 30 * time.Second})
		r := g.reading(tail)
		began := time.Now()
		for part := range int32(parts) {
			r.follow(part, 0)
		}
		r.until("the ends", r.allTold)
		if took := time.Since(began); took > 20*time.Second {
			g.Fatalf("the ends were told after %v, that is as long as a fetch waits", took)
		}
		p := g.producer(kafka.ProducerConfig{})
		_, at := ear.heardSince(0)
		for i := range rounds {
			part := int32(i % parts)
			_, err := p.Append(g.ctx, record(topic, part, "x"))
			g.no(err)
			r.until("a record", func() bool { return r.next[part] == int64(i/parts)+1 })
		}
		got, _ := ear.heardSince(at)
		for _, req := range got {
			if req.SessionEpoch < 1 && req.MaxWaitMillis > 0 {
				g.Fatalf("a fetch without a session: %+v", req)
			}
		}
		if n := named(got...); n > 2*rounds+2*parts {
			g.Fatalf("%d fetches for %d records named %d partitions", len(got), rounds, n)
		}
	})
}

func TestASessionThatTheBrokerEndedIsBegunAnew(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("tokens", 3)
		tail, ear := g.listeningTail(kafka.TailConfig{Topic: topic, FetchMaxWait: 10 * time.Second})
		r := g.reading(tail)
		for part := range int32(3) {
			r.follow(part, 0)
		}
		p, cl := g.producer(kafka.ProducerConfig{}), g.client()
		written := map[int32]int64{}
		write := func(part int32) {
			g.Helper()
			_, err := p.Append(g.ctx, record(topic, part, "x"))
			g.no(err)
			written[part]++
			r.until("a record", func() bool { return r.next[part] == written[part] })
		}
		ended := map[int32]bool{0: true}
		// A session that was given a moment ago has been named in no request yet,
		// so a round may end none that is in use: some are tried.
		const begun, rounds = 5, 50
		for n, round := 0, 0; n < begun; round++ {
			if round == rounds {
				g.Fatalf("%d sessions were begun after an old one's end in %d rounds", n, round)
			}
			write(0)
			got, at := ear.heardSince(0)
			for _, req := range got {
				if !ended[req.SessionID] {
					ended[req.SessionID] = true
					end := kmsg.NewPtrFetchRequest()
					end.SessionID, end.SessionEpoch = req.SessionID, -1
					_, err := cl.Broker(int(g.leader(topic))).Request(g.ctx, end)
					g.no(err)
				}
			}
			// What is parked is answered; what follows it finds no session.
			write(0)
			write(0)
			write(1)
			got, _ = ear.heardSince(at)
			if slices.ContainsFunc(got, func(req *kmsg.FetchRequest) bool { return req.SessionEpoch == 0 }) {
				n++
			}
		}
	})
}

// leader is the broker of a topic's first partition.
func (g *ground) leader(topic string) int32 {
	g.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(g.ctx, g.client())
	g.no(err)
	return resp.Topics[0].Partitions[0].Leader
}

// onScripted runs a test on a broker whose fetches go through a function first.
func onScripted(t *testing.T, script func(*kmsg.FetchRequest) (kmsg.Response, bool), test func(g *ground)) {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	broker.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		resp, handled := script(req.(*kmsg.FetchRequest)) //nolint:forcetypeassert // It is the key's.
		return resp, nil, handled
	})
	test(newGround(t, broker.ListenAddrs()[0], false))
}

func TestEverySessionErrorBeginsAnew(t *testing.T) {
	t.Parallel()
	for _, ke := range []*kerr.Error{kerr.FetchSessionIDNotFound, kerr.InvalidFetchSessionEpoch, kerr.FetchSessionTopicIDError} {
		t.Run(ke.Message, func(t *testing.T) {
			t.Parallel()
			type session struct{ id, epoch int32 }
			fail, failed := make(chan struct{}, 1), make(chan session, 1)
			onScripted(t, func(req *kmsg.FetchRequest) (kmsg.Response, bool) {
				select {
				case <-fail:
					failed <- session{req.SessionID, req.SessionEpoch}
					resp := req.ResponseKind().(*kmsg.FetchResponse) //nolint:forcetypeassert // It is the key's.
					resp.ErrorCode = ke.Code
					return resp, true
				default:
					return nil, false
				}
			}, func(g *ground) {
				topic := g.topic("tokens", 2)
				tail, ear := g.listeningTail(kafka.TailConfig{Topic: topic, FetchMaxWait: 5 * time.Second})
				r := g.reading(tail)
				r.follow(0, 0)
				r.follow(1, 0)
				r.until("the ends", r.allTold)
				_, at := ear.heardSince(0)
				fail <- struct{}{} // the next fetch: the one that follows the record's, or one that is on its way
				g.fill(topic, 0, 1)
				r.until("a record", func() bool { return r.next[0] == 1 })
				g.fill(topic, 1, 1)
				r.until("a record of the other", func() bool { return r.next[1] == 1 })
				old := <-failed
				want := old.id // closed with the request for the next
				if ke == kerr.FetchSessionIDNotFound {
					want = 0
				}
				g.eventually("a request begins anew behind the one that failed", func() bool {
					got, _ := ear.heardSince(max(0, at-2)) // those on their way, too
					i := slices.IndexFunc(got, func(req *kmsg.FetchRequest) bool { return session{req.SessionID, req.SessionEpoch} == old })
					return slices.ContainsFunc(got[i+1:], func(req *kmsg.FetchRequest) bool { return req.SessionEpoch == 0 && req.SessionID == want })
				})
			})
		})
	}
}

func TestABrokerWithoutSessionsIsAskedWhole(t *testing.T) {
	t.Parallel()
	onScripted(t, func(req *kmsg.FetchRequest) (kmsg.Response, bool) {
		req.SessionID, req.SessionEpoch = 0, -1 // as if nobody had asked for one
		return nil, false
	}, func(g *ground) {
		const parts, wait = 4, 300 * time.Millisecond
		topic := g.topic("tokens", parts)
		tail, ear := g.listeningTail(kafka.TailConfig{Topic: topic, FetchMaxWait: wait})
		r := g.reading(tail)
		for part := range int32(parts) {
			r.follow(part, 0)
		}
		for i := range int64(10) {
			for part := range int32(parts) {
				g.fill(topic, part, 1)
				r.until("a record", func() bool { return r.next[part] == i+1 })
			}
		}
		short, cancel := context.WithTimeout(g.ctx, time.Second)
		defer cancel()
		_, at := ear.heardSince(0)
		began := time.Now()
		_, err := tail.Poll(short)
		g.is(err, context.DeadlineExceeded)
		got, _ := ear.heardSince(at)
		if most := 2*int(time.Since(began)/wait) + 4; len(got) > most { // two lanes
			g.Fatalf("%d fetches in an idle time of %v, want %d at the most", len(got), time.Since(began), most)
		}
	})
}

func TestATailLosesNothingWhateverHappensToItsFetches(t *testing.T) {
	t.Parallel()
	for _, pace := range []time.Duration{0, 3 * time.Millisecond} {
		t.Run("pace="+pace.String(), func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(g *ground) {
				const parts = 6
				topic := g.topic("tokens", parts)
				tail, ear := g.listeningTail(kafka.TailConfig{Topic: topic, Pace: pace, FetchMaxWait: 50 * time.Millisecond})
				r, p := g.reading(tail), g.producer(kafka.ProducerConfig{})
				seed := rand.Uint64()
				g.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, 0))
				ends := [parts]int64{}
				for range 400 {
					part := random.Int32N(parts)
					switch n := random.IntN(20); {
					case n < 4:
						r.follow(part, random.Int64N(ends[part]+1))
					case n < 6:
						tail.Unfollow(part)
						delete(r.next, part)
					case n < 7:
						ear.link.cut(true)
						ear.link.cut(false)
					case n < 10:
						r.until("the ends", r.allTold)
					default:
						_, err := p.Append(g.ctx, record(topic, part, "x"))
						g.no(err)
						ends[part]++
					}
				}
				r.until("everything", func() bool {
					for part, next := range r.next {
						if next < ends[part] {
							return false
						}
					}
					return r.allTold()
				})
			})
		})
	}
}

func TestAGroupReadsEachRecordOnceHoweverItIsPaused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		const parts, n = 4, 300
		topic := g.topic("work", parts)
		gr := g.group(kafka.GroupConfig{Group: g.prefix + "group", Topics: []string{topic}, Pace: time.Millisecond, FetchMaxWait: 50 * time.Millisecond})
		s := newSeen()
		g.until(gr, "its partitions", func(p kafka.Poll) bool { s.take(g, p); return len(s.assigned) == parts })
		p := g.producer(kafka.ProducerConfig{})
		for i := range n {
			tp := kafka.TopicPartition{Topic: topic, Partition: int32(i % parts)}
			g.no(p.Go(record(topic, tp.Partition, strconv.Itoa(i/parts)), nil))
			if i%5 == 0 {
				gr.Pause(tp)
			}
			if i%7 == 0 {
				short, cancel := context.WithTimeout(g.ctx, 5*time.Millisecond)
				if p, err := gr.Poll(short); err == nil {
					s.take(g, p)
				}
				cancel()
			}
			gr.Resume(kafka.TopicPartition{Topic: topic, Partition: int32(i % 3)}, tp)
		}
		g.until(gr, "all", func(p kafka.Poll) bool { s.take(g, p); return s.total() >= n })
		var want []string
		for i := range n / parts {
			want = append(want, strconv.Itoa(i))
		}
		for tp, got := range s.records {
			if diff := cmp.Diff(want, got); diff != "" {
				g.Fatalf("%s (-want +got):\n%s", tp, diff)
			}
		}
	})
}

func TestWhatWasFetchedOfAPausedPartitionIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		const n = 100
		topic := g.topic("work", 1)
		tp := kafka.TopicPartition{Topic: topic}
		p := g.producer(kafka.ProducerConfig{Linger: 100 * time.Millisecond})
		for i := range n {
			g.no(p.Go(record(topic, 0, strconv.Itoa(i)), nil))
		}
		g.no(p.Flush(g.ctx))
		cluster, ear := g.listen()
		gr, err := cluster.NewGroup(kafka.GroupConfig{Group: g.prefix + "group", Topics: []string{topic}, MaxPollRecords: 10})
		g.no(err)
		defer gr.Close()
		var got []string
		for len(got) < n {
			poll, err := gr.Poll(g.ctx)
			g.no(err)
			for _, rec := range poll.Records {
				got = append(got, string(rec.Value))
			}
			gr.Pause(tp)
			short, cancel := context.WithTimeout(g.ctx, time.Millisecond)
			if poll, err := gr.Poll(short); err == nil && len(poll.Records) > 0 {
				g.Fatalf("a paused partition brought %d records", len(poll.Records))
			}
			cancel()
			gr.Resume(tp)
		}
		for i, v := range got {
			if v != strconv.Itoa(i) {
				g.Fatalf("record %d is %q", i, v)
			}
		}
		fetches, _ := ear.heardSince(0)
		from := map[int64]int{}
		for _, req := range fetches {
			for _, t := range req.Topics {
				for _, part := range t.Partitions {
					from[part.FetchOffset]++
				}
			}
		}
		for at := range from {
			if at != 0 && at != n {
				g.Errorf("offset %d was asked for: what stands there had been fetched", at)
			}
		}
	})
}
