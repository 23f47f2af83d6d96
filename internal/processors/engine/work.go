package engine

import (
	"slices"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// requests keeps what was delivered, and takes in what there is room for.
func (e *Engine) requests(in Requests) {
	l := e.lanes[in.LP]
	if l == nil || in.Seeks < l.seeks {
		return
	}
	for _, r := range in.Requests {
		if r.Offset < l.delivered {
			continue
		}
		l.delivered = r.Offset + 1
		l.backlog = append(l.backlog, r)
		l.backlogBytes += r.Bytes
	}
	e.take(l)
}

// requestsGone: retention took requests that nobody had run. That they are gone
// is for the loop to tell; here the rest goes on, behind what was delivered
// before.
func (e *Engine) requestsGone(in RequestsGone) {
	l := e.lanes[in.LP]
	if l == nil || in.Earliest <= l.delivered {
		return
	}
	l.backlog = append(l.backlog, &Request{Offset: in.Earliest - 1, gone: in.Earliest - l.delivered})
	l.delivered = in.Earliest
	l.seeks++
	e.do(Seek{LP: l.LP, Life: l.life, Next: in.Earliest})
	e.take(l)
}

// take moves requests from the backlog into the window, in order, while there
// is room, and pauses or resumes the lane's fetching.
func (e *Engine) take(l *lane) {
	if l.epoch > 0 {
		n := 0
		for n < len(l.backlog) && e.room(l, l.backlog[n]) {
			r := l.backlog[n]
			l.backlog[n] = nil
			n++
			l.backlogBytes -= r.Bytes
			e.admit(l, r)
		}
		l.backlog = l.backlog[n:]
		if len(l.backlog) == 0 {
			l.backlog = nil
			if l.delivered >= l.handover {
				e.handedOver(l)
			}
		}
	}
	full := len(l.backlog) > 0 && (l.epoch > 0 || len(l.backlog) >= e.cfg.MaxWindow || l.backlogBytes >= e.cfg.MaxWindowBytes)
	if full != l.paused {
		l.paused = full
		if full {
			e.do(Pause{l.LP})
		} else {
			e.do(Resumed{l.LP})
		}
	}
}

// room tells whether the window takes one more. A request larger than the
// window is let in when it is alone, and so is one behind a hole in the log that
// is wider than the span: all before it is done, which one run says.
func (e *Engine) room(l *lane, r *Request) bool {
	return len(l.entries) == 0 || len(l.entries) < e.cfg.MaxWindow && l.bytes+r.Bytes <= e.cfg.MaxWindowBytes &&
		r.Offset-l.tracker.Watermark() < e.cfg.MaxSpan
}

// handedOver: every request that may have output from before our claim was
// taken in. What the log showed of others is of jobs that are done.
func (e *Engine) handedOver(l *lane) {
	if len(l.restored) == 0 {
		return
	}
	for key, r := range l.restored {
		if r.End != "" {
			l.recent.add(key, struct{}{}, e.cfg.Recent)
		}
	}
	l.restored = map[string]*restored{}
}

// admit takes one request into the window.
func (e *Engine) admit(l *lane, r *Request) {
	if r.gone > 0 {
		l.tracker.Skip(offsets.Range{From: r.Offset + 1 - r.gone, To: r.Offset + 1})
		l.dirty = true
		return
	}
	if !l.tracker.Take(r.Offset) {
		return // done already, by the commit's metadata
	}
	if r.Skip {
		l.done(r.Offset)
		return
	}
	en := &entry{Request: r, lane: l}
	if r.Poison != "" {
		en.started = true
		l.add(en)
		l.started++
		e.do(Bury{LP: l.LP, Gen: l.gen, Request: r})
		return
	}
	key := jobKey(r.Head.Tenant, r.Head.Job)
	if first := l.jobs[key]; first != nil { // the same job twice in the window
		first.repeats = append(first.repeats, r.Offset)
		return
	}
	if l.recent.has(key) { // the same job again, after its end
		l.done(r.Offset)
		return
	}
	if past := l.restored[key]; past != nil {
		delete(l.restored, key)
		en.resume = &Resume{From: past.first, To: l.position, Epoch: past.epoch, Whole: past.whole}
		en.shown, en.from, en.epoch, en.readBack = true, past.first, past.epoch, past.End != ""
	} else if _, minted := job.ParseID(r.Head.Job); minted && r.Data.Repeat {
		en.resume = &Resume{From: -1, To: l.position}
		en.shown, en.from, en.epoch = true, l.position, l.filter.Epochs[l.Lane] // it may go on from what it finds
	}
	l.add(en)
	en.name = key
	l.jobs[key] = en
	e.queue(l, en)
	if e.controls[l.Partition].asks(en, e.cfg.CancelAhead) {
		e.cancel(en)
	}
}

func (l *lane) add(en *entry) {
	l.entries[en.Offset] = en
	l.bytes += en.Bytes
}

// queue puts an entry at the end of its key's FIFO.
func (e *Engine) queue(l *lane, en *entry) {
	name := en.order()
	k := l.keys[name]
	if k == nil {
		k = &keyQueue{name: name}
		l.keys[name] = k
	}
	en.key = k
	k.queue = append(k.queue, en)
	if len(k.queue) == 1 {
		e.runnable(en)
	}
}

// done marks one offset.
func (l *lane) done(offset int64) {
	l.tracker.Done(offset)
	l.dirty = true
}

func (e *Engine) start(en *entry) {
	l := en.lane
	var again *Again
	if en.retry != nil {
		again, en.retry = en.retry.Again, nil
	}
	en.started = true
	en.try++
	l.started++
	if en.cancelled {
		e.ending++
	} else {
		e.begun(en)
	}
	e.do(Start{
		LP: l.LP, Gen: l.gen, Request: en.Request, Resume: en.resume, Cancelled: en.cancelled, Try: en.try, Again: again,
		Expired: again == nil && (en.resume == nil || en.resume.From < 0) && !l.oldest.IsZero() && en.Time.Before(l.oldest),
	})
}

// ended takes the end of a call, and frees its slot.
func (e *Engine) ended(in Ended) {
	if in.Cancelled {
		e.ending--
	} else {
		e.over(in)
	}
	l := e.lanes[in.LP]
	if l == nil || l.gen != in.Gen {
		return
	}
	en := l.entries[in.Offset]
	if en == nil {
		return
	}
	if in.Retry != nil {
		e.rest(en, &in)
		return
	}
	if in.Type == "" {
		return
	}
	en.fact, en.data, en.attempt, en.at = in.Type, in.Data, in.Attempt, in.At
	en.readBack = en.readBack || in.Found
	e.settle(en)
}

// settle writes the fact of a job whose terminal event was read back.
func (e *Engine) settle(en *entry) {
	if en.fact == "" || !en.readBack && !rash || en.written {
		return
	}
	en.written = true
	h := en.Head
	h.Type, h.V, h.Time, h.Attempt, h.Lane = en.fact, event.Version, en.at, en.attempt, en.lane.Lane
	e.do(AppendFact{LP: en.lane.LP, Gen: en.lane.gen, Offset: en.Offset, Head: h, Data: en.data, Traceparent: en.Record.Traceparent()})
	en.data = nil
}

// factWritten: nothing is owed for the request any more.
func (e *Engine) factWritten(now time.Time, in FactWritten) {
	l := e.lanes[in.LP]
	if l == nil || l.gen != in.Gen {
		return
	}
	en := l.entries[in.Offset]
	if en == nil {
		return
	}
	if in.Failed {
		e.anew(now, l)
		return
	}
	delete(l.entries, in.Offset)
	l.bytes -= en.Bytes
	l.started--
	l.doneCount++
	l.done(in.Offset)
	for _, o := range en.repeats {
		l.done(o)
	}
	if en.key != nil {
		e.finish(l, en)
		e.controls[l.Partition].drop(en.name)
	}
	e.take(l)
}

// finish lets the next of the key run. One that was cancelled while it waited
// may be done before those that stand before it.
func (e *Engine) finish(l *lane, en *entry) {
	delete(l.jobs, en.name)
	l.recent.add(en.name, struct{}{}, e.cfg.Recent)
	k := en.key
	if k.queue[0] != en {
		k.queue = slices.DeleteFunc(k.queue, func(other *entry) bool { return other == en })
		return
	}
	k.queue[0] = nil
	k.queue = k.queue[1:]
	if len(k.queue) == 0 {
		delete(l.keys, k.name)
		return
	}
	if next := k.queue[0]; !next.cancelled { // else it is on its way to its end, and the next follows that
		e.runnable(next)
	}
}
