package processors

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
	"github.com/penstock-io/penstock/internal/telemetry"
)

// producer is what outputs need of kafka.Producer.
type producer interface {
	Go(rec event.Record, done func(kafka.Ack, error)) error
	Later(rec event.Record, done func(kafka.Ack, error)) error
}

// writer is what a Processor needs of it.
type writer interface {
	producer
	Flush(ctx context.Context) error
	Close()
}

// output writes one job's events to the token topic: it gives them their seq,
// coalesces deltas before they get one, and folds all into the job's transcript.
//
// The first delta is written at once; later ones no more often than every
// coalesce.every, or what a busy process makes of it (tempo), unless
// coalesce.bytes have gathered. What waits is written by
// a timer, and before anything that is not a delta. output.started waits the
// same way, for the first delta to share its batch.
//
// Of a job that nobody watches nothing is written before its end, which then has
// all that was said; unless that is more than maxHeld.
type output struct {
	gate      *gate
	out       producer
	topic     string
	key       []byte
	head      event.Head // of the next event, but for type, time, seq and epoch
	now       func() time.Time
	notBefore time.Time // the job's id's: whoever looks from there on finds all
	coalesce  coalesce
	limits    limits
	failed    func(*output, error) // an accepted write failed later
	found     int64                // the seq that came next when it began

	span        telemetry.Span // of the job's processing
	traceparent string         // header of its first and last event; "" for none

	mu         sync.Mutex      // of all below: the timer writes too
	ctx        context.Context //nolint:containedctx // the timer writes under it as well
	transcript job.Transcript
	unwatched  bool           // deltas are held, and nothing is written before the end
	held       [][]byte       // deltas as JSON, without a seq, in the transcript already
	heldBytes  int            // of held
	opening    *event.Started // waits to be written before anything else
	started    event.Started  // of the newest attempt of ours, written or not
	pending    gathering      // deltas that are coalesced
	flushedAt  time.Time
	firstAt    time.Time // of the first delta that was written here
	timer      *time.Timer
	said       int   // bytes of deltas, as JSON: the fact will be about as large
	err        error // what broke the output; it stays
}

// coalesce says how deltas are gathered.
type coalesce struct {
	every time.Duration
	bytes int
	tempo *tempo // nil: it is never longer
}

// limits are what the topics take: bytes of an event and of a fact.
type limits struct{ event, fact, dead int }

// margin is what head, headers, model and usage take of a record, generously.
const margin = 32 << 10

// maxHeld bounds what is held of an unwatched job, in bytes of JSON; one that
// says more is written as a watched one from there on. It fits into a record of
// the token topic.
const maxHeld = 256 << 10

// delta takes one piece of the answer.
func (o *output) delta(d *event.Delta) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if !o.pending.joins(d) {
		if err := o.flush(); err != nil {
			return err
		}
	}
	joined := o.pending.waits
	o.pending.add(d)
	if o.pending.bytes >= o.coalesce.bytes || !plain(d) {
		return o.flush()
	}
	if o.unwatched {
		return nil
	}
	now := o.now()
	wait := o.coalesce.tempo.gather(o.coalesce.every, now) - now.Sub(o.flushedAt)
	if wait <= 0 {
		return o.flush()
	}
	if !joined { // else it rings already, for the first that waits
		o.ringIn(wait)
	}
	return nil
}

// open begins an attempt.
func (o *output) open(s event.Started) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if err := o.flush(); err != nil {
		return err
	}
	o.opening, o.started = &s, s
	if !o.unwatched {
		o.ringIn(o.coalesce.every)
	}
	return nil
}

// ringIn has what waits written after a while. The caller holds mu.
func (o *output) ringIn(wait time.Duration) {
	if o.timer == nil {
		o.timer = time.AfterFunc(wait, o.ring)
	} else {
		o.timer.Reset(wait)
	}
}

// ring is the timer's.
func (o *output) ring() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		_ = o.flush() // the error stays, and the next call returns it
	}
}

// flush writes what waits, or holds it. The caller holds mu.
func (o *output) flush() error {
	if !o.unwatched {
		if err := o.begin(); err != nil {
			return err
		}
	}
	if !o.pending.waits {
		return nil
	}
	d := o.pending.take()
	if !o.unwatched {
		o.flushedAt = o.now()
	}
	for !o.fits(&d) {
		part := event.Delta{Index: d.Index}
		switch {
		case d.Reasoning != "":
			part.Reasoning, d.Reasoning = cut(d.Reasoning)
		case d.Content != "":
			part.Content, d.Content = cut(d.Content)
		default:
			part.Refusal, d.Refusal = cut(d.Refusal)
		}
		if err := o.say(&part); err != nil {
			return err
		}
	}
	if silent(&d) {
		return nil
	}
	return o.say(&d)
}

// fits tells whether a delta is one event: else text is to be taken off it.
func (o *output) fits(d *event.Delta) bool {
	n := text(d)
	return n == 0 || n <= maxDeltaBytes && raw(d)+escaped*n <= o.limits.event-margin
}

// begin writes output.started, where it is not written.
func (o *output) begin() error {
	s := o.opening
	if s == nil {
		return nil
	}
	o.opening = nil
	return o.put(event.OutputStarted, *s)
}

// say writes one delta, or holds it, and adds it to the transcript.
func (o *output) say(d *event.Delta) error {
	data := event.AppendDelta(make([]byte, 0, 64+len(d.Content)), d)
	o.said += len(data)
	if o.firstAt.IsZero() {
		o.firstAt = o.now()
	}
	if o.unwatched && o.heldBytes+len(data) > maxHeld {
		if err := o.release(); err != nil {
			return err
		}
	}
	if o.unwatched {
		o.held = append(o.held, data)
		o.heldBytes += len(data)
	} else if err := o.writeDelta(data); err != nil {
		return err
	}
	return o.keep(o.transcript.Say(d))
}

func (o *output) writeDelta(data []byte) error {
	h, err := o.write(event.OutputDelta, data)
	if err == nil {
		o.coalesce.tempo.wrote()
		o.transcript.Progress.Apply(&event.View{Type: h.Type, Seq: h.Seq, Attempt: h.Attempt})
	}
	return err
}

// release writes what was held, and holds nothing from here on.
func (o *output) release() error {
	o.unwatched = false
	if err := o.begin(); err != nil {
		return err
	}
	held := o.held
	o.held, o.heldBytes = nil, 0
	for _, data := range held {
		if err := o.writeDelta(data); err != nil {
			return err
		}
	}
	return nil
}

// keep remembers what broke the output.
func (o *output) keep(err error) error {
	if err != nil {
		o.err = err
	}
	return err
}

// emit writes an event that is not a delta, behind all that waits. The payload
// is one of package event's, by value.
func (o *output) emit(t event.Type, payload any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if err := o.flush(); err != nil {
		return err
	}
	return o.put(t, payload)
}

// put writes an event that is not a delta, and adds it to the transcript, in
// which what is held is already.
func (o *output) put(t event.Type, payload any) error {
	data := event.Encode(payload)
	if len(o.held) > 0 && (t == event.OutputCompleted || t == event.OutputCancelled) {
		data = withDeltas(data, o.held, o.heldBytes)
		o.held, o.heldBytes = nil, 0
	}
	h, err := o.write(t, data)
	if err != nil {
		return err
	}
	return o.keep(o.transcript.Write(&h, payload))
}

// withDeltas puts deltas into the data of an end, as their last field.
func withDeltas(data []byte, deltas [][]byte, size int) []byte {
	const name = `"deltas":[`
	out := make([]byte, 0, len(data)+size+len(deltas)+len(name)+len(`,]}`))
	out = append(out, data[:len(data)-1]...)
	if len(out) > 1 {
		out = append(out, ',')
	}
	out = append(out, name...)
	for i, d := range deltas {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, d...)
	}
	return append(out, ']', '}')
}

// clear forgets what waits and what is held, and that an event was refused for
// its size: it had no seq, so that the output can still end.
func (o *output) clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending.drop()
	o.held, o.heldBytes = nil, 0
	if errors.Is(o.err, kafka.ErrTooLarge) {
		o.err = nil
	}
}

// note counts what the job's fact will have beside its deltas, in bytes.
func (o *output) note(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said += n
}

// saidBytes is about how large the job's fact will be.
func (o *output) saidBytes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said
}

// ended tells whether the terminal event is written.
func (o *output) ended() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.transcript.End != ""
}

// fullWait is how long a call waits for room in the producer before it asks
// again.
const fullWait = 5 * time.Millisecond

// write gives an event its seq and hands it to the producer. The caller holds mu.
func (o *output) write(t event.Type, data []byte) (h event.Head, err error) {
	h = o.head
	h.Type, h.V, h.Time, h.Seq = t, event.Version, o.now(), o.transcript.NextSeq
	if h.Time.Before(o.notBefore) {
		h.Time = o.notBefore
	}
	for {
		err := o.gate.pass(o.ctx, func(epoch int64) error {
			h.Epoch = epoch
			value := event.Append(make([]byte, 0, 320+len(data)), &h, data)
			put := o.out.Go
			if o.unwatched || t == event.OutputDelta && o.transcript.Deltas > 0 { // for the first somebody waits
				put = o.out.Later
			}
			return put(event.Record{
				Topic: o.topic, Partition: o.gate.lp.Partition, Key: o.key, Value: value, Time: h.Time, Headers: o.headers(&h),
			}, o.written)
		})
		if err == nil {
			return h, nil
		}
		if !errors.Is(err, kafka.ErrFull) || !sleep(o.ctx, fullWait) {
			return h, o.keep(err)
		}
	}
}

// headers are those of a job's first and last event. All others have none, which
// every reader of the topic would pay for.
func (o *output) headers(h *event.Head) []event.Header {
	if o.traceparent == "" || h.Seq != 0 && !h.Type.Terminal() {
		return nil
	}
	return []event.Header{{Key: "traceparent", Value: []byte(o.traceparent)}}
}

func (o *output) written(_ kafka.Ack, err error) {
	if err != nil {
		o.failed(o, err)
	}
}

// close stops the timer. What waits is dropped: it had no seq.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end()
}

// end is close. The caller holds mu.
func (o *output) end() {
	if o.timer != nil {
		o.timer.Stop()
	}
	o.pending.drop()
	o.opening, o.held = nil, nil
	if o.err == nil {
		o.err = errShut
	}
}

// abandon closes an output of which nothing was said, and tells what of it
// stands in the log, for the next try to go on from; nil where this one has
// written nothing, and what stood there before is still to be continued.
func (o *output) abandon() *engine.Again {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end()
	if o.found > 0 && o.found == o.transcript.NextSeq {
		return nil
	}
	return &engine.Again{Progress: job.Progress{Attempt: o.head.Attempt, NextSeq: o.transcript.NextSeq}}
}

// sleep waits, and returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
