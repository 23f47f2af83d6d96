package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock-io/penstock/internal/event"
)

const (
	defaultMaxBuffered      = 10_000
	defaultMaxBufferedBytes = 64 << 20
	defaultMaxRecordBytes   = 1 << 20
	// minDeliveryTimeout is the shortest that the client takes.
	minDeliveryTimeout = time.Second
	// recordOverhead is what a batch of one record adds to key, value and
	// headers, generously.
	recordOverhead = 128
	headerOverhead = 16
)

// Compression is how batches are packed on the wire and in the log.
type Compression uint8

// The compressions.
const (
	// Uncompressed is the default: batches hold one or a few small records
	// here, which packing makes later and hardly smaller.
	Uncompressed Compression = iota
	LZ4
	Zstd
)

// ProducerConfig says how a Producer behaves. The zero value of a field takes
// its default.
type ProducerConfig struct {
	// Linger is how long a record waits for others to share its batch; the
	// default is not at all, since a token's reader is waiting.
	Linger time.Duration
	// Gather is how long a record given to Later waits for others where Busy
	// records a second or more come that way; with fewer it is shorter, and below a
	// quarter of them it does not wait. Default 0: never.
	Gather time.Duration
	Busy   int
	// MaxBuffered bounds the records that are not yet acknowledged; default 10,000.
	MaxBuffered int
	// MaxBufferedBytes bounds their keys, values and headers; default 64 MiB.
	MaxBufferedBytes int
	// MaxRecordBytes bounds a batch, and so a record, of any topic that is not
	// in TopicBytes: the topics' max.message.bytes; default 1 MiB.
	MaxRecordBytes int
	// TopicBytes is the max.message.bytes of the topics that have another.
	TopicBytes map[string]int
	// DeliveryTimeout, of 1 s at least, is after how long a record that was not
	// sent is given up (ErrRefused). One that was sent and has no answer is
	// ErrUnknownOutcome a backoff (1 s) later; it keeps its room, and the client
	// goes on asking for its answer, so that it is never in the log twice by
	// the client's doing. 0 is none: done is called when there is an answer.
	DeliveryTimeout time.Duration
	Compression     Compression
}

func (cfg ProducerConfig) withDefaults() ProducerConfig {
	if cfg.MaxBuffered <= 0 {
		cfg.MaxBuffered = defaultMaxBuffered
	}
	if cfg.MaxBufferedBytes <= 0 {
		cfg.MaxBufferedBytes = defaultMaxBufferedBytes
	}
	if cfg.MaxRecordBytes <= 0 {
		cfg.MaxRecordBytes = defaultMaxRecordBytes
	}
	if cfg.DeliveryTimeout > 0 {
		cfg.DeliveryTimeout = max(cfg.DeliveryTimeout, minDeliveryTimeout)
	}
	return cfg
}

func (cfg ProducerConfig) maxBytes(topic string) int {
	if n, ok := cfg.TopicBytes[topic]; ok && n > 0 {
		return n
	}
	return cfg.MaxRecordBytes
}

// Ack says where a record stands in the log.
type Ack struct {
	Partition int32
	Offset    int64
}

// Producer appends records to the partitions that they name, in order per
// partition, acknowledged by all in-sync replicas.
type Producer struct {
	cfg     ProducerConfig
	metrics *metrics
	client  *kgo.Client
	open    func(ctx context.Context, network, addr string) (net.Conn, error)
	writes  atomic.Int64 // attempts to write to any broker
	topics  sync.Map     // *topicMetrics by name; as many as there are topics
	gather  gatherer

	mu      sync.Mutex
	records int // taken and not yet settled
	bytes   int
	closed  bool
	room    chan struct{} // signals that something was settled
}

// NewProducer makes a producer with connections of its own.
func (c *Cluster) NewProducer(cfg ProducerConfig) (*Producer, error) {
	cfg = cfg.withDefaults()
	p := &Producer{cfg: cfg, metrics: c.metrics, open: c.cfg.Dial, room: make(chan struct{}, 1)}
	p.gather.longest, p.gather.busy = cfg.Gather, float64(cfg.Busy)
	codec := kgo.NoCompression()
	switch cfg.Compression {
	case LZ4:
		codec = kgo.Lz4Compression()
	case Zstd:
		codec = kgo.ZstdCompression()
	case Uncompressed:
	}
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(cfg.Linger), // the client's own default is 10 ms
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytesFn(func(topic string) int32 { return clamp32(cfg.maxBytes(topic)) }),
		// The bounds are kept here, where ErrFull can be told at once: the
		// client's own only have to be beyond them.
		kgo.MaxBufferedRecords(2 * cfg.MaxBuffered),
		kgo.Dialer(p.dial),
	}
	if cfg.DeliveryTimeout > 0 {
		opts = append(opts, kgo.RecordDeliveryTimeout(cfg.DeliveryTimeout))
	}
	var err error
	if p.client, err = c.newClient(opts...); err != nil {
		return nil, err
	}
	return p, nil
}

// dial counts attempts to write: where none was made since a record was taken,
// the record was surely never sent.
func (p *Producer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := p.open(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return countingConn{conn, &p.writes}, nil
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

// Write counts before it writes, so that no byte is out uncounted.
func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// Append appends records in order and returns where each stands. It waits for
// room and for the log's answer, until ctx ends. On an error the Acks of records
// that are not known to be in the log have Offset -1; the error is of
// ErrUnknownOutcome where any of them may be in it, else of ErrRefused. A record
// that was unknown when ctx ended may still be appended later.
func (p *Producer) Append(ctx context.Context, recs ...event.Record) ([]Ack, error) {
	acks := make([]Ack, len(recs))
	for i := range recs {
		acks[i] = Ack{Partition: recs[i].Partition, Offset: -1}
		if err := p.check(&recs[i]); err != nil {
			return acks, err
		}
	}
	type settled struct {
		i   int
		ack Ack
		err error
	}
	// As large as there are records: no callback ever blocks, even after Append
	// has returned.
	results := make(chan settled, len(recs))
	var errs []error
	sent := 0
	for i := range recs {
		if err := p.reserve(ctx, size(&recs[i])); err != nil {
			errs = append(errs, err)
			break
		}
		p.produce(ctx, &recs[i], false, func(ack Ack, err error) { results <- settled{i, ack, err} })
		sent++
	}
	for n := range sent {
		select {
		case s := <-results:
			if s.err != nil {
				errs = append(errs, s.err)
			} else {
				acks[s.i] = s.ack
			}
		case <-ctx.Done():
			return acks, fmt.Errorf("%w: no answer for %d of %d records: %w", ErrUnknownOutcome, sent-n, len(recs), ctx.Err())
		}
	}
	return acks, worst(errs)
}

// worst is the error that says the least.
func worst(errs []error) error {
	for _, err := range errs {
		if errors.Is(err, ErrUnknownOutcome) {
			return err
		}
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}

// Go appends a record without waiting. Where it returns nil, done is called
// once, from a goroutine of the client, and must not block; done may be nil.
// ErrFull says that nothing was taken; a record that is too large is ErrRefused
// and ErrTooLarge.
func (p *Producer) Go(rec event.Record, done func(Ack, error)) error {
	return p.start(&rec, false, done)
}

// Later is Go for a record that can wait for others to share its request, as long
// as the producer's Gather. It stays in order with all others.
func (p *Producer) Later(rec event.Record, done func(Ack, error)) error {
	return p.start(&rec, true, done)
}

func (p *Producer) start(rec *event.Record, canWait bool, done func(Ack, error)) error {
	if err := p.check(rec); err != nil {
		return err
	}
	ok, err := p.tryReserve(size(rec))
	if err != nil {
		return err
	}
	if !ok {
		p.metrics.full.Inc()
		return fmt.Errorf("%w: %d records or %d bytes are waiting for %s", ErrFull, p.cfg.MaxBuffered, p.cfg.MaxBufferedBytes, rec.Topic)
	}
	p.produce(context.Background(), rec, canWait, done)
	return nil
}

// produce hands a record to the client; its room is reserved.
func (p *Producer) produce(ctx context.Context, rec *event.Record, canWait bool, done func(Ack, error)) {
	n := size(rec)
	before, began := p.writes.Load(), time.Now()
	kr := &kgo.Record{
		Topic: rec.Topic, Partition: rec.Partition,
		Key: rec.Key, Value: rec.Value, Timestamp: rec.Time,
	}
	if len(rec.Headers) > 0 {
		kr.Headers = make([]kgo.RecordHeader, len(rec.Headers))
		for i, h := range rec.Headers {
			kr.Headers[i] = kgo.RecordHeader(h)
		}
	}
	if done != nil && p.cfg.DeliveryTimeout > 0 {
		done = p.inTime(TopicPartition{rec.Topic, rec.Partition}, done)
	}
	p.hand(held{ctx, kr, func(kr *kgo.Record, err error) {
		p.release(n)
		ack := Ack{Partition: kr.Partition, Offset: kr.Offset}
		if err != nil {
			ack.Offset = -1
			err = p.outcome(kr, err, p.writes.Load() != before)
		} else {
			m := p.topic(kr.Topic)
			m.produced.Inc()
			m.ackSeconds.Observe(time.Since(began).Seconds())
		}
		if done != nil {
			done(ack, err)
		}
	}}, canWait)
}

// topicMetrics are those of one topic, found once.
type topicMetrics struct {
	produced   prometheus.Counter
	ackSeconds prometheus.Observer
}

func (p *Producer) topic(name string) *topicMetrics {
	if m, ok := p.topics.Load(name); ok {
		return m.(*topicMetrics) //nolint:forcetypeassert // nothing else is stored
	}
	m := &topicMetrics{p.metrics.produced.WithLabelValues(name), p.metrics.ackSeconds.WithLabelValues(name)}
	p.topics.Store(name, m)
	return m
}

// inTime calls done once: with what it is called with, or with
// ErrUnknownOutcome where that takes too long.
func (p *Producer) inTime(tp TopicPartition, done func(Ack, error)) func(Ack, error) {
	var once sync.Once
	late := time.AfterFunc(p.cfg.DeliveryTimeout+time.Second, func() {
		once.Do(func() {
			p.metrics.unknown.WithLabelValues(tp.Topic).Inc()
			done(Ack{Partition: tp.Partition, Offset: -1},
				fmt.Errorf("%s: %w: no broker answered for it in %v", tp, ErrUnknownOutcome, p.cfg.DeliveryTimeout+time.Second))
		})
	})
	return func(ack Ack, err error) {
		late.Stop()
		once.Do(func() { done(ack, err) })
	}
}

// outcome tells what is known of a record that the client gave back. written
// says whether anything at all was written since it was taken.
func (p *Producer) outcome(kr *kgo.Record, err error, written bool) error {
	where := TopicPartition{kr.Topic, kr.Partition}
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		p.metrics.refused.WithLabelValues(kr.Topic).Inc()
		return fmt.Errorf("%s: %w: %w: %w", where, ErrRefused, ErrTooLarge, err)
	case refusal(err):
		p.metrics.refused.WithLabelValues(kr.Topic).Inc()
		return fmt.Errorf("%s: %w: %w", where, ErrRefused, err)
	case !written, gaveUp(err):
		// The client never gives up a record that it may have sent, unless told
		// to (AllowIdempotentProduceCancellation).
		p.metrics.refused.WithLabelValues(kr.Topic).Inc()
		return fmt.Errorf("%s: %w, it was never sent: %w: %w", where, ErrRefused, ErrUnavailable, err)
	default:
		p.metrics.unknown.WithLabelValues(kr.Topic).Inc()
		return fmt.Errorf("%s: %w: %w", where, ErrUnknownOutcome, err)
	}
}

// check refuses what no broker would take, before anything is sent.
func (p *Producer) check(rec *event.Record) error {
	limit := p.cfg.maxBytes(rec.Topic)
	n := size(rec) + recordOverhead + headerOverhead*len(rec.Headers)
	if n > limit {
		p.metrics.refused.WithLabelValues(rec.Topic).Inc()
		return fmt.Errorf("%s: %w: %w: %d bytes are over its limit of %d",
			TopicPartition{rec.Topic, rec.Partition}, ErrRefused, ErrTooLarge, n, limit)
	}
	if rec.Topic == "" || rec.Partition < 0 {
		return fmt.Errorf("%w: a record names its topic and partition, not %q/%d", ErrRefused, rec.Topic, rec.Partition)
	}
	return nil
}

// tryReserve takes room for a record where there is some. One record always
// fits into an empty producer.
func (p *Producer) tryReserve(n int) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, fmt.Errorf("%w: the producer is %w", ErrRefused, ErrClosed)
	}
	if p.records >= p.cfg.MaxBuffered || (p.records > 0 && p.bytes+n > p.cfg.MaxBufferedBytes) {
		return false, nil
	}
	p.records++
	p.bytes += n
	p.metrics.buffered.Inc()
	p.metrics.bufferBytes.Add(float64(n))
	return true, nil
}

// reserve waits for room until ctx ends.
func (p *Producer) reserve(ctx context.Context, n int) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w, it was never sent: %w", ErrRefused, err)
		}
		ok, err := p.tryReserve(n)
		if err != nil {
			return err
		}
		if ok {
			p.signalRoom() // others may fit as well
			return nil
		}
		select {
		case <-p.room:
		case <-ctx.Done():
			p.metrics.full.Inc()
			return fmt.Errorf("%w, it was never sent: %w: %w", ErrRefused, ErrFull, ctx.Err())
		}
	}
}

func (p *Producer) release(n int) {
	p.mu.Lock()
	p.records--
	p.bytes -= n
	p.mu.Unlock()
	p.metrics.buffered.Dec()
	p.metrics.bufferBytes.Sub(float64(n))
	p.signalRoom()
}

func (p *Producer) signalRoom() {
	select {
	case p.room <- struct{}{}:
	default:
	}
}

// Flush waits until every record taken so far is settled, or ctx ends.
func (p *Producer) Flush(ctx context.Context) error {
	p.releaseAll()
	if err := p.client.Flush(ctx); err != nil {
		return fmt.Errorf("flush the producer: %w", err)
	}
	return nil
}

// Close ends the producer. What was not acknowledged is settled as it stands:
// Flush first.
func (p *Producer) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.signalRoom()
	p.releaseAll()
	p.client.Close()
}

func size(rec *event.Record) int {
	n := len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}
