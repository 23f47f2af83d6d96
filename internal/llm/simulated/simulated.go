// Package simulated is a model that costs nothing: it says readable nonsense at
// the pace that its name asks for, and fails as often as it asks for.
//
// The name is "sim", or "sim:" and any of these options:
//
//	tokens=64    tokens of the whole answer, 0 to 1000000; 0 ends at once, without a wait
//	ttft=50ms    wait before the first chunk, 0 to 1h
//	gap=20ms     time from chunk to chunk, 0 to 1h; what is late is caught up
//	chunk=1      tokens in a chunk
//	seed=1       what is said follows from the seed and the prompt alone
//	fail=0       probability that a call fails, 0 to 1
//	error=500    HTTP status of the failure, 400 to 599; without fail every call fails
//	tool=NAME    call this one of the body's tools, unless the last message is a tool's result
//
// A token is a word with the space before it; the chunks' contents put together
// are the text. The body's max_tokens, max_completion_tokens or
// max_output_tokens cuts the answer short, with finish reason "length". Of n
// choices each says something else, in turn. A tool's arguments are made up by
// its parameters' schema. Prompt tokens are the words of the messages (or prompt,
// input, instructions, system).
//
// On /v1/embeddings it gives each input a vector of length 1, of 64 numbers or as
// many as the body's dimensions asks for; the same text has the same vector.
//
// Whether a call fails follows from the seed, the prompt, the job and the
// attempt: a test sees the same twice, a retry of the job draws again. A 4xx
// comes in place of the first chunk; a 5xx or 408 anywhere in the answer, as a
// stream breaks.
//
// A Provider starts no goroutine and, where nothing is waited for, no timer.
package simulated

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

// Name is the provider's name, and the bare name of its plain model.
const Name = "sim"

// Provider is the simulated provider. It holds the words, and what a call would
// have to make anew. It may be used from several goroutines.
type Provider struct {
	lex      *lexicon
	last     atomic.Pointer[parsed] // the name that was asked for last is likely to be asked for next
	decoders sync.Pool              // of *jsontext.Decoder
}

// parsed is what a model's name says.
type parsed struct {
	name string
	options
}

var (
	_ llm.Continuer = (*Provider)(nil)
	_ llm.BareNamer = (*Provider)(nil)
)

// New makes the provider.
func New() *Provider { return &Provider{lex: newLexicon()} }

// Name implements llm.Provider: "sim".
func (*Provider) Name() string { return Name }

// HasModel implements llm.BareNamer: "sim", and "sim:" with options, right or
// wrong; Stream says what is wrong with them.
func (*Provider) HasModel(model string) bool {
	return model == Name || strings.HasPrefix(model, Name+":")
}

// BareNames implements llm.BareNamer.
func (*Provider) BareNames() []string { return []string{Name} }

// Stream implements llm.Provider. Errors are InvalidRequest for a wrong name or
// limit, InvalidJSON for a body that is no JSON object, what llm.CodeForStatus
// makes of the option error, and ctx's.
func (p *Provider) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return p.Continue(ctx, req, llm.Prefix{})
}

// CanContinue implements llm.Continuer: the prefix must be how this answer
// begins, to the byte, at a token's border or not.
// Of several choices and of a tool call none can be.
func (p *Provider) CanContinue(req llm.Request, prefix llm.Prefix) bool {
	if req.Endpoint == llm.Embeddings {
		return false
	}
	a, err := p.answer(req)
	return err == nil && a.continues(prefix)
}

// Continue implements llm.Continuer. The usage is that of the whole answer, so
// that a continued one ends as an unbroken one. A prefix that CanContinue would
// refuse is an Internal fault.
func (p *Provider) Continue(ctx context.Context, req llm.Request, prefix llm.Prefix) iter.Seq2[llm.Chunk, error] {
	return func(yield func(llm.Chunk, error) bool) {
		if req.Endpoint != "" && req.Endpoint != llm.ChatCompletions && req.Endpoint != llm.Embeddings {
			yield(llm.Chunk{}, fault.Param("endpoint", "endpoint %.80q is not served by simulated models: it must be %s or %s", req.Endpoint, llm.ChatCompletions, llm.Embeddings))
			return
		}
		a, err := p.answer(req)
		if err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		if req.Endpoint == llm.Embeddings {
			a.embed(ctx, req.Body, yield)
			return
		}
		if !a.continues(prefix) {
			yield(llm.Chunk{}, fault.New(fault.Internal, "the simulated model was asked to go on from what it did not say"))
			return
		}
		a.run(ctx, yield)
	}
}

// answer is one call: what will be said, and how far it is.
type answer struct {
	options
	prose
	limit   int    // tokens to say, total or fewer
	failAt  int    // the token in place of which the call fails, or -1
	pending string // the rest of a token that a prefix cut in two
	words   int    // of the prompt
	others  []prose
	called  []string  // the pieces of a tool call's arguments; nil for a text
	due     time.Time // when the newest wait was to end
	timer   *time.Timer
}

func (p *Provider) options(model string) (options, error) {
	if last := p.last.Load(); last != nil && last.name == model {
		return last.options, nil
	}
	o, err := parse(model)
	if err == nil {
		p.last.Store(&parsed{model, o})
	}
	return o, err
}

func (p *Provider) read(body []byte) (prompt, error) {
	d, _ := p.decoders.Get().(*jsontext.Decoder)
	if d == nil {
		d = new(jsontext.Decoder)
	}
	defer p.decoders.Put(d)
	d.Reset(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true))
	return readPrompt(d)
}

func (p *Provider) answer(req llm.Request) (*answer, error) {
	o, err := p.options(req.Model)
	if err != nil {
		return nil, err
	}
	in, err := p.read(req.Body)
	if err != nil {
		return nil, err
	}
	topic := in.hash.number(o.seed)
	a := &answer{
		options: o,
		prose:   prose{lex: p.lex, state: uint64(topic), total: o.tokens},
		limit:   o.tokens,
		failAt:  -1,
		words:   in.words,
	}
	if in.limited {
		a.limit = min(a.limit, in.limit)
	}
	for i := 1; i < in.choices; i++ {
		another := topic.number(uint64(i))
		a.others = append(a.others, prose{lex: p.lex, state: uint64(another), total: o.tokens})
	}
	if o.tool != "" && !in.result && string(in.choice) != `"none"` && req.Endpoint != llm.Embeddings {
		if err := a.call(in.tools); err != nil {
			return nil, err
		}
	}
	if o.fail > 0 {
		attempt := uint64(req.Attempt) //nolint:gosec // any number will do
		luck := mix(uint64(topic.text(req.Job).number(attempt)))
		if float64(luck>>11)/(1<<53) < o.fail {
			a.failAt = 0
			if (o.status >= 500 || o.status == 408) && a.limit > 0 {
				a.failAt = int(mix(luck) >> 33 % uint64(a.limit)) //nolint:gosec // below limit, which is an int
			}
		}
	}
	return a, nil
}

// continues goes behind the prefix, and says whether it can.
func (a *answer) continues(prefix llm.Prefix) bool {
	if len(a.others) > 0 || a.called != nil {
		return prefix == llm.Prefix{}
	}
	return prefix.Reasoning == "" && a.skip(prefix.Content)
}

// skip goes to the place after text, and says whether the answer begins so.
func (a *answer) skip(text string) bool {
	var buf [64]byte
	for text != "" {
		if a.said == a.limit {
			return false
		}
		token := string(a.next(buf[:0]))
		rest, whole := strings.CutPrefix(text, token)
		if !whole {
			a.pending, whole = strings.CutPrefix(token, text)
			return whole
		}
		text = rest
	}
	return true
}

// run says what is left.
func (a *answer) run(ctx context.Context, yield func(llm.Chunk, error) bool) {
	pause := a.ttft
	if a.tokens == 0 {
		pause = 0
	}
	if a.ttft > 0 || a.gap > 0 {
		a.due = time.Now()
		defer a.stop()
	}
	var room [64]byte
	buf := room[:0]
	for {
		if err := a.wait(ctx, pause); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		if a.failAt >= 0 && a.failAt < a.said+a.chunk {
			yield(llm.Chunk{}, a.failure())
			return
		}
		if a.called != nil {
			a.sayCall(ctx, yield)
			return
		}
		buf = append(buf[:0], a.pending...)
		a.pending = ""
		for n := 0; n < a.chunk && a.said < a.limit; n++ {
			buf = a.next(buf)
		}
		c := llm.Chunk{Content: string(buf)}
		last := a.said == a.limit
		if last {
			c.FinishReason = a.reason()
		}
		if last && len(a.others) == 0 {
			c.Usage = a.usage()
		}
		if !yield(c, nil) || !a.sayOthers(yield) || last {
			return
		}
		pause = a.gap
	}
}

// sayOthers has the other choices say as much as the first has said.
func (a *answer) sayOthers(yield func(llm.Chunk, error) bool) bool {
	for i := range a.others {
		o := &a.others[i]
		var buf []byte
		for o.said < a.said {
			buf = o.next(buf)
		}
		c := llm.Chunk{Index: i + 1, Content: string(buf)}
		if a.said == a.limit {
			c.FinishReason = a.reason()
			if i == len(a.others)-1 {
				c.Usage = a.usage()
			}
		}
		if !yield(c, nil) {
			return false
		}
	}
	return true
}

func (a *answer) failure() error {
	return fault.New(llm.CodeForStatus(a.status), "the simulated model failed with %d, as its name asks for (fail=%g)", a.status, a.fail)
}

func (a *answer) reason() string {
	if a.limit < a.total {
		return "length"
	}
	return "stop"
}

// usage counts what all choices say.
func (a *answer) usage() *llm.Usage {
	said := a.limit * (1 + len(a.others))
	return &llm.Usage{PromptTokens: a.words, CompletionTokens: said, TotalTokens: a.words + said}
}

// wait lets d pass from when the last wait was to end, or ctx end: a model speaks at
// its own pace, and what was late, by a timer or by who listens, is caught up. One
// timer serves a whole call.
func (a *answer) wait(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil || d <= 0 {
		return err
	}
	a.due = a.due.Add(d)
	if d = time.Until(a.due); d <= 0 {
		return nil
	}
	if a.timer == nil {
		a.timer = time.NewTimer(d)
	} else {
		a.timer.Reset(d)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.timer.C:
		return nil
	}
}

func (a *answer) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}
