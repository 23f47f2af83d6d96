package ingest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/kafka"
)

func TestCleanerComesBackEveryHourWhateverHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &counted{calls: make(chan int)}
		s := newService(t, Config{Producer: &fakeLog{}, Keys: db})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		began := time.Now()
		for want := 1; want <= 3; want++ {
			if n := <-db.calls; n != want {
				t.Errorf("call %d, want %d", n, want)
			}
			if after := time.Since(began); after != time.Duration(want-1)*cleanEvery {
				t.Errorf("call %d after %v", want, after)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestServiceWithoutKeysRunsUntilItIsToldToEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newService(t, Config{Producer: &fakeLog{}}).Run(ctx); err != nil {
		t.Error(err)
	}
}

// fakeEnds is a topic whose ends are told.
type fakeEnds struct {
	mu   sync.Mutex
	id   [16]byte
	ends map[int32]int64
	err  error
}

func (f *fakeEnds) set(id byte, err error, ends ...int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id, f.err, f.ends = [16]byte{id}, err, map[int32]int64{}
	for i, end := range ends {
		f.ends[int32(i)] = end
	}
}

func (f *fakeEnds) Offsets(context.Context, string, kafka.At) (map[int32]int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ends, f.err
}

func (f *fakeEnds) TopicID(context.Context, string) ([16]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id, f.err
}

func TestCursorsFollowTheEndOfTheirPartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := &fakeEnds{}
		ends.set(1, errors.New("away"))
		p := NewPositions(ends, "tokens", nil)
		if got := p.TokensCursor(0); got != "" {
			t.Errorf("before anything is known: %q", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		want := func(id byte, offsets ...int64) {
			t.Helper()
			<-time.After(2 * positionsEvery)
			synctest.Wait()
			for i, next := range offsets {
				c, err := cursor.Parse(p.TokensCursor(int32(i)))
				if err != nil || (c != cursor.Cursor{Topic: cursor.TopicID{id}, Partition: int32(i), LeaderEpoch: -1, Next: next}) {
					t.Errorf("partition %d: %+v, %v, want offset %d of %d", i, c, err, next, id)
				}
			}
			if p.TokensCursor(-1) != "" || p.TokensCursor(int32(len(offsets))) != "" {
				t.Error("a cursor of no partition")
			}
		}
		synctest.Wait()
		ends.set(1, nil, 5, 0, 7)
		want(1, 5, 0, 7)
		ends.set(1, nil, 6, 0, 7)
		want(1, 6, 0, 7)
		ends.set(1, errors.New("away"))
		want(1, 6, 0, 7) // further back is still right
		ends.set(2, nil, 1, 1)
		want(2, 1, 1) // made anew meanwhile
		ends.set(3, nil, 2, 2)
		<-time.After(identityEvery * positionsEvery)
		want(3, 2, 2)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestPartitionThatCannotBeAskedLeavesAHole(t *testing.T) {
	ends := &fakeEnds{ends: map[int32]int64{0: 4, 2: 9}}
	p := NewPositions(ends, "tokens", nil)
	var (
		id   cursor.TopicID
		last map[int32]int64
	)
	for range 2 {
		if err := p.refresh(t.Context(), &id, &last, true); err != nil {
			t.Fatal(err)
		}
	}
	if p.TokensCursor(0) == "" || p.TokensCursor(1) != "" || p.TokensCursor(2) == "" {
		t.Errorf("%q %q %q", p.TokensCursor(0), p.TokensCursor(1), p.TokensCursor(2))
	}
}
