//go:build browser

package web

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

// serverVar names a running server, http://host:port, on which the checks that
// need no script are to be made too. It has to serve the model "sim".
const serverVar = "PENSTOCK_PAGE_URL"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the checks ask the page.
const (
	answer  = `document.querySelector('.answer').textContent`
	status  = `document.querySelector('.job [data-part=status]').dataset.status`
	wire    = `document.querySelector('.job [data-part=wire]').textContent`
	notices = `document.querySelector('.notices').textContent`
	shownID = `document.querySelector('.job-id').textContent`
	seq     = `Number(document.querySelector('[data-part=seq]').textContent)`
	cancel  = `document.querySelector('[data-part=cancel]')`
	rows    = `[...document.querySelectorAll('.row')]`
	// fits tells whether nothing is wider than the window. innerWidth grows with
	// what is too wide for a phone, clientWidth does not.
	fits = `document.documentElement.scrollWidth <= document.documentElement.clientWidth`
)

func part(name string) string {
	return fmt.Sprintf(`document.querySelector('[data-part=%s]')`, name)
}

// submit writes a prompt and sends it by keyboard, and gives the job's id.
func (p *tab) submit(model, prompt string) string {
	p.t.Helper()
	before := eval[string](p, shownID)
	eval[any](p, fmt.Sprintf(`(() => { const m = document.querySelector('#model'); m.value = %q; m.dispatchEvent(new Event('input', {bubbles: true})) })()`, model))
	eval[any](p, `(() => { const t = document.querySelector('#prompt'); t.focus(); t.select() })()`)
	p.do("Input.insertText", map[string]any{"text": prompt})
	p.key("Enter", 13, 2) // with Ctrl
	p.until(fmt.Sprintf(`%s && %s !== %q`, shownID, shownID, before))
	return eval[string](p, shownID)
}

// said is what the server says that the job's answer is, in the end.
func said(t *testing.T, base, id string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/jobs/"+url.PathEscape(id)+"?wait=30s", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var job struct {
		Status string `json:"status"`
		Output []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"output"`
	}
	if err := json.UnmarshalRead(resp.Body, &job); err != nil || len(job.Output) == 0 {
		t.Fatalf("the job has no output: %+v, %v", job, err)
	}
	http.DefaultClient.CloseIdleConnections()
	return job.Output[0].Message.Content
}

func (p *tab) shows(want string) {
	p.t.Helper()
	if d := cmp.Diff(want, eval[string](p, answer)); d != "" {
		p.t.Errorf("the page shows another answer (-said +shown):\n%s", d)
	}
}

// TestPage makes the checks that hold for any server: on a scripted one, and on
// the one that PENSTOCK_PAGE_URL names.
func TestPage(t *testing.T) {
	b := startBrowser(t)
	t.Run("scripted", func(t *testing.T) {
		checkServer(t, b, newFake(t).URL)
	})
	if base := os.Getenv(serverVar); base != "" {
		t.Run("running", func(t *testing.T) {
			checkServer(t, b, strings.TrimSuffix(base, "/"))
		})
	}
}

func checkServer(t *testing.T, b *browser, base string) {
	t.Helper()
	const model = "sim:tokens=60,gap=15ms,chunk=1"
	t.Run("a prompt is answered token by token, and a reload shows it again", func(t *testing.T) {
		p := b.tab(t, base, desktop)
		p.open("/")
		eval[any](p, `(() => {
			globalThis.steps = 0;
			new MutationObserver(() => steps++).observe(document.querySelector('.answer'), {characterData: true, childList: true, subtree: true});
		})()`)
		id := p.submit(model, "Tell me about penstocks.")
		p.until(answer + `.length > 0 && ` + status + ` === 'running' && ` + wire + ` === 'live'`)
		p.until(status + ` === 'completed' && ` + wire + ` === 'ended'`)
		want := said(t, base, id)
		p.shows(want)
		if got := eval[int](p, `steps`); got < 5 {
			t.Errorf("the answer came in %d steps: tokens did not come one by one", got)
		}
		if got := eval[string](p, `decodeURIComponent(location.hash)`); got != "#"+id {
			t.Errorf("the address ends in %q, want the job's id", got)
		}
		for _, figure := range []string{"first", "rate", "took", "usage", "attempt"} {
			p.until(part(figure) + `.textContent !== '–'`)
		}
		p.until(fmt.Sprintf(`%s.some((r) => r.title === %q && r.getAttribute('aria-current') === 'true' && r.querySelector('.pill').dataset.status === 'completed')`, rows, id))
		events := eval[int](p, seq)

		p.do("Page.reload", nil)
		p.until(`document.readyState === 'complete' && ` + status + ` === 'completed'`)
		p.until(wire + ` === 'ended'`)
		p.shows(want)
		if again := eval[int](p, seq); again != events {
			t.Errorf("%d events at the reload, %d before", again, events)
		}
		p.shot("desktop-light")
		p.clean(false)
	})
	t.Run("replay shows the same, at once and at the pace it had", func(t *testing.T) {
		p := b.tab(t, base, desktop)
		p.open("/")
		id := p.submit(model, "Again, please.")
		p.until(status + ` === 'completed'`)
		want := said(t, base, id)
		speed := part("speed")
		eval[any](p, speed+`.value = '0', `+part("replay")+`.click()`)
		p.until(status + ` === 'completed' && ` + wire + ` === 'ended'`)
		p.shows(want)
		took := eval[float64](p, `(async () => {
			`+speed+`.value = '1';
			const began = performance.now();
			`+part("replay")+`.click();
			while (`+status+` !== 'queued' && `+status+` !== 'running') await new Promise(requestAnimationFrame);
			while (`+status+` !== 'completed') await new Promise(requestAnimationFrame);
			return performance.now() - began;
		})()`)
		if took < 400 { // 60 tokens, 10 ms apart or more
			t.Errorf("the replay at the pace it had took %.0f ms", took)
		}
		p.shows(want)
		p.clean(false)
	})
	t.Run("what the network cut off is there once the network is back", func(t *testing.T) {
		net := newNetwork(t, base)
		p := b.tab(t, net.url, desktop)
		p.open("/")
		id := p.submit("sim:tokens=100,ttft=0s,gap=30ms,chunk=1", "Hold on.")
		p.until(answer + `.length > 20 && ` + wire + ` === 'live'`)
		net.cut()
		p.until(wire + ` === 'reconnecting…'`)
		p.until(part("problem") + `.textContent === 'The list cannot be read now: The server cannot be reached.'`)
		had := eval[int](p, answer+`.length`)
		net.mend()
		p.until(wire + ` === 'live' || ` + wire + ` === 'ended'`)
		p.until(status + ` === 'completed' && ` + wire + ` === 'ended'`)
		want := said(t, base, id)
		p.shows(want)
		if had == 0 || had >= len(want) {
			t.Errorf("%d of %d bytes were there at the cut: it did not fall into the answer", had, len(want))
		}
		if got := eval[string](p, notices); got != "" {
			t.Errorf("the page complains: %s", got)
		}
		p.clean(true)
	})
	t.Run("a phone has nothing to scroll sideways", func(t *testing.T) {
		p := b.tab(t, base, phone)
		p.open("/")
		p.until(fits)
		p.submit(model, strings.Repeat("Averylongwordwithoutanyspace", 8))
		p.until(status + ` === 'completed'`)
		p.until(fits)
		p.shot("phone")
		eval[any](p, part("raw")+`.click(), document.querySelector('.job [data-part=more]').click()`)
		p.until(`document.querySelector('.raw tbody').rows.length > 10 && document.querySelectorAll('.line').length === 2`)
		p.until(fits)
		eval[any](p, `document.querySelector('.actions').scrollIntoView()`)
		p.shot("phone-events")
		p.clean(false)
	})
	t.Run("nothing empty is sent", func(t *testing.T) {
		p := b.tab(t, base, desktop)
		p.open("/")
		eval[any](p, `document.querySelector('#prompt').focus()`)
		p.do("Input.insertText", map[string]any{"text": " \n "})
		p.key("Enter", 13, 2)
		if !eval[bool](p, `document.querySelector('[type=submit]').disabled && document.querySelector('.job').hidden && location.hash === ''`) {
			t.Error("a prompt of blanks could be sent")
		}
		if posts := p.posts(); posts != 0 {
			t.Errorf("%d jobs were sent", posts)
		}
		p.clean(false)
	})
	t.Run("a job that is not there is said not to be", func(t *testing.T) {
		p := b.tab(t, base, desktop)
		p.open("/#job_06f3k2m8q0zzzzzzzzzzzzzzzzzzzzzz")
		p.until(wire + ` === 'stopped' && ` + part("error") + `.textContent.length > 10`)
		if shown := eval[bool](p, `!`+part("status")+`.hidden`); shown {
			t.Error("a job that is not there has a state")
		}
		p.clean(true)
	})
}

func TestAScriptedJob(t *testing.T) {
	b := startBrowser(t)
	f := newFake(t)
	t.Run("is shown whole and once after cuts", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		id := p.submit("cut", "x")
		p.until(wire + ` === 'reconnecting…'`)
		p.until(status + ` === 'completed'`)
		p.shows(said(t, f.URL, id))
		if got := eval[string](p, notices); got != "" {
			t.Errorf("the page complains: %s", got)
		}
		if got := eval[string](p, part("seq")+`.title`); got != "" {
			t.Errorf("events came twice: %s", got)
		}
		p.clean(true)
	})
	t.Run("is cleared, and said to be, when an attempt is given up", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		id := p.submit("superseded", "x")
		p.until(answer + `.includes('word9')`)
		p.until(answer + ` === '' && ` + notices + `.includes('the owner was replaced')`)
		p.until(status + ` === 'completed' && ` + part("attempt") + `.textContent === '2'`)
		p.shows(said(t, f.URL, id))
		p.clean(false)
	})
	t.Run("keeps what it said when it fails, and says why", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.submit("fails", "x")
		p.until(status + ` === 'failed' && ` + part("error") + `.textContent.includes("the model's provider failed (provider_error)")`)
		p.shows("word0 word1 word2 word3 word4 ")
		p.clean(false)
	})
	t.Run("is cancelled in mid-answer, and keeps what it said", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.submit("long", "x")
		p.until(answer + `.includes('word3')`)
		eval[any](p, cancel+`.click()`)
		p.until(status + ` === 'cancelled' && ` + wire + ` === 'ended' && ` + cancel + `.hidden`)
		p.until(answer + `.includes('word3') && !` + answer + `.includes('word599')`)
		p.clean(false)
	})
	t.Run("is cancelled before it began", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.submit("waits", "x")
		eval[any](p, cancel+`.click()`)
		p.until(status + ` === 'cancelled' && ` + cancel + `.hidden`)
		p.clean(false)
	})
	t.Run("goes on, and says so, where its cancel is refused", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.submit("stubborn", "x")
		p.until(answer + `.includes('word1')`)
		eval[any](p, cancel+`.click()`)
		p.until(part("error") + `.textContent === 'It was not cancelled: Kafka is away.' && !` + cancel + `.disabled`)
		eval[any](p, cancel+`.click()`)
		p.until(status + ` === 'cancelled' && ` + part("error") + `.hidden`)
		p.clean(true)
	})
	t.Run("may be of any model that the server lists", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.until(`[...document.querySelectorAll('#models option')].filter((o) => o.value === 'fast').length === 1`)
		if n := eval[int](p, `[...document.querySelectorAll('#models option')].filter((o) => o.value === 'sim').length`); n != 1 {
			t.Errorf("sim is listed %d times", n)
		}
		p.clean(false)
	})
	t.Run("says why it waits", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		id := p.submit("waits", "x")
		p.until(part("why") + `.textContent.startsWith('Waits in the interactive lane since ')`)
		p.until(fmt.Sprintf(`%s.some((r) => r.title === %q && r.textContent.includes('waits in interactive for '))`, rows, id))
		p.clean(false)
	})
	t.Run("is text, whatever it says", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.submit("html", "x")
		p.until(status + ` === 'completed'`)
		p.shows(html)
		eval[any](p, part("raw")+`.click()`)
		p.until(`document.querySelector('.raw tbody').textContent.includes('onerror')`)
		if eval[bool](p, `document.title !== 'Penstock' || document.querySelector('img, .answer b, .raw b') !== null`) {
			t.Error("what a model says became markup")
		}
		p.clean(false)
	})
	t.Run("is painted once a frame, however fast it comes", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		id := p.submit("burst", "x")
		p.until(status + ` === 'completed'`)
		p.shows(said(t, f.URL, id))
		counted := eval[struct{ Paints, Asked, Frames int }](p, `(async () => {
			const view = document.querySelector('penstock-job');
			let paints = 0, asked = 0, frames = 0, on = true;
			const paint = view.paint;
			view.paint = function () { paints++; paint.call(this) };
			const count = () => { frames++; if (on) requestAnimationFrame(count) };
			requestAnimationFrame(count);
			while (frames < 20) {
				view.schedule(); // as every event does
				asked++;
				await new Promise((soon) => { const c = new MessageChannel(); c.port1.onmessage = soon; c.port2.postMessage(0) });
			}
			on = false;
			return { paints, asked, frames };
		})()`)
		if counted.Paints > counted.Frames+2 || counted.Asked < 2*counted.Frames || counted.Paints == 0 {
			t.Errorf("painted %d times in %d frames, when asked %d times", counted.Paints, counted.Frames, counted.Asked)
		}
		eval[any](p, part("raw")+`.click()`)
		if got := eval[int](p, `document.querySelector('.raw tbody').rows.length`); got != 200 {
			t.Errorf("%d rows of events, want the newest 200", got)
		}
		p.clean(false)
	})
}

func TestThePageWithoutItsServersParts(t *testing.T) {
	b := startBrowser(t)
	t.Run("without PostgreSQL jobs are sent and watched", func(t *testing.T) {
		f := newFake(t)
		f.listDown = true
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.until(part("problem") + `.textContent.endsWith('PostgreSQL is away. Jobs can be sent and watched all the same.')`)
		id := p.submit("sim", "x")
		p.until(status + ` === 'completed'`)
		p.shows(said(t, f.URL, id))
		p.until(fmt.Sprintf(`%s.some((r) => r.title === %q && r.querySelector('.pill').dataset.status === 'completed')`, rows, id))
		f.mu.Lock()
		f.listDown = false
		f.mu.Unlock()
		p.until(part("problem") + `.hidden`)
		p.clean(true)
	})
	t.Run("what may have been accepted is sent again with its key", func(t *testing.T) {
		f := newFake(t)
		f.postDown = 1
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		eval[any](p, `document.querySelector('#prompt').focus()`)
		p.do("Input.insertText", map[string]any{"text": "once"})
		p.key("Enter", 13, 2)
		p.until(`document.querySelector('.composer .problem').textContent.includes('it has the same key')`)
		p.key("Enter", 13, 2)
		p.until(status + ` === 'completed' && document.querySelector('.composer .problem').hidden`)
		p.submit("sim", "once")
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.keys) != 3 || f.keys[0] == "" || f.keys[0] != f.keys[1] || f.keys[1] == f.keys[2] {
			t.Errorf("the keys were %q: want the same twice, then another", f.keys)
		}
		p.clean(true)
	})
	t.Run("a refusal is shown as text", func(t *testing.T) {
		f := newFake(t)
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		eval[any](p, `(() => { document.querySelector('#model').value = 'unknown'; document.querySelector('#prompt').focus() })()`)
		p.do("Input.insertText", map[string]any{"text": "x"})
		p.key("Enter", 13, 2)
		p.until(`document.querySelector('.composer .problem').textContent === 'nobody serves <b>the model</b>'`)
		p.clean(true)
	})
}

func TestTheList(t *testing.T) {
	b := startBrowser(t)
	f := newFake(t)
	for i := range 120 {
		f.put([]string{"quick", "quick", "fails", "waits"}[i%4], []string{"interactive", "standard", "batch"}[i%3], time.Duration(7200-i*60)*time.Second)
	}
	t.Run("shows older jobs when asked, each once", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		for _, n := range []int{50, 100, 120} {
			p.until(fmt.Sprintf(`%s.length === %d && new Set(%s.map((r) => r.title)).size === %d`, rows, n, rows, n))
			eval[any](p, `document.querySelector('.list [data-part=more]').click()`)
		}
		p.until(`document.querySelector('.list [data-part=more]').hidden`)
		p.clean(false)
	})
	t.Run("is walked with the arrow keys", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.until(rows + `.length === 50`)
		eval[any](p, rows+`[0].focus()`)
		p.key("ArrowDown", 40, 0)
		p.key("ArrowDown", 40, 0)
		p.key("ArrowUp", 38, 0)
		p.key("Enter", 13, 0)
		eval[any](p, `document.activeElement.click()`)
		p.until(fmt.Sprintf(`%s === %s[1].title && document.activeElement === %s[1]`, shownID, rows, rows))
		p.key("End", 35, 0)
		p.until(fmt.Sprintf(`document.activeElement === %s.at(-1)`, rows))
		if got := eval[int](p, rows+`.filter((r) => r.tabIndex === 0).length`); got != 1 {
			t.Errorf("Tab stops %d times in the list, want once", got)
		}
		p.clean(false)
	})
	t.Run("is read again while it is seen, and only then", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.open("/")
		p.until(rows + `.length === 50`)
		eval[any](p, `(() => {
			Object.defineProperty(document, 'hidden', {value: true, configurable: true});
			document.dispatchEvent(new Event('visibilitychange'));
		})()`)
		late := f.put("quick", "batch", 0)
		eval[any](p, `new Promise((done) => setTimeout(done, 2500))`)
		seen := fmt.Sprintf(`%s[0]?.title === %q`, rows, late.id)
		if eval[bool](p, seen) {
			t.Error("the list was read while nobody saw it")
		}
		eval[any](p, `(() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')) })()`)
		p.until(seen)
		later := f.put("quick", "batch", 0)
		p.until(fmt.Sprintf(`%s[0]?.title === %q`, rows, later.id))
		p.clean(false)
	})
	t.Run("looks well in the dark", func(t *testing.T) {
		p := b.tab(t, f.URL, desktop)
		p.do("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": "dark"}}})
		p.open("/")
		p.submit("superseded", "Which valve holds the pressure?")
		p.until(status + ` === 'completed'`)
		p.until(fits)
		eval[any](p, part("raw")+`.click(), document.querySelector('.job [data-part=more]').click()`)
		p.until(`document.querySelector('.raw tbody').rows.length > 10`)
		if eval[bool](p, `getComputedStyle(document.body).backgroundColor === 'rgb(244, 246, 246)'`) {
			t.Error("the dark page is light")
		}
		p.shot("desktop-dark")
		p.clean(false)
	})
}
