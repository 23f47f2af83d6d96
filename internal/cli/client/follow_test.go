package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
)

// record is an output event of a job.
func record(seq int, last bool) string {
	h := event.Head{Type: event.OutputDelta, V: 1, Time: time.Unix(0, 0), Tenant: "default", Job: "job_1", Attempt: 1, Seq: int64(seq), Lane: event.Standard, Epoch: 1}
	data := `{"index":0,"content":"x"}`
	if last {
		h.Type, data = event.OutputCompleted, `{"model":"sim","choices":[]}`
	}
	return string(event.Append(nil, &h, []byte(data)))
}

// from is the seq behind a cursor, which here is a number.
func from(r *http.Request) int {
	n, err := strconv.Atoi(r.Header.Get("Last-Event-Id"))
	if err != nil {
		return 0
	}
	return n + 1
}

func sendEvent(w io.Writer, seq, total int) {
	_, _ = fmt.Fprintf(w, ":\n\nid: %d\ndata: %s\n\n", seq, record(seq, seq == total-1))
}

func TestFollowGetsEveryEventOnceHoweverOftenItIsCut(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(1, 12).Draw(t, "events")
		cuts := rapid.SliceOfN(rapid.IntRange(0, total), 0, 3).Draw(t, "events before each cut")
		connection := 0
		srv := func(w http.ResponseWriter, r *http.Request) {
			connection++
			first, end := from(r), total
			if connection <= len(cuts) {
				end = min(total, first+cuts[connection-1])
			}
			w.WriteHeader(http.StatusOK)
			for seq := first; seq < end; seq++ {
				sendEvent(w, seq, total)
			}
			if end < total {
				_, _ = io.WriteString(w, "id: 99\ndata: half an ev")
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}
		c, closeAll := local(t, srv)
		defer closeAll()
		var seqs []int64
		for e, err := range c.Follow(t.Context(), "job_1", Place{}) {
			if err != nil {
				t.Fatal(err)
			}
			seqs = append(seqs, e.View.Seq)
		}
		if len(seqs) != total {
			t.Fatalf("%d events of %d: %v", len(seqs), total, seqs)
		}
		for i, seq := range seqs {
			if seq != int64(i) {
				t.Fatalf("the events were %v", seqs)
			}
		}
	})
}

// collect follows a job and returns the seqs and the error.
func collect(t *testing.T, c *Client, cursor string) (seqs []int64, err error) {
	t.Helper()
	for e, err := range c.Follow(t.Context(), "job_1", Place{Cursor: cursor}) {
		if err != nil {
			return seqs, err
		}
		seqs = append(seqs, e.View.Seq)
	}
	return seqs, nil
}

func TestFollowBeginsAtACursorAndEndsWhereNothingIsLeft(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Last-Event-Id"); got != "41" {
			t.Errorf("Last-Event-ID is %q", got)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if seqs, err := collect(t, c, "41"); err != nil || len(seqs) != 0 {
		t.Errorf("%v, %v", seqs, err)
	}
}

func TestFollowGivesUpOnAStreamThatBringsNothing(t *testing.T) {
	t.Parallel()
	connections := 0
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { connections++; w.WriteHeader(http.StatusOK) })
	if _, err := collect(t, c, ""); !errors.Is(err, ErrUnfinished) {
		t.Errorf("the error is %v", err)
	}
	if connections != 5 {
		t.Errorf("%d connections, want the first and four tries", connections)
	}
}

func TestFollowTellsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	connections := 0
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { connections++; refuse(w, 404, fault.NotFound) })
	if _, err := collect(t, c, ""); err == nil || !strings.Contains(err.Error(), "not_found") || connections != 1 {
		t.Errorf("%v after %d connections", err, connections)
	}
}

func TestFollowTellsOfWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data: nonsense\n\n") })
	if _, err := collect(t, c, ""); err == nil || !strings.Contains(err.Error(), "no event") {
		t.Errorf("the error is %v", err)
	}
}

func TestFollowTakesASilentStreamForCut(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		connections.Add(1)
		sendEvent(w, from(r), 3)
		_ = http.NewResponseController(w).Flush()
		if from(r) < 2 {
			<-r.Context().Done()
		}
	}, func(c *Config) { c.Silence = 200 * time.Millisecond })
	// On a busy machine one may be cut before its event has come: it comes again.
	if seqs, err := collect(t, c, ""); err != nil || !slices.Equal(seqs, []int64{0, 1, 2}) || connections.Load() < 3 {
		t.Errorf("%v, %v in %d connections", seqs, err, connections.Load())
	}
}

func TestFollowEndsWhenNobodyListens(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for seq := range 3 {
			sendEvent(w, seq, 3)
		}
	})
	n := 0
	for _, err := range c.Follow(t.Context(), "job_1", Place{}) {
		if n++; err != nil {
			t.Error(err)
		}
		break
	}
	if n != 1 {
		t.Errorf("%d events", n)
	}
}
