package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/testenv"
)

// develop starts a `penstock dev` on the real Kafka and PostgreSQL.
func develop(t *testing.T, prefix, upstream string) *process {
	t.Helper()
	return spawn(t, "dev", []string{
		"PENSTOCK_KAFKA=" + testenv.Kafka(t), "PENSTOCK_POSTGRES=" + testenv.Postgres(t), "PENSTOCK_PREFIX=" + prefix,
		"PENSTOCK_PARTITIONS=4", "PENSTOCK_UPSTREAM=" + upstream, "PENSTOCK_UPSTREAM_KEY=", "PENSTOCK_LOG_LEVEL=info",
	}, "dev", "--data", t.TempDir()).ready()
}

// talk is one streamed chat, read line by line.
type talk struct {
	t     *testing.T
	job   string
	resp  *http.Response
	lines *bufio.Scanner
	text  strings.Builder
	end   string // what the last line held: [DONE], or an error's code
}

func chat(t *testing.T, url, model string) *talk {
	t.Helper()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"tell me of rivers"}],"stream":true}`, model)
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("a chat was answered %s", resp.Status)
	}
	return &talk{t: t, job: resp.Header.Get("X-Penstock-Job"), resp: resp, lines: bufio.NewScanner(resp.Body)}
}

// next reads one chunk; false after the last.
func (k *talk) next() bool {
	for k.lines.Scan() {
		data, ok := strings.CutPrefix(k.lines.Text(), "data: ")
		if !ok {
			continue
		}
		if k.end != "" {
			k.t.Errorf("behind %s comes %s", k.end, data)
		}
		if data == "[DONE]" {
			k.end = data
			return true
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
			Error struct {
				Code string `json:"code"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			k.t.Errorf("%s: %v", data, err)
		}
		for _, c := range chunk.Choices {
			k.text.WriteString(c.Delta.Content)
		}
		k.end = chunk.Error.Code
		return true
	}
	return false
}

// TestAChatGoesOnWhenItsProcessorIsKilled: the model can go on from a prefix, and
// the client sees no more of it than a pause.
func TestAChatGoesOnWhenItsProcessorIsKilled(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	gateway, first := d.start("ingest,gateway"), d.start("processors")
	const model = "sim:tokens=60,ttft=10ms,gap=50ms"
	k := chat(t, gateway.url, model)
	for len(strings.Fields(k.text.String())) < 10 && k.next() {
	}
	first.kill()
	d.start("processors")
	for k.next() {
	}
	got := jobOf(t, gateway.url, job.ChatID(k.job), "30s")
	if k.end != "[DONE]" || got.Status != job.Completed || got.Attempt != 1 || got.Output[0].Message.Content != k.text.String() {
		t.Errorf("the chat ended in %q and said %q; the job is %+v", k.end, k.text.String(), got)
	}
	if n := len(strings.Fields(k.text.String())); n != 60 {
		t.Errorf("it said %d words, want 60", n)
	}
}

// TestAChatIsToldThatItsAttemptWasSuperseded: the model cannot go on from the
// middle. The job's next attempt is whole.
func TestAChatIsToldThatItsAttemptWasSuperseded(t *testing.T) {
	t.Parallel()
	prefix, up := testenv.Prefix(t), startUpstream(t)
	stays, goes := develop(t, prefix, up.URL), develop(t, prefix, up.URL)
	var theirs map[string]bool
	waitUntil(t, "the second has a part of the chats to run", func() bool { theirs = goes.claimed("interactive"); return len(theirs) > 0 })
	var chats []*talk
	for mine := 0; mine < 3 || len(chats) < 16; { // of which about half are run by each
		k := chat(t, stays.url, "slow")
		chats = append(chats, k)
		if id, ok := job.ParseID(k.job); ok && theirs[strconv.Itoa(int(id.Partition))] {
			mine++
		}
		if len(chats) > 100 {
			t.Fatalf("of %d chats %d are the second's", len(chats), mine)
		}
	}
	for _, k := range chats {
		k.next()
	}
	goes.kill()
	var wg sync.WaitGroup
	for _, k := range chats {
		wg.Go(func() {
			for k.next() {
			}
		})
	}
	wg.Wait()
	ends := map[string]int{}
	var whole strings.Builder
	for i := range 100 {
		fmt.Fprint(&whole, i, " ")
	}
	want := whole.String() + "at last"
	for _, k := range chats {
		ends[k.end]++
		got := jobOf(t, stays.url, k.job, "60s")
		switch {
		case got.Status != job.Completed || got.Output[0].Message.Content != want:
			t.Errorf("the job is %+v", got)
		case k.end == "[DONE]" && (got.Attempt != 1 || k.text.String() != want):
			t.Errorf("a whole chat of attempt %d said %q", got.Attempt, k.text.String())
		case k.end == "attempt_superseded" && (got.Attempt != 2 || !strings.HasPrefix(want, k.text.String())):
			t.Errorf("before attempt %d the chat said %q", got.Attempt, k.text.String())
		}
	}
	if ends["attempt_superseded"] == 0 || ends["[DONE]"]+ends["attempt_superseded"] != len(chats) {
		t.Errorf("the chats ended so: %v", ends)
	}
}

// claimed are the partitions of a lane that a process has said that it has claimed.
func (p *process) claimed(lane string) map[string]bool {
	partitions := map[string]bool{}
	for _, m := range regexp.MustCompile(`msg="lane claimed" lane=`+lane+` partition=(\d+)`).FindAllStringSubmatch(p.out.String(), -1) {
		partitions[m[1]] = true
	}
	return partitions
}

// TestAChatsFirstTokenIsNotHeldBack: a token that is written is sent, whatever
// the next one does.
func TestAChatsFirstTokenIsNotHeldBack(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	p := d.start("ingest,processors,gateway")
	begun := time.Now()
	k := chat(t, p.url, "sim:tokens=2,ttft=0s,gap=20s")
	if !k.next() || k.text.String() == "" || time.Since(begun) > 15*time.Second {
		t.Errorf("after %s the chat has said %q", time.Since(begun), k.text.String())
	}
}
