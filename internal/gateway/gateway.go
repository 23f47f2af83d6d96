package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/fence"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// Log is what the gateway asks of Kafka beside its tail; *kafka.Cluster is one.
type Log interface {
	Fetch(ctx context.Context, tp kafka.TopicPartition, from int64, maxBytes int32, maxWait time.Duration) (kafka.Fetched, error)
	Offset(ctx context.Context, tp kafka.TopicPartition, at kafka.At) (int64, error)
	TopicID(ctx context.Context, topic string) ([16]byte, error)
}

// Tail is what the gateway asks of a tail; *kafka.Tail is one.
type Tail interface {
	Follow(partition int32, from int64)
	Unfollow(partition int32)
	Poll(ctx context.Context) ([]kafka.Chunk, error)
	Close()
}

// Rows are the jobs that were projected. Find gives a fault.NotFound for a job
// that the tenant has not got there. For a job whose id was minted here, an
// error is survivable: the log answers.
type Rows interface {
	Find(ctx context.Context, tenant, id string) (*job.Resource, error)
}

// OpenJobs tells of jobs that have not ended. Oldest gives the one of a
// conversation that was made first, nil where there is none.
type OpenJobs interface {
	Oldest(ctx context.Context, tenant, conversation string) (*job.Resource, error)
}

// Intake takes jobs in and has them stopped; *ingest.Service is one. Errors are
// faults.
type Intake interface {
	// Decode reads what POST /v1/jobs takes.
	Decode(body []byte) (job.Request, error)
	Submit(ctx context.Context, tenant string, in job.Request, opts job.SubmitOptions) (*job.Resource, error)
	// Cancel asks for a job's end. partition is that of a job whose id was not
	// minted here, where the client knows it.
	Cancel(ctx context.Context, tenant, id string, partition *int32) error
}

// Models tells which models are served.
type Models interface {
	// Models lists the names that can be listed, in a fixed order.
	Models() []string
	// Provider names who serves a model. A fault (model_not_found) says that
	// nobody does.
	Provider(model string) (string, error)
}

// Config says what a Gateway reads and within which bounds. Cluster and
// Partitions are needed; the zero value of another field takes its default.
type Config struct {
	Cluster    *kafka.Cluster
	Names      topics.Names
	Partitions int32                 // of the token and request topics
	Rows       Rows                  // nil: there are none, the log alone answers
	Open       OpenJobs              // nil: a conversation's snapshot cannot be had
	Intake     Intake                // nil: no jobs are taken in or cancelled here, and no chats served
	Models     Models                // nil: its list of models is not served
	Logger     *slog.Logger          // nil discards
	Registry   prometheus.Registerer // nil keeps no metrics
	Now        func() time.Time      // nil is time.Now

	BudgetBytes  int           // of recent records in memory, all partitions together; default 64 MiB
	Linger       time.Duration // how long a partition is followed after its last reader left; default 60 s
	CatchUpReads int           // reads from Kafka that go on at once, an eighth of them of one partition; default 16
	CatchUpBytes int32         // of one such read; default 256 KiB
	Heartbeat    time.Duration // of silence before a comment is sent; default 15 s
	Quiet        time.Duration // of silence before an SSE stream over HTTP/1.1 leaves net/http; default 100 ms
	WriteTimeout time.Duration // for a client to take what is written; default 10 s
	Patience     time.Duration // for Kafka or PostgreSQL to answer; default 5 s
	// Grace is how long a job may be silent before anyone asks whether it
	// exists; default 150 ms, in which a quick model's first token comes.
	Grace time.Duration
	// AnswerPatience is how long a client of the OpenAI API may wait for an
	// answer, or for a stream's first token; default 10 minutes, which is what its
	// SDKs wait.
	AnswerPatience time.Duration
	// Skew is by how much the clocks of those who mint ids may be ahead of this
	// process's before it has to ask Kafka where a job begins; default 1 s. A
	// larger difference costs time, and no event.
	Skew time.Duration

	// Origins are those of browsers' pages that may open a WebSocket, such as
	// "https://chat.example", beside the server's own; "*" is any.
	Origins        []string
	MaxConnections int // WebSockets and SSE streams of events at once; default 20,000
	MaxPerTenant   int // of those, one tenant's; 0: no bound
	MaxPerAddress  int // of those, from one address; 0: no bound
	// Proxies are those whose X-Forwarded-For is believed where it says whose
	// address a request comes from.
	Proxies          []netip.Prefix
	MaxSubscriptions int           // of all WebSockets together; default 200,000
	Ping             time.Duration // between two pings on a WebSocket; default 25 s
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	orInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	orInt(&c.BudgetBytes, 64<<20)
	orInt(&c.CatchUpReads, 16)
	if c.CatchUpBytes <= 0 {
		c.CatchUpBytes = 256 << 10
	}
	orTime(&c.Linger, time.Minute)
	orTime(&c.Heartbeat, 15*time.Second)
	orTime(&c.Quiet, 100*time.Millisecond)
	orTime(&c.WriteTimeout, 10*time.Second)
	orTime(&c.Patience, 5*time.Second)
	orTime(&c.Grace, 150*time.Millisecond)
	orTime(&c.Skew, time.Second)
	orInt(&c.MaxConnections, 20_000)
	orInt(&c.MaxSubscriptions, 200_000)
	orTime(&c.Ping, 25*time.Second)
	orTime(&c.AnswerPatience, 10*time.Minute)
}

// Gateway serves streams of events. Run must be running for it to serve.
type Gateway struct {
	cfg       Config
	log       Log
	questions questions
	renewals  questions // which id the token topic has: there is one thing to ask
	hub       *hub
	metrics   *metrics
	door      *door
	sockets   *sockets
	quiets    quiets
	crew      crew

	drain    sync.Once
	draining chan struct{}
	leaving  atomic.Int64  // connections that were sent away at the drain
	folding  chan struct{} // holds a token for each transcript in memory

	mu    sync.Mutex
	tasks map[*task]struct{} // goroutines under way: at most one an open stream
	idle  *sync.Cond
}

// task is a goroutine of the gateway's.
type task struct{ cancel context.CancelFunc }

// New makes a Gateway. It speaks to nobody before it is asked something.
func New(cfg Config) *Gateway {
	newTail := func(tc kafka.TailConfig) (Tail, error) { return cfg.Cluster.NewTail(tc) }
	return newGateway(cfg, cfg.Cluster, newTail)
}

func newGateway(cfg Config, log Log, newTail func(kafka.TailConfig) (Tail, error)) *Gateway {
	cfg.setDefaults()
	g := &Gateway{cfg: cfg, log: log, draining: make(chan struct{}), folding: make(chan struct{}, folds), tasks: map[*task]struct{}{}}
	g.idle = sync.NewCond(&g.mu)
	g.questions = questions{ask: g.ask, start: g.start, under: map[asked]*inquiry{}}
	g.renewals = questions{ask: g.renew, start: g.start, under: map[asked]*inquiry{}}
	g.crew.limit = runtime.GOMAXPROCS(0)
	g.metrics = newMetrics(cfg.Registry, cfg.Logger)
	g.hub = newHub(&g.cfg, log, newTail, g.metrics)
	g.door = newDoor(&g.cfg, g.metrics)
	g.sockets = newSockets(g)
	return g
}

// Routes adds the routes.
func (g *Gateway) Routes(r chi.Router) {
	r.Get("/v1/jobs/{id}/events", g.serveJob)
	r.Get("/v1/ws", g.sockets.serve)
	r.Get("/v1/topics/tokens/partitions/{partition}/events", g.servePartition)
	if g.cfg.Intake != nil {
		r.Post("/v1/chat/completions", g.serveChat)
		r.Post("/v1/embeddings", g.serveEmbeddings)
	}
	if g.cfg.Models != nil {
		r.Get("/v1/models", g.serveModels)
		r.Get("/v1/models/*", g.serveModel) // a name may have slashes
	}
}

// Run follows the log until ctx ends. It then ends all streams, as Drain does,
// and returns when every goroutine of the gateway's has ended.
func (g *Gateway) Run(ctx context.Context) error {
	err := g.hub.run(ctx)
	g.Drain()
	g.sockets.all.Wait()
	g.quiets.all.Wait()
	g.crew.all.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for t := range g.tasks {
		t.cancel()
	}
	for len(g.tasks) > 0 {
		g.idle.Wait()
	}
	return err
}

// Drain ends all open streams and lets no new one begin. Clients are told when to
// come back, each at a time of its own: those of SSE do so by themselves, with the
// cursor of the last event that they got.
func (g *Gateway) Drain() {
	g.drain.Do(func() {
		g.leaving.Store(int64(g.door.count()))
		close(g.draining)
		g.sockets.drain()
		g.quiets.drain()
	})
}

// start runs f in a goroutine that Run waits for.
func (g *Gateway) start(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	t := &task{cancel}
	g.mu.Lock()
	g.tasks[t] = struct{}{}
	g.mu.Unlock()
	go func() {
		defer func() {
			cancel()
			g.mu.Lock()
			delete(g.tasks, t)
			g.idle.Broadcast()
			g.mu.Unlock()
		}()
		f(ctx)
	}()
}

// TokensCursor is a cursor in front of whatever is about to be written to a
// partition of the token topic: what was known of its end a moment ago. It is
// "" where nobody has watched the partition lately, and costs no question.
func (g *Gateway) TokensCursor(partition int32) string {
	if partition < 0 || partition >= g.cfg.Partitions {
		return ""
	}
	next, followed := g.hub.parts[partition].end()
	if !followed {
		return ""
	}
	return g.cursor(partition, next, -1, fence.Epochs{})
}

func (g *Gateway) cursor(partition int32, next int64, leaderEpoch int32, epochs fence.Epochs) string {
	topic, _ := g.hub.born()
	return cursor.Cursor{Topic: topic, Partition: partition, LeaderEpoch: leaderEpoch, Next: next, Epochs: epochs}.String()
}

// patience bounds a question to Kafka or PostgreSQL.
func (g *Gateway) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, g.cfg.Patience)
}

// ask asks Kafka for an offset, for a bounded time.
func (g *Gateway) ask(ctx context.Context, tp kafka.TopicPartition, at kafka.At) (int64, error) {
	ctx, cancel := g.patience(ctx)
	defer cancel()
	return g.log.Offset(ctx, tp, at) //nolint:wrapcheck // whoever asked wraps it
}

// renew asks for the topic's id, for a bounded time.
func (g *Gateway) renew(ctx context.Context, _ kafka.TopicPartition, _ kafka.At) (int64, error) {
	ctx, cancel := g.patience(ctx)
	defer cancel()
	return 0, g.hub.refresh(ctx)
}

// unavailable makes a fault of what Kafka or PostgreSQL did not answer.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil || err == nil {
		return err
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	f := fault.Wrap(err, fault.Unavailable, "the log cannot be read now: try again soon")
	f.RetryAfter = time.Second
	return f
}
