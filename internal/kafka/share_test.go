package kafka_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/kafka"
)

// company is a host and a guest of one cluster, both of a topic.
type company struct {
	*ground
	topic       string
	c           *kafka.Cluster
	reg         *prometheus.Registry
	link        *link
	host, guest *reading
	cfg         kafka.TailConfig
}

func (g *ground) company(parts int32, cfg kafka.TailConfig) *company {
	g.Helper()
	c := &company{ground: g, topic: g.topic("tokens", parts), reg: prometheus.NewRegistry(), link: newLink()}
	var err error
	c.c, err = kafka.Open(g.ctx, kafka.Config{Brokers: []string{g.addr}, Dial: c.link.dial, Metrics: c.reg})
	g.no(err)
	g.Cleanup(c.c.Close)
	cfg.Topic = c.topic
	c.cfg = cfg
	c.host, c.guest = g.reading(c.tail(true)), g.reading(c.tail(false))
	return c
}

func (c *company) tail(host bool) *kafka.Tail {
	c.Helper()
	cfg := c.cfg
	cfg.Host, cfg.Guest = host, !host
	t, err := c.c.NewTail(cfg)
	c.no(err)
	c.Cleanup(t.Close)
	return t
}

// shared is how many records the guest has had of the host.
func (c *company) shared() float64 {
	c.Helper()
	all, err := c.reg.Gather()
	c.no(err)
	for _, f := range all {
		if f.GetName() == "penstock_kafka_shared_records_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// behind waits until a reading has partition 0 up to an offset.
func behind(r *reading, offset int64) {
	r.Helper()
	r.until("the records", func() bool { return r.next[0] >= offset })
}

// ride writes records to partition 0 until the guest gets some of the host's, and
// returns the log's end.
func (c *company) ride(end int64) int64 {
	c.Helper()
	for had := c.shared(); c.shared() == had; end++ {
		c.fill(c.topic, 0, 1)
		behind(c.host, end+1)
		behind(c.guest, end+1)
	}
	return end
}

func TestAGuestThatHasCaughtUpIsGivenWhatTheHostFetches(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		c := g.company(1, kafka.TailConfig{})
		c.fill(c.topic, 0, 100)
		c.host.follow(0, 100)
		c.guest.follow(0, 3) // reads for itself until it is there
		behind(c.guest, 100)
		end := c.ride(100)
		c.host.tail.Unfollow(0)
		c.fill(c.topic, 0, 5)
		behind(c.guest, end+5)
		c.host.follow(0, end) // behind the guest
		behind(c.host, end+5)
		c.ride(end + 5)
	})
}

func TestNeitherHostNorGuestWaitsForTheOthersConsumer(t *testing.T) {
	t.Parallel()
	for _, slow := range []string{"host", "guest"} {
		t.Run(slow, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(g *ground) {
				c := g.company(1, kafka.TailConfig{FetchMaxBytes: 4000, FetchMaxWait: 50 * time.Millisecond})
				c.host.follow(0, 0)
				c.guest.follow(0, 0)
				end := c.ride(0)
				quick, lazy := c.host, c.guest
				if slow == "host" {
					quick, lazy = c.guest, c.host
				}
				const more = 8
				for i := range int64(more) {
					c.fill(c.topic, 0, 250)
					behind(quick, end+250*(i+1))
				}
				end += 250 * more
				behind(lazy, end)
				c.ride(end)
			})
		})
	}
}

func TestNothingIsLostWhateverHostAndGuestDo(t *testing.T) {
	t.Parallel()
	for _, pace := range []time.Duration{0, 3 * time.Millisecond} {
		t.Run("pace="+pace.String(), func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(g *ground) {
				const parts = 4
				c := g.company(parts, kafka.TailConfig{Pace: pace, FetchMaxWait: 50 * time.Millisecond})
				p := g.producer(kafka.ProducerConfig{})
				seed := rand.Uint64()
				g.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, 0))
				ends := [parts]int64{}
				both := []*reading{c.host, c.guest}
				there := func(r *reading) func() bool {
					return func() bool {
						for part, next := range r.next {
							if next < ends[part] {
								return false
							}
						}
						return r.allTold()
					}
				}
				for range 400 {
					part, r := random.Int32N(parts), both[random.IntN(2)]
					switch n := random.IntN(24); {
					case n < 3:
						r.follow(part, max(0, ends[part]-random.Int64N(10)))
					case n < 4:
						r.tail.Unfollow(part)
						delete(r.next, part)
					case n < 5:
						c.link.cut(true)
						c.link.cut(false)
					case n < 6: // as when the topic is found to be another one
						c.host.tail.Close()
						*c.host = *g.reading(c.tail(true))
					case n < 12:
						r.until("the ends", there(r))
					default:
						_, err := p.Append(g.ctx, record(c.topic, part, "x"))
						g.no(err)
						ends[part]++
					}
				}
				for _, r := range both {
					r.until("everything", there(r))
				}
				c.host.follow(0, ends[0])
				c.guest.follow(0, ends[0])
				c.ride(ends[0])
			})
		})
	}
}

func TestAGuestIsToldWhatBecameOfItsTopicAsItsHostIs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"deleted": kafka.ErrUnknownTopic, "recreated": kafka.ErrRecreated} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(g *ground) {
				c := g.company(1, kafka.TailConfig{})
				c.host.follow(0, 0)
				c.guest.follow(0, 0)
				c.ride(0)
				if name == "recreated" { // who sees for long that there is none is told that
					c.link.freeze()
				}
				g.no(g.c.DeleteTopics(g.ctx, c.topic))
				if name == "recreated" {
					g.eventually("the topic is gone", func() bool {
						_, err := g.c.TopicID(g.ctx, c.topic)
						return errors.Is(err, kafka.ErrUnknownTopic)
					})
					g.topic("tokens", 1)
					c.link.thaw()
				}
				for _, r := range []*reading{c.guest, c.host} {
					g.is(fault(g.ctx, r.tail), want)
				}
			})
		})
	}
}

// fault polls until a partition stops.
func fault(ctx context.Context, tail *kafka.Tail) error {
	for {
		chunks, err := tail.Poll(ctx)
		if err != nil {
			return err
		}
		for _, ch := range chunks {
			if ch.Err != nil {
				return ch.Err
			}
		}
	}
}

func TestAGuestOutlivesItsHostAndAHostItsGuest(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		c := g.company(1, kafka.TailConfig{})
		c.host.follow(0, 0)
		c.guest.follow(0, 0)
		end := c.ride(0)
		c.host.tail.Close()
		c.fill(c.topic, 0, 3)
		behind(c.guest, end+3)
		c.host = g.reading(c.tail(true))
		c.host.follow(0, end+3)
		end = c.ride(end + 3)
		c.guest.tail.Close()
		c.fill(c.topic, 0, 3)
		behind(c.host, end+3)
	})
}
