package gateway

import "slices"

// errand asks Kafka or PostgreSQL for a subscription, in a goroutine of its own. The
// pump settles what it brings.
type errand struct {
	partition int32
	ask       func() (settle func(), answered bool)
	tries     bool // whether a partition answers again that did not
}

// errands are those of one connection: maxErrands run at once, of which no partition
// has the last, nor have all those together that did not answer when they were asked
// last. So a broker that is away, for which an errand waits as long as the patience, holds
// up what is of the others' partitions once, and not again and again.
type errands struct {
	waiting []errand
	running int
	trying  int
	of      map[int32]int // those that run, by partition
	silent  map[int32]int // partitions that did not answer, and in which order they were found to be so
	found   int
}

// errand has something asked soon.
func (s *socket) errand(partition int32, ask func() (settle func(), answered bool)) {
	s.errands.waiting = append(s.errands.waiting, errand{partition: partition, ask: ask})
	s.sendErrands()
}

func (s *socket) sendErrands() {
	for {
		e, ok := s.errands.next()
		if !ok {
			return
		}
		s.launch(func() {
			settle, answered := e.ask()
			s.report(func() {
				s.errands.done(&e, answered)
				settle()
				s.sendErrands()
			})
		})
	}
}

// next takes the first that may run; of those whose partition did not answer, the one
// that was asked the longest ago.
func (a *errands) next() (e errand, ok bool) {
	if a.running >= maxErrands {
		return e, false
	}
	at, oldest := -1, 0
	for i := range a.waiting {
		found, silent := a.silent[a.waiting[i].partition]
		if a.of[a.waiting[i].partition] >= maxErrands-1 {
			continue
		}
		if !silent {
			at = i
			break
		}
		if a.trying < maxErrands-1 && (at < 0 || found < oldest) {
			at, oldest = i, found
		}
	}
	if at < 0 {
		return e, false
	}
	e = a.waiting[at]
	a.waiting = slices.Delete(a.waiting, at, at+1)
	if _, e.tries = a.silent[e.partition]; e.tries {
		a.trying++
	}
	if a.of == nil {
		a.of, a.silent = map[int32]int{}, map[int32]int{}
	}
	a.running++
	a.of[e.partition]++
	return e, true
}

func (a *errands) done(e *errand, answered bool) {
	a.running--
	if a.of[e.partition]--; a.of[e.partition] == 0 {
		delete(a.of, e.partition)
	}
	if e.tries {
		a.trying--
	}
	if answered {
		delete(a.silent, e.partition)
		return
	}
	a.found++
	a.silent[e.partition] = a.found
}
