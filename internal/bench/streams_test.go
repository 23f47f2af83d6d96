package bench

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// streaming is a server of which every job says these frames.
func streamingServer(t *testing.T, frames ...string) *Server {
	t.Helper()
	up := websocket.Upgrader{}
	mux := http.NewServeMux()
	var asked atomic.Int32
	mux.HandleFunc("POST /v1/jobs", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 { // who is asked to come back does
			http.Error(w, "come back", http.StatusTooManyRequests)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprint(w, `{"id":"job_1"}`)
	})
	mux.HandleFunc("/v1/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"op":"welcome"}`))
		if _, _, err := conn.ReadMessage(); err != nil {
			return
		}
		<-time.After(300 * time.Millisecond) // by then what comes is counted
		for _, f := range frames {
			_ = conn.WriteMessage(websocket.TextMessage, []byte(f))
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s := NewServer(srv.URL, "", 2)
	t.Cleanup(s.Close)
	return s
}

// eventOf is an event as a frame has it.
func eventOf(kind string, seq int, data string) string {
	return fmt.Sprintf(`{"type":"output.%s","v":1,"time":%q,"tenant":"default","job":"job_1","attempt":1,"seq":%d,"data":%s}`,
		kind, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), seq, data)
}

func framed(events ...string) string {
	return `{"op":"events","sub":"a","events":[` + strings.Join(events, ",") + `],"cursor":"x"}`
}

func TestStreamsCountEveryEventOnce(t *testing.T) {
	t.Parallel()
	end := eventOf("completed", 3, `{"usage":{"completion_tokens":4}}`)
	s := streamingServer(t, framed(eventOf("started", 0, "{}")), framed(eventOf("delta", 1, `{"content":"one"}`), eventOf("delta", 2, `{"content":" two three four"}`), end), `{"op":"end","status":"completed"}`)
	if _, err := s.MeasureStreams(t.Context(), StreamsOptions{Streams: 2, Watchers: 2, Rate: 10, Warm: time.Millisecond, Measure: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
}

func TestStreamsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, frames := range map[string][]string{
		"the end says 2":    {framed(eventOf("delta", 0, `{"content":"one"}`), eventOf("completed", 1, `{"usage":{"completion_tokens":2}}`))},
		"where 1 should be": {framed(eventOf("started", 0, "{}"), eventOf("delta", 2, "{}"))},
		"without a time":    {`{"op":"events","v":1,"time":"`},
		"otherwise":         {`{"op":"end","status":"failed"}`},
		"not_found":         {`{"op":"error","code":"not_found"}`},
		"watch job":         {},
	} {
		opt := StreamsOptions{Streams: 1, Watchers: 1, Rate: 10, Warm: time.Microsecond, Measure: time.Minute}
		if _, err := streamingServer(t, frames...).MeasureStreams(t.Context(), opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one that says %q", err, want)
		}
	}
}

func TestNothingStreamedIsNoRate(t *testing.T) {
	t.Parallel()
	if got := (&Streams{}).TokensPerSecond(); got != 0 {
		t.Errorf("%v came of nothing", got)
	}
}
