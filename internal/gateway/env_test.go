package gateway

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/devstack"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m)) }

const testPartitions = 3

// ground is a broker with topics, a gateway before it, and a server.
type ground struct {
	testing.TB
	addr     string
	names    topics.Names
	cluster  *kafka.Cluster
	producer *kafka.Producer
	gateway  *Gateway
	url      string
	http     *http.Client // nil is the default one
	stop     func()       // ends the gateway
	rows     *rows
}

// onBoth runs a test on the embedded broker and on Apache Kafka.
func onBoth(t *testing.T, cfg Config, test func(g *ground)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { test(newGround(t, startEmbedded(t), cfg)) })
	t.Run("apache", func(t *testing.T) { test(newGround(t, testenv.Kafka(t), cfg)) })
}

// onOne runs a test on the embedded broker alone.
func onOne(tb testing.TB, cfg Config) *ground {
	tb.Helper()
	return newGround(tb, startEmbedded(tb), cfg)
}

func startEmbedded(tb testing.TB) string {
	tb.Helper()
	b, err := devstack.StartBroker(tb.Context(), devstack.BrokerConfig{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Errorf("close the embedded broker: %v", err)
		}
	})
	return b.Addr()
}

func newGround(tb testing.TB, addr string, cfg Config) *ground {
	tb.Helper()
	g := &ground{TB: tb, addr: addr, names: topics.Names{Prefix: testenv.Prefix(tb)}, rows: &rows{jobs: map[string]*job.Resource{}}}
	var err error
	g.cluster, err = kafka.Open(tb.Context(), kafka.Config{Brokers: []string{addr}})
	g.no(err)
	tb.Cleanup(g.cluster.Close)
	g.create()
	g.producer, err = g.cluster.NewProducer(kafka.ProducerConfig{})
	g.no(err)
	tb.Cleanup(g.producer.Close)
	cfg.Cluster, cfg.Names, cfg.Partitions = g.cluster, g.names, testPartitions
	if cfg.Rows == nil {
		cfg.Rows = g.rows
	}
	g.gateway = New(cfg)
	g.run()
	return g
}

// run runs the gateway behind a server until the test ends, or stop.
func (g *ground) run() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.Context()))
	done := make(chan error, 1)
	gw := g.gateway
	go func() { done <- gw.Run(ctx) }()
	r := api.NewRouter(api.Config{})
	gw.Routes(r)
	server := httptest.NewServer(r)
	g.url = server.URL
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			g.Errorf("the gateway ended with %v", err)
		}
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	g.Cleanup(g.stop)
}

// create makes the topics.
func (g *ground) create() {
	g.Helper()
	names := []string{g.names.Tokens()}
	for _, l := range event.Lanes() {
		names = append(names, g.names.Requests(l))
	}
	var changes []topics.Change
	for _, n := range names {
		changes = append(changes, topics.Change{Kind: topics.Create, Topic: topics.Topic{Name: n, Partitions: testPartitions, Replication: 1}})
	}
	g.no(g.cluster.Apply(g.Context(), changes))
}

func (g *ground) no(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// rows are the projected jobs of a test.
type rows struct {
	mu   sync.Mutex
	jobs map[string]*job.Resource
	err  error
}

func (r *rows) Find(_ context.Context, tenant, id string) (*job.Resource, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	if j := r.jobs[tenant+"/"+id]; j != nil {
		return j, nil
	}
	return nil, fault.New(fault.NotFound, "no row")
}

func (r *rows) set(tenant string, j *job.Resource, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = err; j != nil {
		r.jobs[tenant+"/"+j.ID] = j
	}
}

// author writes one job's records, by hand.
type author struct {
	g    *ground
	head event.Head
	part int32
}

// author makes a job of a new id.
func (g *ground) author() *author {
	g.Helper()
	id, err := job.Mint(time.Now(), "", testPartitions, rand.Reader)
	g.no(err)
	m, _ := job.ParseID(id)
	return g.authorOf(id, m.Partition)
}

func (g *ground) authorOf(id string, part int32) *author {
	return &author{g: g, part: part, head: event.Head{
		V: 1, Tenant: event.DefaultTenant, Job: id, Attempt: 1, Lane: event.Standard, Epoch: 1,
	}}
}

// next is the job's next record, and is not written yet.
func (a *author) next(t event.Type, data any) event.Record {
	a.head.Type, a.head.Time = t, time.Now()
	rec := a.g.record(a.part, a.head, data)
	a.head.Seq++
	return rec
}

func (g *ground) record(part int32, h event.Head, data any) event.Record {
	return event.Record{
		Topic: g.names.Tokens(), Partition: part, Key: []byte(h.Job), Time: h.Time,
		Value: event.Append(nil, &h, event.Encode(data)),
	}
}

func (a *author) write(t event.Type, data any) {
	a.g.Helper()
	a.g.append(a.next(t, data))
}

func (g *ground) append(recs ...event.Record) []kafka.Ack {
	g.Helper()
	acks, err := g.producer.Append(context.WithoutCancel(g.Context()), recs...)
	g.no(err)
	return acks
}

func (a *author) started() {
	a.g.Helper()
	a.write(event.OutputStarted, event.Started{Model: "sim", Provider: "sim"})
}

func (a *author) say(text string) {
	a.g.Helper()
	a.write(event.OutputDelta, event.Delta{Content: text})
}

func (a *author) complete() {
	a.g.Helper()
	a.write(event.OutputCompleted, event.Completed{Model: "sim", Choices: []event.Choice{{FinishReason: "stop"}}})
}

// whole writes a job of n deltas, "0 " to "n-1 ", in one go.
func (a *author) whole(n int) []kafka.Ack {
	recs := []event.Record{a.next(event.OutputStarted, event.Started{Model: "sim", Provider: "sim"})}
	for i := range n {
		recs = append(recs, a.next(event.OutputDelta, event.Delta{Content: fmt.Sprint(i, " ")}))
	}
	recs = append(recs, a.next(event.OutputCompleted, event.Completed{Model: "sim"}))
	return a.g.append(recs...)
}

// claim writes a claim by hand.
func (g *ground) claim(part int32, lane event.Lane, epoch int64) {
	g.Helper()
	h := event.Head{Type: event.LaneClaimed, V: 1, Time: time.Now(), Lane: lane, Epoch: epoch}
	rec := g.record(part, h, event.Claim{Owner: "test"})
	rec.Key = []byte(lane.String())
	g.append(rec)
}

// request writes the job's request.
func (a *author) request(lane event.Lane) {
	a.g.Helper()
	a.requestAt(lane, time.Now())
}

// requestAt is request by a clock of the producer's own.
func (a *author) requestAt(lane event.Lane, at time.Time) {
	a.g.Helper()
	h := a.head
	h.Type, h.Time = event.JobRequested, at
	a.g.append(event.Record{
		Topic: a.g.names.Requests(lane), Partition: a.part, Key: []byte(h.Job), Time: h.Time,
		Value: event.Append(nil, &h, event.Encode(event.Request{Body: jsontext.Value(`{"model":"sim","messages":[]}`)})),
	})
}

// got is one event as a client got it.
type got struct {
	id, data string
	Type     event.Type `json:"type"`
	Seq      int64      `json:"seq"`
	Epoch    int64      `json:"epoch"`
	Job      string     `json:"job"`
	Data     struct {
		Content    string `json:"content"`
		Text       string `json:"text"`
		ThroughSeq int64  `json:"through_seq"`
		Reason     string `json:"reason"`
		Cursor     string `json:"cursor"`
		Status     string `json:"status"`
	} `json:"data"`
}

// client reads one SSE answer.
type client struct {
	g      *ground
	resp   *http.Response
	lines  *bufio.Reader
	cancel context.CancelFunc
	beats  int
	// retries are how long to wait before coming back, as the stream said so far.
	retries []string
}

// open asks for a stream; headers are pairs.
func (g *ground) open(path string, headers ...string) *client {
	g.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.Context()), time.Minute)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+path, http.NoBody)
	g.no(err)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	asks := http.DefaultClient
	if g.http != nil {
		asks = g.http
	}
	resp, err := asks.Do(req) //nolint:bodyclose // client.close does
	if err != nil {
		cancel()
		g.Fatal(err)
	}
	c := &client{g: g, resp: resp, lines: bufio.NewReader(resp.Body), cancel: cancel}
	g.Cleanup(c.close)
	return c
}

func (c *client) close() {
	c.cancel()
	_ = c.resp.Body.Close()
}

// next reads the next event; io.EOF at the stream's end.
func (c *client) next() (got, error) {
	var e got
	var data []string
	for {
		line, err := c.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			e.data = strings.Join(data, "\n")
			return e, json.Unmarshal([]byte(e.data), &e, jsontext.AllowInvalidUTF8(true))
		case line == "":
		case field == "id":
			e.id = value
		case field == "data":
			data = append(data, value)
		case field == "retry":
			c.retries = append(c.retries, value)
		case field == "":
			c.beats++
		default:
			c.g.Errorf("a line %q on the stream", line)
		}
	}
}

// must is next where there has to be one.
func (c *client) must() got {
	c.g.Helper()
	e, err := c.next()
	c.g.no(err)
	return e
}

// rest reads to the end.
func (c *client) rest() []got {
	c.g.Helper()
	var all []got
	for {
		e, err := c.next()
		if errors.Is(err, io.EOF) {
			return all
		}
		c.g.no(err)
		all = append(all, e)
	}
}

// status checks the answer's status and gives its body.
func (c *client) status(want int) string {
	c.g.Helper()
	defer c.close()
	if c.resp.StatusCode != want {
		b, _ := io.ReadAll(c.resp.Body)
		c.g.Fatalf("status is %d, want %d: %s", c.resp.StatusCode, want, b)
	}
	if want == http.StatusOK {
		return ""
	}
	b, err := io.ReadAll(c.resp.Body)
	c.g.no(err)
	return string(b)
}

func events(a *author) string { return "/v1/jobs/" + a.head.Job + "/events" }

// seqs checks that events have the seqs from first on, without a gap.
func seqs(tb testing.TB, all []got, first int64) {
	tb.Helper()
	for i, e := range all {
		if e.Seq != first+int64(i) {
			tb.Fatalf("event %d has seq %d, want %d: %s", i, e.Seq, first+int64(i), e.data)
		}
	}
}

func text(all []got) string {
	var b strings.Builder
	for _, e := range all {
		b.WriteString(e.Data.Text + e.Data.Content)
	}
	return b.String()
}
