package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock-io/penstock/internal/cursor"
	"github.com/penstock-io/penstock/internal/kafka"
)

// broker answers questions when it is told to: the first with 1, the second with
// 2, and so on.
type broker struct {
	asked  atomic.Int64
	answer chan error
	gone   atomic.Int64 // goroutines that ended
}

func (b *broker) questions() *questions {
	return &questions{
		ask: func(context.Context, kafka.TopicPartition, kafka.At) (int64, error) {
			n := b.asked.Add(1)
			return n, <-b.answer
		},
		start: func(ctx context.Context, f func(context.Context)) {
			go func() {
				defer b.gone.Add(1)
				f(ctx)
			}()
		},
		under: map[asked]*inquiry{},
	}
}

func TestWhoComesWhileAQuestionIsUnderWaySharesTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{answer: make(chan error)}
		q := b.questions()
		tp := kafka.TopicPartition{Topic: "t"}
		var (
			askers sync.WaitGroup
			got    [2]atomic.Int64 // how many got the first answer, and the second
		)
		ask := func() {
			askers.Go(func() {
				n, err := q.offset(t.Context(), tp, kafka.End())
				if err != nil {
					t.Error(err)
					return
				}
				got[n-1].Add(1)
			})
		}
		ask()
		synctest.Wait()
		for range 100 {
			ask()
		}
		synctest.Wait()
		if n := b.asked.Load(); n != 1 {
			t.Errorf("%d questions are under way, want 1", n)
		}
		b.answer <- nil
		b.answer <- nil
		askers.Wait()
		synctest.Wait()
		if got[0].Load() != 1 || got[1].Load() != 100 || b.asked.Load() != 2 {
			t.Errorf("%d and %d got the answers of %d questions, want 1 and 100 of 2", got[0].Load(), got[1].Load(), b.asked.Load())
		}
		if b.gone.Load() != 1 || len(q.under) != 0 {
			t.Errorf("%d goroutines ended, want the one; %d questions are remembered", b.gone.Load(), len(q.under))
		}
	})
}

func TestQuestionsOfDifferentPartitionsAndPlacesDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{answer: make(chan error)}
		q := b.questions()
		var askers sync.WaitGroup
		for _, what := range []asked{
			{kafka.TopicPartition{Topic: "t"}, kafka.End()},
			{kafka.TopicPartition{Topic: "t"}, kafka.Start()},
			{kafka.TopicPartition{Topic: "t"}, kafka.AtTime(time.Now())},
			{kafka.TopicPartition{Topic: "t", Partition: 1}, kafka.End()},
		} {
			askers.Go(func() { _, _ = q.offset(t.Context(), what.TopicPartition, what.at) })
		}
		synctest.Wait()
		if n := b.asked.Load(); n != 4 {
			t.Errorf("%d questions are under way, want 4", n)
		}
		close(b.answer)
		askers.Wait()
		synctest.Wait()
	})
}

func TestAQuestionOutlastsItsAskerAndItsErrorIsForAllWhoShareIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{answer: make(chan error)}
		q := b.questions()
		tp := kafka.TopicPartition{Topic: "t"}
		ctx, cancel := context.WithCancel(t.Context())
		var first, others sync.WaitGroup
		first.Go(func() {
			if _, err := q.offset(ctx, tp, kafka.End()); !errors.Is(err, context.Canceled) {
				t.Errorf("who leaves gets %v", err)
			}
		})
		synctest.Wait()
		for range 3 {
			others.Go(func() {
				if n, err := q.offset(t.Context(), tp, kafka.End()); !errors.Is(err, errAway) {
					t.Errorf("got %d, %v; want the question's error", n, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		first.Wait()
		b.answer <- nil
		b.answer <- errAway
		others.Wait()
		synctest.Wait()
	})
}

// gated holds the questions that Kafka is asked up until open is closed, and notes
// the most that were under way at a time.
type gated struct {
	Log

	open       chan struct{}
	under, top atomic.Int64
}

func (l *gated) Offset(ctx context.Context, tp kafka.TopicPartition, at kafka.At) (int64, error) {
	n := l.under.Add(1)
	defer l.under.Add(-1)
	l.top.Store(max(l.top.Load(), n))
	<-l.open
	return l.Log.Offset(ctx, tp, at)
}

func TestOfManyBadCursorsOneQuestionIsUnderWayAtATime(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(3)
	g.open(events(a)).rest() // the partition is followed, so nothing else is asked
	l := &gated{Log: g.cluster, open: make(chan struct{})}
	release := sync.OnceFunc(func() { close(l.open) })
	t.Cleanup(release)
	g.gateway.questions.ask = l.Offset
	const clients = 40
	answers := make(chan string, clients)
	for range clients {
		go func() { answers <- answerOf(t.Context(), g.url+events(a)+"?cursor=nonsense") }()
	}
	eventually(t, func() bool { return waiting(&g.gateway.questions) })
	release()
	for range clients {
		if text := <-answers; !strings.HasPrefix(text, "400") || !strings.Contains(text, "the earliest good one is") {
			t.Errorf("a bad cursor was answered with %s; want 400 and the earliest good one", text)
		}
	}
	if n := l.top.Load(); n != 1 {
		t.Errorf("%d questions were under way at a time, want 1", n)
	}
}

// answerOf asks, and gives the answer's status and body.
func answerOf(ctx context.Context, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return resp.Status + " " + string(body)
}

// waiting tells whether somebody waits for a question behind the one under way.
func waiting(q *questions) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, next := range q.under {
		if next != nil {
			return true
		}
	}
	return false
}

// TopicID is as Offset.
func (l *gated) TopicID(ctx context.Context, topic string) ([16]byte, error) {
	n := l.under.Add(1)
	defer l.under.Add(-1)
	l.top.Store(max(l.top.Load(), n))
	<-l.open
	return l.Log.TopicID(ctx, topic)
}

func TestOfManyForeignCursorsOneQuestionForTheTopicIsUnderWayAtATime(t *testing.T) {
	g := onOne(t, Config{})
	a := g.author()
	a.whole(3)
	g.open(events(a)).rest() // the partition is followed
	l := &gated{Log: g.cluster, open: make(chan struct{})}
	release := sync.OnceFunc(func() { close(l.open) })
	t.Cleanup(release)
	g.gateway.hub.log = l
	const clients = 40
	answers := make(chan string, clients)
	foreign := cursor.Cursor{Topic: cursor.TopicID{1}, Partition: a.part, LeaderEpoch: -1}.String()
	for range clients {
		go func() { answers <- answerOf(t.Context(), g.url+events(a)+"?cursor="+foreign) }()
	}
	eventually(t, func() bool { return waiting(&g.gateway.renewals) })
	release()
	for range clients {
		if text := <-answers; !strings.HasPrefix(text, "400") || !strings.Contains(text, "another topic") {
			t.Errorf("a foreign cursor was answered with %s; want 400", text)
		}
	}
	if n := l.top.Load(); n != 1 {
		t.Errorf("%d questions were under way at a time, want 1", n)
	}
}
