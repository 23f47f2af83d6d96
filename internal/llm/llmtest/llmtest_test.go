package llmtest

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a provider that keeps every promise but those that its flags break.
type script struct {
	deaf          bool // does not look at ctx
	foreignError  bool // cancels with an error of its own
	noFinish      bool
	noUsage       bool
	twoUsages     bool
	otherChoice   bool
	talksOn       bool // after its finish
	talksOnFailed bool // after its error
	failsWithText bool // a chunk beside the error
	plainError    bool
	wrongCode     bool
	noMessage     bool
	neverFails    bool
	failsAlways   bool
	oneUse        bool // the sequence says something else the second time
	onePiece      bool
	badUsage      bool
	lingers       bool // slow to be broken off
	wholeAgain    bool // continues from the start
	refusesPrefix bool
	failsPrefix   bool
	crosstalk     bool // later calls say something else
	calls         atomic.Int32
}

func (*script) Name() string { return "script" }

func (s *script) Stream(ctx context.Context, req llm.Request) iter.Seq2[llm.Chunk, error] {
	return s.from(ctx, req, "")
}

func (s *script) CanContinue(llm.Request, llm.Prefix) bool { return !s.refusesPrefix }

func (s *script) Continue(ctx context.Context, req llm.Request, prefix llm.Prefix) iter.Seq2[llm.Chunk, error] {
	if s.wholeAgain {
		return s.from(ctx, req, "")
	}
	if s.failsPrefix {
		return func(yield func(llm.Chunk, error) bool) { yield(llm.Chunk{}, errors.New("no")) }
	}
	return s.from(ctx, req, prefix.Content)
}

func (s *script) from(ctx context.Context, req llm.Request, prefix string) iter.Seq2[llm.Chunk, error] {
	uses := 0
	return func(yield func(llm.Chunk, error) bool) {
		uses++
		calls := s.calls.Add(1)
		if err := ctx.Err(); err != nil && !s.deaf {
			yield(llm.Chunk{}, s.ended(err))
			return
		}
		if req.Model == "bad" && !s.neverFails || s.failsAlways {
			s.fail(yield)
			return
		}
		words := []string{"one", " two", " three", " four"}
		if s.onePiece {
			words = []string{strings.Join(words, "")}
		}
		if s.oneUse && uses > 1 || s.crosstalk && calls > 1 {
			words[0] = "uno"
		}
		for i, w := range words {
			if strings.HasPrefix(prefix, w) {
				prefix = prefix[len(w):]
				continue
			}
			slow := req.Model == "slow" && i > 0
			if slow && !s.pause(ctx, yield) {
				return
			}
			c := llm.Chunk{Content: w}
			if s.otherChoice {
				c.Index = 1
			}
			if !yield(c, nil) {
				if s.lingers {
					<-time.After(time.Minute)
				}
				return
			}
		}
		s.end(yield)
	}
}

func (s *script) pause(ctx context.Context, yield func(llm.Chunk, error) bool) bool {
	if s.deaf {
		<-time.After(time.Hour)
		return true
	}
	select {
	case <-ctx.Done():
		yield(llm.Chunk{}, s.ended(ctx.Err()))
		return false
	case <-time.After(time.Hour):
		return true
	}
}

func (s *script) ended(err error) error {
	if s.foreignError {
		return errors.New("stream closed")
	}
	return err
}

func (s *script) fail(yield func(llm.Chunk, error) bool) {
	err := error(fault.New(fault.RateLimited, "slow down"))
	switch {
	case s.plainError:
		err = errors.New("429")
	case s.wrongCode:
		err = fault.New(fault.Internal, "oh")
	case s.noMessage:
		err = fault.New(fault.RateLimited, "")
	}
	c := llm.Chunk{}
	if s.failsWithText {
		c.Content = "half"
	}
	if yield(c, err) && s.talksOnFailed {
		yield(llm.Chunk{Content: "more"}, nil)
	}
}

func (s *script) end(yield func(llm.Chunk, error) bool) {
	usage := &llm.Usage{PromptTokens: 1, CompletionTokens: 4, TotalTokens: 5}
	if s.badUsage {
		usage.TotalTokens = 4
	}
	c := llm.Chunk{FinishReason: "stop"}
	if s.noFinish {
		c.FinishReason = ""
	}
	if !yield(c, nil) {
		return
	}
	if s.talksOn && !yield(llm.Chunk{Content: "and"}, nil) {
		return
	}
	if s.noUsage || !yield(llm.Chunk{Usage: usage}, nil) {
		return
	}
	if s.twoUsages {
		yield(llm.Chunk{Usage: usage}, nil)
	}
}

func options() Options {
	return Options{
		Request: llm.Request{Model: "good"},
		Slow:    llm.Request{Model: "slow"},
		Failing: []Failure{{"bad", llm.Request{Model: "bad"}, fault.RateLimited}},
		Bound:   2 * time.Second,
	}
}

func TestAGoodProviderPasses(t *testing.T) {
	for _, bubble := range []bool{true, false} {
		settled := 0
		o := options()
		o.Bubble = bubble
		o.Bound = 0
		o.Settle = func(llm.Provider) { settled++ }
		Run(t, func(*testing.T) llm.Provider { return &script{} }, o)
		if want := len(checks()); !bubble && settled != want {
			t.Errorf("settled %d times, want %d", settled, want)
		}
	}
}

// plain hides that the script can continue.
type plain struct{ llm.Provider }

func TestAProviderThatCannotContinueIsNotAskedTo(t *testing.T) {
	if err := continues(t.Context(), plain{&script{wholeAgain: true}}, options()); err != nil {
		t.Error(err)
	}
}

func TestEveryBrokenPromiseIsSeen(t *testing.T) {
	for name, broken := range map[string]struct {
		provider *script
		check    func(context.Context, llm.Provider, Options) error
		want     string
	}{
		"no finish reason":         {&script{noFinish: true}, ends, "without a finish reason"},
		"no usage":                 {&script{noUsage: true}, ends, "usage came 0 times"},
		"usage twice":              {&script{twoUsages: true}, ends, "usage came 2 times"},
		"usage that does not add":  {&script{badUsage: true}, ends, "must be the sum"},
		"another choice":           {&script{otherChoice: true}, ends, "chunk of choice 1"},
		"talk after the finish":    {&script{talksOn: true}, ends, "after the finish reason"},
		"all in one piece":         {&script{onePiece: true}, ends, "in 1 pieces"},
		"says something else":      {&script{oneUse: true}, again, "the second time"},
		"fails at once":            {&script{failsAlways: true}, again, "slow down"},
		"deaf to cancel":           {&script{deaf: true}, cancelled, "want ctx's error"},
		"cancel as its own error":  {&script{foreignError: true}, cancelled, "want ctx's error"},
		"no first chunk":           {&script{failsAlways: true}, cancelled, "gave no chunk"},
		"begins though cancelled":  {&script{deaf: true}, cancelledBefore, "want ctx's error"},
		"slow to break off":        {&script{lingers: true}, brokenOff, "to break off"},
		"fails where it should go": {&script{failsAlways: true}, brokenOff, "slow down"},
		"talk after an error":      {&script{talksOnFailed: true}, fails, "after the error"},
		"a chunk beside an error":  {&script{failsWithText: true}, fails, "beside the error"},
		"not a fault":              {&script{plainError: true}, fails, "no *fault.Error"},
		"another code":             {&script{wrongCode: true}, fails, "want rate_limited"},
		"a fault without message":  {&script{noMessage: true}, fails, "has no message"},
		"no failure":               {&script{neverFails: true}, fails, "it succeeded"},
		"calls that mix":           {&script{crosstalk: true}, concurrent, "among others"},
		"concurrent failures":      {&script{wrongCode: true}, concurrent, "want rate_limited"},
		"failing alone":            {&script{failsAlways: true}, concurrent, "slow down"},
		"the prefix again":         {&script{wholeAgain: true}, continues, "after 1 chunks it said"},
		"a prefix refused":         {&script{refusesPrefix: true}, continues, "cannot continue"},
		"a prefix that fails":      {&script{failsPrefix: true}, continues, "after 0 chunks: no"},
		"nothing to continue":      {&script{failsAlways: true}, continues, "slow down"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := broken.check(t.Context(), broken.provider, options())
				if err == nil || !strings.Contains(err.Error(), broken.want) {
					t.Errorf("the check said %v, want it to speak of %q", err, broken.want)
				}
			})
		})
	}
}
