package testenv

import (
	"testing"
	"time"
)

// runs is tests that a test makes up.
type runs func() int

func (r runs) Run() int { return r() }

func TestWhatTestsHaveToldToEndIsGivenTime(t *testing.T) {
	ended := make(chan struct{})
	code := Settled(runs(func() int {
		go func() {
			defer close(ended)
			<-time.After(2 * time.Second) // far longer than goleak waits
		}()
		return 0
	})).Run()
	select {
	case <-ended:
	default:
		t.Error("it did not wait")
	}
	if code != 0 {
		t.Errorf("the tests passed, and it says %d", code)
	}
	stays := make(chan struct{})
	defer close(stays)
	began := time.Now()
	code = Settled(runs(func() int { go func() { <-stays }(); return 3 })).Run()
	if took := time.Since(began); code != 3 || took > settlePatience {
		t.Errorf("%d of tests that failed, after %v", code, took)
	}
}
