package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// raw sends bytes to a process as they are and gives what it answers until it
// closes the connection, or until enough is there.
func (p *process) raw(text string, enough func(answer string) bool) string {
	p.t.Helper()
	conn := p.dial()
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	go func() { _, _ = io.WriteString(conn, text) }() // one that is refused in the middle is not read to its end
	var answer strings.Builder
	buf := make([]byte, 4096)
	for !enough(answer.String()) {
		n, err := conn.Read(buf)
		answer.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return answer.String()
}

func (p *process) dial() net.Conn {
	p.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		p.t.Fatal(err)
	}
	return conn
}

// answeredWhole tells whether a whole answer is there, by its Content-Length.
func answeredWhole(answer string) bool {
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	_, err = io.ReadAll(res.Body)
	return err == nil && res.StatusCode >= 200
}

// refusal is what is looked at of an answer.
type refusal struct {
	Error struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Code    string `json:"code"`
	} `json:"error"`
}

func TestNoHTTPClientBringsTheProgramDown(t *testing.T) {
	p := deploy(t).start("ingest,processors,projections,gateway")
	const host = "Host: x\r\n"
	body := `{"body":{"model":"sim:tokens=1,ttft=0s","messages":[]}}`
	post := "POST /v1/jobs HTTP/1.1\r\n" + host + "Content-Type: application/json\r\n"
	long := strings.Repeat("a", 60<<10)
	for name, c := range map[string]struct {
		request string
		status  int // below 0: net/http itself refuses it, in plain text
	}{
		"HTTP/1.0":                      {"GET /livez HTTP/1.0\r\n\r\n", 200},
		"HTTP/0.9":                      {"GET /livez\r\n\r\n", -400},
		"TRACE":                         {"TRACE /v1/jobs HTTP/1.1\r\n" + host + "\r\n", 405},
		"CONNECT":                       {"CONNECT x:80 HTTP/1.1\r\n" + host + "\r\n", 404},
		"OPTIONS *":                     {"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", 200},
		"an odd method":                 {"BREW /v1/jobs HTTP/1.1\r\n" + host + "\r\n", 405},
		"a method that is none":         {"G\x00T /v1/jobs HTTP/1.1\r\n" + host + "\r\n", -400},
		"a slash in an id":              {"GET /v1/jobs/a%2fb HTTP/1.1\r\n" + host + "\r\n", 404},
		"a NUL in an id":                {"GET /v1/jobs/a%00b HTTP/1.1\r\n" + host + "\r\n", 404},
		"a NUL in the path":             {"GET /v1/jobs/a\x00b HTTP/1.1\r\n" + host + "\r\n", -400},
		"dots":                          {"GET /web/../../etc/passwd HTTP/1.1\r\n" + host + "\r\n", 404},
		"escaped dots":                  {"GET /web/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + host + "\r\n", 404},
		"slashes":                       {"GET //v1//jobs HTTP/1.1\r\n" + host + "\r\n", 404},
		"a broken escape":               {"GET /v1/jobs/%zz HTTP/1.1\r\n" + host + "\r\n", -400},
		"bad UTF-8":                     {"GET /v1/jobs/%ff%fe HTTP/1.1\r\n" + host + "\r\n", 404},
		"bad UTF-8 in a query":          {"GET /v1/jobs?status=%ff%fe HTTP/1.1\r\n" + host + "\r\n", 400},
		"a broken query":                {"GET /v1/jobs?status=%zz HTTP/1.1\r\n" + host + "\r\n", 400},
		"a long path":                   {"GET /v1/jobs/" + long + " HTTP/1.1\r\n" + host + "\r\n", 404},
		"a long query":                  {"GET /v1/jobs?status=" + long + " HTTP/1.1\r\n" + host + "\r\n", 400},
		"a long cursor":                 {"GET /v1/jobs/a/events?cursor=" + long + " HTTP/1.1\r\n" + host + "\r\n", 400},
		"a long Last-Event-ID":          {"GET /v1/topics/tokens/partitions/0/events HTTP/1.1\r\n" + host + "Last-Event-ID: " + long + "\r\n\r\n", 400},
		"many parameters":               {"GET /v1/jobs?" + strings.Repeat("status=queued&", 4000) + " HTTP/1.1\r\n" + host + "\r\n", 400},
		"a head too large":              {"GET /livez HTTP/1.1\r\n" + host + "X: " + long + long + "\r\n\r\n", -431},
		"a header with a NUL":           {"GET /livez HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", -400},
		"no host":                       {"GET /livez HTTP/1.1\r\n\r\n", -400},
		"two hosts":                     {"GET /livez HTTP/1.1\r\n" + host + host + "\r\n", -400},
		"two lengths":                   {post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}", -400},
		"a negative length":             {post + "Content-Length: -1\r\n\r\n{}", -400},
		"an endless length":             {post + "Content-Length: 99999999999999999999\r\n\r\n{}", -400},
		"a length over the limit":       {post + "Content-Length: 999999999999\r\n\r\n{}", 413},
		"a length of one too few":       {post + "Content-Length: " + strconv.Itoa(len(body)-1) + "\r\n\r\n" + body, 400},
		"a length and chunks":           {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"an unknown encoding":           {post + "Transfer-Encoding: gzip\r\n\r\n{}", -501},
		"chunks that are none":          {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", 400},
		"a compressed body":             {post + "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00", 400},
		"an expectation":                {post + "Expect: 200-ok\r\nContent-Length: 2\r\n\r\n{}", -417},
		"100-continue, then too large":  {post + "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413},
		"an upgrade to something else":  {"GET /v1/ws HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 400},
		"a WebSocket of an old version": {"GET /v1/ws HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 400},
		"a WebSocket without a key":     {"GET /v1/ws HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", 400},
		"a WebSocket by POST":           {"POST /v1/ws HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 405},
	} {
		answer := p.raw(c.request, answeredWhole)
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
		if err != nil {
			t.Errorf("%s: %v: %.200q", name, err, answer)
			continue
		}
		got, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		plain := c.status < 0
		if res.StatusCode != max(c.status, -c.status) {
			t.Errorf("%s: %d, want %d: %.300s", name, res.StatusCode, c.status, got)
		}
		if plain || res.StatusCode == http.StatusOK {
			continue
		}
		var f refusal
		if err := json.Unmarshal(got, &f); err != nil || f.Error.Message == "" || f.Error.Type == "" || f.Error.Code == "" || res.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %d is not of the one shape: %.300s", name, res.StatusCode, got)
		}
	}
	// HTTP/2 is served to who knows that beforehand, and then what is no frame of it
	// ends the connection: a length of 16 MiB, of no type that there is.
	answer := p.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff", func(string) bool { return false })
	const settings = 4 // RFC 9113, section 6.5
	if len(answer) < 9 || answer[3] != settings {
		t.Errorf("HTTP/2 was not answered by its settings: %.100q", answer)
	}
	p.says("/livez", http.StatusOK, "ok", soon)
}

// figure reads one of the process's own metrics; -1 where it has none of it.
func (p *process) figure(name string) float64 {
	p.t.Helper()
	_, body := get(p.t.Context(), p.url+"/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return n
			}
		}
	}
	return -1
}

// submit submits a job, and gives its id. On a busy machine the lane may be full
// for a moment.
func (p *process) submit(model string) string {
	p.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		status, id := p.offer(model)
		if status == http.StatusAccepted {
			return id
		}
		if status != http.StatusTooManyRequests || time.Now().After(deadline) {
			p.t.Fatalf("submit: %d", status)
		}
		pause(p.t.Context(), 200*time.Millisecond)
	}
}

func (p *process) offer(model string) (status int, id string) {
	p.t.Helper()
	body := `{"lane":"interactive","body":{"model":"` + model + `","messages":[]}}`
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url+"/v1/jobs", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var job struct {
		ID string `json:"id"`
	}
	if err := json.UnmarshalRead(res.Body, &job); err != nil {
		p.t.Fatalf("submit: %d, %v", res.StatusCode, err)
	}
	return res.StatusCode, job.ID
}

// masked is a client's text frame, masked with zeros.
func masked(opcode byte, payload string) string {
	b := []byte{0x80 | opcode, 0x80 | 127}
	b = binary.BigEndian.AppendUint64(b, uint64(len(payload)))
	return string(append(b, 0, 0, 0, 0)) + payload
}

const handshake = "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
	"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// While clients hold all kinds of things half done, others are answered as
// before; once they are gone, nothing of them is left.
func TestClientsThatHoldThingsHalfDoneHarmNobodyAndLeaveNothing(t *testing.T) {
	p := deploy(t).start("ingest,processors,projections,gateway")
	const each = 8
	post := "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	subscribes := strings.Repeat(masked(1, `{"op":"subscribe","sub":"a","topic":"tokens","partition":0}`)+masked(1, `{"op":"unsubscribe","sub":"a"}`), 500)
	served := func(what string) {
		began := time.Now()
		job := p.submit("sim:tokens=3,ttft=0s,gap=0s")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if status, body := get(ctx, p.url+"/v1/jobs/"+job+"?wait=60s"); status != http.StatusOK || !strings.Contains(body, `"status":"completed"`) {
			t.Errorf("%s: %d %s", what, status, body)
		}
		t.Logf("%s: a job took %v", what, time.Since(began))
	}
	served("before")
	before := p.goroutines()
	var held []net.Conn
	for name, text := range map[string]string{
		"nothing":                       "",
		"half a head":                   "GET /v1/jobs HTTP/1.1\r\nHo",
		"half a body":                   post + "Content-Length: 100\r\n\r\n{",
		"chunks without an end":         post + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"a chunk of a lying length":     post + "Transfer-Encoding: chunked\r\n\r\nfffffff\r\n{",
		"a body that was not asked for": post + "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
		"many requests at once":         strings.Repeat("GET /v1/load HTTP/1.1\r\nHost: x\r\n\r\n", 200),
		"a stream that is not read":     "GET /v1/topics/tokens/partitions/0/events HTTP/1.1\r\nHost: x\r\n\r\n",
		"a wait":                        "GET /v1/jobs/" + p.submit("sim:tokens=2,ttft=30s") + "?wait=60s HTTP/1.1\r\nHost: x\r\n\r\n",
		"a socket that says nothing":    handshake,
		"half a frame":                  handshake + masked(1, strings.Repeat(" ", 100))[:50],
		"fragments without an end":      handshake + "\x01\x81\x00\x00\x00\x00{" + strings.Repeat("\x00\x81\x00\x00\x00\x00 ", 1000),
		"pings":                         handshake + strings.Repeat("\x89\x80\x00\x00\x00\x00", 5000),
		"subscriptions back and forth":  handshake + subscribes,
		"half a close":                  handshake + "\x88\x82\x00\x00\x00\x00\x03",
		"a close, and more":             handshake + masked(8, "\x03\xe8") + subscribes,
		"text that is no UTF-8":         handshake + strings.Repeat(masked(1, "\xff\xfe"), 200),
		"binary frames":                 handshake + strings.Repeat(masked(2, "\x00\x01"), 200),
	} {
		for range each {
			conn := p.dial()
			held = append(held, conn)
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // nobody need read all of it
			_, _ = io.WriteString(conn, text)
		}
		served(name)
	}
	for _, conn := range held {
		_ = conn.Close()
	}
	served("afterwards")
	deadline := time.Now().Add(time.Minute)
	after := p.goroutines()
	for ; after > before+20 && time.Now().Before(deadline); after = p.goroutines() {
		served("while they go")
	}
	t.Logf("goroutines: %v before, %v after; heap %v MiB", before, after, p.figure("go_memstats_heap_inuse_bytes")/(1<<20))
	if after > before+20 {
		t.Errorf("%v goroutines are left of %v", after, before)
	}
	waitUntil(t, "no WebSocket is left", func() bool { return p.figure("penstock_gateway_websockets") == 0 })
	if strings.Contains(p.out.String(), "panic") {
		t.Error("a handler panicked")
	}
	p.stop()
}
