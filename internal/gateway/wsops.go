package gateway

import (
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

// handle works a frame off, in the reader. What it does to subscriptions it
// leaves to the pump, in the order of the frames.
func (s *socket) handle(raw []byte) {
	f, err := decodeFrame(raw)
	if err != nil {
		sub := ""
		if (f.op == opSubscribe || f.op == opSubmit) && s.find(f.sub) == nil {
			sub = f.sub
		}
		s.refuse(f.ref, sub, err)
		return
	}
	switch f.op {
	case opSubscribe:
		s.subscribe(&f)
	case opUnsubscribe:
		s.unsubscribe(&f)
	case opCredit:
		s.credit(&f)
	case opSubmit:
		s.submit(&f)
	case opCancel:
		s.cancelJob(&f)
	case opPing:
		s.answer(answerFrame{Op: "pong", Ref: f.ref})
	}
}

func (s *socket) subscribe(f *clientFrame) {
	sub, err := s.reserve(f.sub)
	if err != nil {
		s.refuse(f.ref, "", err)
		return
	}
	s.enter(sub, f, false)
}

// enter opens a reserved subscription, and hands it to the pump. certain says
// that there is such a job, and that it begins no earlier than this process's clock
// says.
func (s *socket) enter(sub *subscription, f *clientFrame, certain bool) {
	sub.ref, sub.frame.credit, sub.unlimited = f.ref, f.credit, f.credit < 0
	if err := s.open(sub, f); err != nil {
		s.release(sub)
		s.refuse(f.ref, f.sub, err)
		return
	}
	if certain {
		sub.settling = nil
	}
	sub.reader.near = true
	sub.reader.answer(sub)
	s.tell(func() { s.adopt(sub) })
}

// open finds what is subscribed to.
func (s *socket) open(sub *subscription, f *clientFrame) error {
	switch {
	case f.batch != "":
		fe := fault.New(fault.NotFound, "there is no batch %.140q: this version has none; subscribe to its jobs", f.batch)
		fe.Param = "batch"
		return fe
	case f.topic != "":
		return s.openPartition(sub, f)
	case f.conversation != "":
		return s.openConversation(sub, f)
	default:
		return s.openJob(sub, f)
	}
}

func (s *socket) openJob(sub *subscription, f *clientFrame) error {
	j := &jobFeed{out: &sub.frame}
	j.tenant, j.id = s.tenant, f.job
	if err := j.open(s.ctx, s.g, f.partition, f.cursor); err != nil {
		return err
	}
	sub.feed, sub.job, sub.reader, sub.part = j, j, j.reader, j.part
	sub.settling = &settling{}
	j.asks = f.snapshot
	return nil
}

func (s *socket) openPartition(sub *subscription, f *clientFrame) error {
	if *f.partition < 0 || *f.partition >= s.g.cfg.Partitions {
		return fault.Param("partition", "there is no partition %d: they run from 0 to %d", *f.partition, s.g.cfg.Partitions-1)
	}
	p, err := s.g.hub.acquire(s.ctx, *f.partition)
	if err != nil {
		return unavailable(s.ctx, err)
	}
	feed := &partitionFeed{g: s.g, part: p, out: &sub.frame}
	if err := feed.open(s.ctx, f.cursor, f.from); err != nil {
		s.g.hub.release(p)
		return err
	}
	sub.feed, sub.reader, sub.part = feed, feed.reader, p
	sub.begins = feed.reader.here()
	return nil
}

func (s *socket) openConversation(sub *subscription, f *clientFrame) error {
	c := &conversationFeed{g: s.g, tenant: s.tenant, id: f.conversation, out: &sub.frame}
	if err := c.open(s.ctx, f.partition, f.cursor, f.snapshot); err != nil {
		return err
	}
	sub.feed, sub.reader, sub.part = c, c.reader, c.part
	sub.begins = c.reader.here()
	return nil
}

// unsubscribe frees the subscription's name at once, and has the pump end it.
func (s *socket) unsubscribe(f *clientFrame) {
	sub := s.find(f.sub)
	if sub == nil {
		s.refuse(f.ref, "", noSubscription(f.sub))
		return
	}
	s.mu.Lock()
	sub.named = false
	s.mu.Unlock()
	s.tell(func() { s.leave(sub, f.ref) })
}

// leave ends a subscription that its client wants no more. The pump calls it.
func (s *socket) leave(sub *subscription, ref string) {
	if !sub.gone { // else it had come to its end by itself
		s.abandon(sub)
	}
	s.write(encodeFrame(answerFrame{Op: "end", Ref: ref, Sub: sub.name}))
}

// abandon lets go of a subscription before its end; what is away is let go of
// when it is back.
func (s *socket) abandon(sub *subscription) {
	sub.resting, sub.gone = false, true
	if sub.announced {
		sub.announced = false // it is counted here
		s.g.metrics.completions.WithLabelValues(endedGone).Inc()
	}
	if !sub.away {
		s.release(sub)
	}
}

func (s *socket) credit(f *clientFrame) {
	sub := s.find(f.sub)
	switch {
	case sub == nil:
		s.refuse(f.ref, "", noSubscription(f.sub))
	case sub.unlimited:
		s.refuse(f.ref, "", fault.Param("sub", "subscription %.140q began without credit: it gets all there is", f.sub))
	default:
		s.tell(func() { s.grant(sub, f.credit) })
	}
}

// grant adds credit. The pump calls it; a subscription that has ended needs none.
func (s *socket) grant(sub *subscription, n int64) {
	if sub.away {
		sub.more = min(sub.more+n, maxCredit)
		return
	}
	sub.frame.credit = min(sub.frame.credit+n, maxCredit)
	if sub.parked && !sub.gone {
		s.rouse(sub)
	}
}

func noSubscription(name string) error {
	return fault.Param("sub", "sub: there is no subscription %.140q on this connection: it has ended, or is misspelt", name)
}

// submit takes a job in. Its subscription begins at the job's own beginning,
// which lies in the log behind all that was there before: it is as if it had
// been there before the job was written. One that an earlier request made may have
// been minted by another clock, and have ended: it is found as any other is.
func (s *socket) submit(f *clientFrame) {
	if s.g.cfg.Intake == nil {
		s.refuse(f.ref, f.sub, fault.Param("op", "op: this server takes no jobs in"))
		return
	}
	var sub *subscription
	if f.sub != "" {
		var err error
		if sub, err = s.reserve(f.sub); err != nil {
			s.refuse(f.ref, "", err)
			return
		}
	}
	res, err := s.take(f)
	if err != nil {
		if sub != nil {
			s.release(sub)
		}
		s.refuse(f.ref, f.sub, err)
		return
	}
	s.answer(acceptedFrame{Op: "accepted", Ref: f.ref, ID: res.ID, Job: res})
	if sub == nil {
		return
	}
	at := clientFrame{ref: f.ref, sub: f.sub, job: res.ID, credit: -1}
	s.enter(sub, &at, !res.Replayed)
}

func (s *socket) take(f *clientFrame) (*job.Resource, error) {
	in, err := s.g.cfg.Intake.Decode(f.body)
	if err == nil {
		opts := job.SubmitOptions{IdempotencyKey: f.key, Fingerprint: f.body}
		var res *job.Resource
		if res, err = s.g.cfg.Intake.Submit(s.ctx, s.tenant, in, opts); err == nil {
			return res, nil
		}
	}
	named := *fault.From(err)
	switch named.Param {
	case "":
	case "Idempotency-Key":
		named.Param = "idempotency_key"
	default:
		named.Param = "job." + named.Param
	}
	return nil, &named
}

func (s *socket) cancelJob(f *clientFrame) {
	if s.g.cfg.Intake == nil {
		s.refuse(f.ref, "", fault.Param("op", "op: this server takes no cancels"))
		return
	}
	if err := s.g.cfg.Intake.Cancel(s.ctx, s.tenant, f.job, f.partition); err != nil {
		s.refuse(f.ref, "", err)
		return
	}
	s.answer(acceptedFrame{Op: "accepted", Ref: f.ref, ID: f.job})
}
