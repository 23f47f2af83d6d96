//go:build browser

package web

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// patience bounds the wait for anything that a page should do, startup is how
// long a browser may take to start, on a machine that does other things too.
const (
	patience = 60 * time.Second
	startup  = 60 * time.Second
)

// browser is a headless Chromium, spoken to in the DevTools protocol over a pair
// of pipes. One goroutine reads what it says; stop waits for it.
type browser struct {
	cmd     *exec.Cmd
	in      *os.File
	mu      sync.Mutex
	last    int
	replies map[int]chan reply
	pages   map[string]*tab // by session
	gone    chan struct{}   // closed when it says nothing more
}

type reply struct {
	Result jsontext.Value
	Error  *struct{ Message string }
}

// message is what the browser says: an answer (ID) or an event (Method).
type message struct {
	ID        int            `json:"id"`
	SessionID string         `json:"sessionId"`
	Method    string         `json:"method"`
	Params    jsontext.Value `json:"params"`
	Result    jsontext.Value `json:"result"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	t.Fatal("Chromium is missing, in which the page is tested: install it (on Debian: apt-get install chromium), or name it in CHROMIUM")
	return ""
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	program := findChromium(t)
	// Not t.TempDir, which fails the test where a child of the browser still writes.
	dir, err := os.MkdirTemp("", "penstock-page-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	theirIn, in, err1 := os.Pipe()
	out, theirOut, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-breakpad", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--disable-extensions", "--no-default-browser-check", "--remote-debugging-pipe", "--user-data-dir=" + dir,
	}
	if os.Getuid() == 0 {
		args = append(args, "--no-sandbox") // which root cannot have
	}
	b := &browser{in: in, replies: map[int]chan reply{}, pages: map[string]*tab{}, gone: make(chan struct{})}
	b.cmd = exec.Command(program, append(args, "about:blank")...)
	b.cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	_ = theirIn.Close()
	_ = theirOut.Close()
	go b.listen(out)
	t.Cleanup(func() { b.stop(t, dir) })
	ctx, cancel := context.WithTimeout(t.Context(), startup)
	defer cancel()
	if err := b.call(ctx, "", "Browser.getVersion", nil, nil); err != nil {
		t.Fatalf("%s does not answer: %v", program, err)
	}
	return b
}

func (b *browser) stop(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = b.call(ctx, "", "Browser.close", nil, nil)
	select {
	case <-b.gone:
	case <-ctx.Done():
	}
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL) // the group holds its children
	_ = b.in.Close()
	_ = b.cmd.Wait()
	<-b.gone
	if err := os.RemoveAll(dir); err != nil {
		t.Logf("what the browser left: %v", err)
	}
}

// listen hands on what the browser says: values of JSON with a zero byte after each.
func (b *browser) listen(out *os.File) {
	defer close(b.gone)
	defer func() { _ = out.Close() }()
	r := bufio.NewReaderSize(out, 1<<20)
	for {
		raw, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		answer, p := b.replies[m.ID], b.pages[m.SessionID]
		delete(b.replies, m.ID)
		b.mu.Unlock()
		switch {
		case answer != nil:
			got := reply{Result: m.Result}
			if m.Error != nil {
				got.Error = &struct{ Message string }{m.Error.Message}
			}
			answer <- got
		case p != nil:
			p.hear(m)
		}
	}
}

// call sends a command and waits for its answer.
func (b *browser) call(ctx context.Context, session, method string, params map[string]any, into any) error {
	answer := make(chan reply, 1)
	b.mu.Lock()
	b.last++
	id := b.last
	b.replies[id] = answer
	m := map[string]any{"id": id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if session != "" {
		m["sessionId"] = session
	}
	raw, err := json.Marshal(m)
	if err == nil {
		_, err = b.in.Write(append(raw, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case got := <-answer:
		if got.Error != nil {
			return fmt.Errorf("%s: %s", method, got.Error.Message)
		}
		if into == nil {
			return nil
		}
		return json.Unmarshal(got.Result, into, json.MatchCaseInsensitiveNames(true))
	case <-b.gone:
		return fmt.Errorf("%s: the browser is gone", method)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// tab is a page in a context of its own: no cache and no cookies of another's.
type tab struct {
	t       *testing.T
	b       *browser
	session string
	origin  string

	mu       sync.Mutex
	problems []string // what the console, the policy and scripts complained of
	network  []string // what the console said of failed requests
	strays   []string // requests to another origin
	posted   int      // requests that were POSTs
}

// size is a window; a phone has a touch screen.
type size struct {
	width, height int
	phone         bool
}

var (
	desktop = size{width: 1280, height: 900}
	phone   = size{width: 360, height: 740, phone: true}
)

func (b *browser) tab(t *testing.T, origin string, s size) *tab {
	t.Helper()
	p := &tab{t: t, b: b, origin: origin}
	var made struct {
		BrowserContextID string `json:"browserContextId"`
		TargetID         string `json:"targetId"`
		SessionID        string `json:"sessionId"`
	}
	p.must(b.call(t.Context(), "", "Target.createBrowserContext", map[string]any{"disposeOnDetach": true}, &made))
	p.must(b.call(t.Context(), "", "Target.createTarget", map[string]any{
		"url": "about:blank", "browserContextId": made.BrowserContextID, "width": s.width, "height": s.height,
	}, &made))
	p.must(b.call(t.Context(), "", "Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &made))
	p.session = made.SessionID
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = b.call(ctx, "", "Target.disposeBrowserContext", map[string]any{"browserContextId": made.BrowserContextID}, nil)
	})
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.do(domain+".enable", nil)
	}
	p.do("Emulation.setDeviceMetricsOverride", map[string]any{
		"width": s.width, "height": s.height, "deviceScaleFactor": 1, "mobile": s.phone,
	})
	return p
}

// hear notes an event. The reading goroutine calls it, so it waits for nothing.
func (p *tab) hear(m message) {
	var e struct {
		Type             string
		Args             []struct{ Value, Description any }
		Entry            struct{ Level, Source, Text, URL string }
		Request          struct{ URL, Method string }
		ExceptionDetails struct {
			Text      string
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
	}
	if json.Unmarshal(m.Params, &e, json.MatchCaseInsensitiveNames(true)) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Runtime.consoleAPICalled":
		p.problems = append(p.problems, fmt.Sprint("console: ", e.Type, " ", e.Args))
	case "Runtime.exceptionThrown":
		p.problems = append(p.problems, "exception: "+e.ExceptionDetails.Text+" "+e.ExceptionDetails.Exception.Description)
	case "Log.entryAdded":
		line := e.Entry.Source + ": " + e.Entry.Text + " " + e.Entry.URL
		if e.Entry.Source == "network" {
			p.network = append(p.network, line)
		} else {
			p.problems = append(p.problems, line)
		}
	case "Network.requestWillBeSent":
		if e.Request.Method == http.MethodPost {
			p.posted++
		}
		u, err := url.Parse(e.Request.URL)
		if err != nil || (u.Scheme != "data" && u.Scheme+"://"+u.Host != p.origin) {
			p.strays = append(p.strays, e.Request.URL)
		}
	}
}

func (p *tab) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *tab) do(method string, params map[string]any) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	p.must(p.b.call(ctx, p.session, method, params, nil))
}

// eval runs an expression in the page, waits for it where it is a promise, and
// gives its value.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	var got struct {
		Result           struct{ Value jsontext.Value }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience+5*time.Second)
	defer cancel()
	p.must(p.b.call(ctx, p.session, "Runtime.evaluate", map[string]any{
		"expression": expression, "awaitPromise": true, "returnByValue": true,
	}, &got))
	if got.ExceptionDetails != nil {
		p.shot("failed-" + strings.ReplaceAll(p.t.Name(), "/", "-"))
		p.t.Fatalf("%s\n%s", expression, got.ExceptionDetails.Exception.Description)
	}
	var value T
	if got.Result.Value != nil {
		p.must(json.Unmarshal(got.Result.Value, &value, json.MatchCaseInsensitiveNames(true)))
	}
	return value
}

// until waits for a condition in the page.
func (p *tab) until(condition string) {
	p.t.Helper()
	eval[bool](p, fmt.Sprintf(`(async () => {
		const end = Date.now() + %d;
		while (!(%s)) {
			if (Date.now() > end) throw new Error('it never came; the page says:\n' + document.body.innerText);
			await new Promise((again) => setTimeout(again, 10));
		}
		return true;
	})()`, patience.Milliseconds(), condition))
}

// open goes to a path of the server and waits for the page to stand. One that
// differs from the present one behind '#' alone is loaded all the same.
func (p *tab) open(path string) {
	p.t.Helper()
	p.do("Page.navigate", map[string]any{"url": "about:blank"})
	p.until(`location.href === 'about:blank'`)
	p.do("Page.navigate", map[string]any{"url": p.origin + path})
	p.until(`document.readyState === 'complete' && customElements.get('penstock-prompt')`)
}

func (p *tab) key(name string, code, modifiers int) {
	p.t.Helper()
	for _, kind := range []string{"rawKeyDown", "keyUp"} {
		p.do("Input.dispatchKeyEvent", map[string]any{
			"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": modifiers,
		})
	}
}

// shot saves a picture where PENSTOCK_SHOTS names a directory.
func (p *tab) shot(name string) {
	p.t.Helper()
	dir := os.Getenv("PENSTOCK_SHOTS")
	if dir == "" {
		return
	}
	var got struct {
		Data string `json:"data"`
	}
	p.must(p.b.call(p.t.Context(), p.session, "Page.captureScreenshot", map[string]any{"format": "png"}, &got))
	png, err := base64.StdEncoding.DecodeString(got.Data)
	p.must(err)
	p.must(os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600))
}

// posts is how many POSTs the page has made.
func (p *tab) posts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.posted
}

// clean says that nothing was complained of and that no request left the
// origin. Where the test cuts or refuses requests, the browser says so of each.
func (p *tab) clean(refusals bool) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.problems {
		p.t.Errorf("the browser complained: %s", line)
	}
	for _, line := range p.network {
		if !refusals {
			p.t.Errorf("a request failed: %s", line)
		}
	}
	for _, line := range p.strays {
		p.t.Errorf("a request left the origin: %s", line)
	}
}
