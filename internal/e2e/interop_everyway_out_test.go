//go:build interop

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
	"github.com/jackc/pgx/v5"

	"github.com/penstock-io/penstock/internal/event"
)

// everywayPatience bounds every wait of a watcher.
const everywayPatience = 60 * time.Second

// partitionLog is what SSE shows of all partitions, from their beginning on.
type partitionLog struct {
	mu      sync.Mutex
	changed chan struct{} // closed with every record
	records map[string][]string
	ended   map[string]bool
}

// watchPartitions begins to watch every partition, until the test ends.
func (d *deployment) watchPartitions(gateway *process) *partitionLog {
	l := &partitionLog{changed: make(chan struct{}), records: map[string][]string{}, ended: map[string]bool{}}
	ctx, cancel := context.WithCancel(d.t.Context())
	var wg sync.WaitGroup
	d.t.Cleanup(func() { cancel(); wg.Wait() })
	for p := range 4 {
		wg.Go(func() { _ = followPartition(ctx, gateway.url, int32(p), l.take) }) // it ends with the gateway
	}
	return l
}

func (l *partitionLog) take(v *event.View, record string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := string(v.Job)
	l.records[id] = append(l.records[id], record)
	l.ended[id] = l.ended[id] || v.Type.Terminal()
	close(l.changed)
	l.changed = make(chan struct{})
	return true
}

// of is what a job said, once it has ended.
func (l *partitionLog) of(t *testing.T, e *entry) []string {
	t.Helper()
	late := time.After(everywayPatience)
	for {
		l.mu.Lock()
		records, ended, changed := l.records[e.job], l.ended[e.job], l.changed
		l.mu.Unlock()
		if ended {
			return records
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s: no end of %s was seen, of %d events", e.way, e.job, len(records))
		}
	}
}

// followPartition reads a partition from its beginning until take says no.
func followPartition(ctx context.Context, url string, p int32, take func(v *event.View, record string) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/topics/tokens/partitions/%d/events?offset=0", url, p), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		record, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		v, err := event.ScanHead([]byte(record))
		if err != nil {
			return err
		}
		if v.Type.Output() && !take(&v, record) {
			return nil
		}
	}
	return lines.Err()
}

func (d *deployment) seenByPartition(gateway *process, e *entry) (seen []string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), everywayPatience)
	defer cancel()
	err := followPartition(ctx, gateway.url, e.partition, func(v *event.View, record string) bool {
		if string(v.Job) != e.job {
			return true
		}
		seen = append(seen, record)
		return !v.Type.Terminal()
	})
	if err != nil {
		d.t.Errorf("%s: partition %d: %v", e.way, e.partition, err)
	}
	return seen
}

func (d *deployment) seenByJob(gateway *process, e *entry) (seen []string) {
	d.t.Helper()
	w := &watcher{t: d.t, url: gateway.url, job: e.job, ask: fmt.Sprintf("?partition=%d", e.partition)}
	w.finish(everywayPatience)
	for _, m := range w.got {
		seen = append(seen, m.data)
	}
	return seen
}

func (d *deployment) seenBySocket(gateway *process, e *entry) []string {
	d.t.Helper()
	return d.subscribed(gateway, e, fmt.Sprintf(`{"op":"subscribe","sub":"a","job":%q,"partition":%d}`, e.job, e.partition))
}

func (d *deployment) seenBySocketPartition(gateway *process, e *entry) []string {
	d.t.Helper()
	return d.subscribed(gateway, e, fmt.Sprintf(`{"op":"subscribe","sub":"a","topic":"tokens","partition":%d,"offset":0}`, e.partition))
}

// subscribed is what a subscription shows of one job, to its end.
func (d *deployment) subscribed(gateway *process, e *entry, subscribe string) (seen []string) {
	d.t.Helper()
	s := dialSocket(d.t, gateway.url)
	defer func() { _ = s.conn.Close() }()
	s.send(subscribe)
	for {
		for _, record := range s.next().Events {
			v, err := event.ScanHead(record)
			if err != nil {
				d.t.Fatalf("%s: %v: %s", e.way, err, record)
			}
			if !v.Type.Output() || string(v.Job) != e.job {
				continue
			}
			seen = append(seen, string(record))
			if v.Type.Terminal() {
				return seen
			}
		}
	}
}

func (d *deployment) seenByTail(gateway *process, e *entry) []string {
	d.t.Helper()
	d.row(e.job) // without which the command cannot know where a job from outside lies
	return linesOf(output(d.t, "", program, "job", "tail", e.job, "--server", gateway.url, "-o", "jsonl"))
}

func (d *deployment) seenByPython(python string) func(*process, *entry) []string {
	return func(_ *process, e *entry) []string {
		d.t.Helper()
		return linesOf(output(d.t, "", python, "../../docs/examples/read_tokens.py", "--events", d.setting("KAFKA"), e.job, d.setting("PREFIX")+"tokens"))
	}
}

func linesOf(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }

// rowOf reads a job's row: all of it as text, and what it says that the job said.
func (d *deployment) rowOf(e *entry) (row, said string) {
	d.t.Helper()
	d.row(e.job)
	ctx, cancel := context.WithTimeout(d.t.Context(), everywayPatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.setting("POSTGRES"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var partition, attempt int32
	var model string
	err = conn.QueryRow(ctx, `select row_to_json(j)::text, output->0->'message'->>'content', request_partition, attempt, model
		from penstock.jobs j where id = $1`, e.job).Scan(&row, &said, &partition, &attempt, &model)
	if err != nil || partition != e.partition || attempt != 1 || model != "sim" {
		d.t.Errorf("%s: the row %s, %v", e.way, row, err)
	}
	return row, said
}

// socket is a WebSocket client.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

// socketFrame is what is read of a server's frame.
type socketFrame struct {
	Op     string           `json:"op"`
	ID     string           `json:"id"`
	Events []jsontext.Value `json:"events"`
}

func dialSocket(t *testing.T, url string) *socket {
	t.Helper()
	dialer := websocket.Dialer{HandshakeTimeout: everywayPatience, Subprotocols: []string{"penstock.v1"}}
	conn, resp, err := dialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(url, "http")+"/v1/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	return &socket{t, conn}
}

func (s *socket) send(frame string) {
	s.t.Helper()
	if err := s.conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		s.t.Fatal(err)
	}
}

// next is the next frame; an error ends the test.
func (s *socket) next() (f socketFrame) {
	s.t.Helper()
	_ = s.conn.SetReadDeadline(time.Now().Add(everywayPatience))
	_, b, err := s.conn.ReadMessage()
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil || f.Op == "error" || f.Op == "goaway" {
		s.t.Fatalf("the server's frame: %s, %v", b, err)
	}
	return f
}
