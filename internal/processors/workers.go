package processors

import "sync"

// maxResting is how many goroutines rest between two calls.
const maxResting = 1024

// workers run calls, each on a goroutine that may have run others before it: the
// stack of a new one grows while it runs its first call, which costs more than its
// start.
type workers struct {
	sync.WaitGroup

	run     func(*call)
	waiting chan *call    // has no room: whoever rests takes it at once
	places  chan struct{} // to rest
}

func newWorkers(run func(*call)) *workers {
	return &workers{run: run, waiting: make(chan *call), places: make(chan struct{}, maxResting)}
}

// take has a call run. It does not wait for it.
func (w *workers) take(c *call) {
	select {
	case w.waiting <- c:
	default:
		w.Go(func() { w.work(c) })
	}
}

// work runs a call, and others after it for as long as there is a place to rest.
func (w *workers) work(c *call) {
	for ok := true; ok; {
		w.run(c)
		select {
		case w.places <- struct{}{}:
		default:
			return
		}
		c, ok = <-w.waiting
		<-w.places
	}
}

// end waits for the calls. None may be taken any more.
func (w *workers) end() {
	close(w.waiting)
	w.Wait()
}
