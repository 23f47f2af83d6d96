package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
)

// ends is a connection that says one thing, and keeps what it is told.
type ends struct {
	io.Reader
	told bytes.Buffer
}

func (e *ends) Write(b []byte) (int, error) { return e.told.Write(b) }
func (*ends) Close() error                  { return nil }

// wire is a text frame as a server sends it.
func wire(text string) []byte {
	switch n := len(text); {
	case n < 126:
		return append([]byte{wholeText, byte(n)}, text...)
	case n < 1<<16:
		return append(binary.BigEndian.AppendUint16([]byte{wholeText, 126}, uint16(n)), text...)
	default:
		return append(binary.BigEndian.AppendUint64([]byte{wholeText, 127}, uint64(n)), text...)
	}
}

func TestAWatcherPutsFramesTogetherAndAnswersPings(t *testing.T) {
	t.Parallel()
	padding := strings.Repeat(" ", 200)
	var all []byte
	all = append(all, wire(`{"op":"subscribed"}`)...)
	all = append(all, wire(framed(eventOf("started", 0, "{}")+padding))...)
	all = append(all, wholePing, 2, 'h', 'i', wholePong, 0)
	all = append(all, wire(framed(eventOf("delta", 1, "{}")+strings.Repeat(padding, 400)))...)
	all = append(all, wire(`{"op":"end","status":"completed"}`)...)
	conn := &ends{}
	w := &watcher{run: &streaming{jobs: []string{"job_1"}}, conn: conn, job: "job_1"}
	w.run.Counted.Store(true)
	for i := range all {
		if done, err := w.read(all[i : i+1]); err != nil || done != (i == len(all)-1) {
			t.Fatalf("byte %d of %d: %v, %v", i, len(all), done, err)
		}
	}
	if w.run.Events.Load() != 1 || w.run.Pieces.Load() != 2 || len(w.run.jobs) != 0 || conn.told.String() != "\x8a\x82\x00\x00\x00\x00hi" {
		t.Errorf("%d deltas in %d frames, jobs left %v, told %q", w.run.Events.Load(), w.run.Pieces.Load(), w.run.jobs, &conn.told)
	}
}

func TestAWatcherSaysWhatIsNoFrameOfAServer(t *testing.T) {
	t.Parallel()
	for want, bytes := range map[string][]byte{
		"masked":     {wholeText, 0x81},
		"begins":     {0x01, 0},
		"closed":     {wholeClose, 0},
		"bytes":      {wholeText, 127, 1, 0, 0, 0, 0, 0, 0, 0},
		"unexpected": {wholeText},
	} {
		w := &watcher{run: &streaming{}, conn: &ends{Reader: strings.NewReader(string(bytes))}, job: "job_1"}
		if err := w.readAll(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one that says %q", err, want)
		}
	}
	if w := (&watcher{job: "j"}); !errors.Is(w.failed(io.EOF), io.ErrUnexpectedEOF) {
		t.Error("an end is none")
	}
}
