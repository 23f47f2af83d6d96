package simulated

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/penstock-io/penstock/internal/fault"
)

// The bounds of a model's options: a name comes from outside.
const (
	maxTokens  = 1_000_000
	maxWait    = time.Hour
	maxName    = 64  // of a tool
	maxChoices = 128 // that a body may ask for
)

// options are the shape of the load that a model's name asks for.
type options struct {
	tokens int           // of the whole answer
	ttft   time.Duration // before the first chunk
	gap    time.Duration // between chunks
	chunk  int           // tokens in a chunk
	seed   uint64
	fail   float64 // probability that a call fails
	status int     // with which HTTP status it fails
	tool   string  // that is called; "" for none
}

// defaults are what plain "sim" means: an answer at a pace that is pleasant to watch.
func defaults() options {
	return options{tokens: 64, ttft: 50 * time.Millisecond, gap: 20 * time.Millisecond, chunk: 1, seed: 1, status: 500}
}

// parse reads a model's name: "sim", or "sim:" and options, each at most once.
// The error is an InvalidRequest: the model is there, its options are wrong.
func parse(model string) (options, error) {
	o := defaults()
	if model == Name {
		return o, nil
	}
	list, ok := strings.CutPrefix(model, Name+":")
	if !ok {
		return o, fault.Param("model", "model %.80q is not a simulated one: those are %q and %q", model, Name, Name+":tokens=200,…")
	}
	const usage = "the options are tokens, ttft, gap, chunk, seed, fail, error and tool, as in sim:tokens=200,ttft=50ms,gap=20ms,chunk=1,seed=1,fail=0.01,error=429,tool=NAME"
	seen := make([]string, 0, 8)
	for option := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(option, "=")
		want := o.set(name, value)
		if want == unknownOption {
			return o, fault.Param("model", "simulated model: there is no option %.40q; %s", name, usage)
		}
		if want != "" {
			return o, fault.Param("model", "simulated model: %s=%.40q is wrong: it must be %s", name, value, want)
		}
		if slices.Contains(seen, name) {
			return o, fault.Param("model", "simulated model: the option %s is given twice", name)
		}
		seen = append(seen, name)
	}
	if slices.Contains(seen, "error") && !slices.Contains(seen, "fail") {
		o.fail = 1 // a status without a probability: always
	}
	return o, nil
}

// unknownOption is set's answer to a name that is no option.
const unknownOption = "?"

// set takes one option, and says what its value must be if it is not, or
// unknownOption.
func (o *options) set(name, value string) (want string) {
	var ok bool
	switch name {
	case "tokens":
		o.tokens, ok = number(value, 0, maxTokens)
		want = "a number from 0 to 1000000"
	case "chunk":
		o.chunk, ok = number(value, 1, maxTokens)
		want = "a number from 1 to 1000000"
	case "ttft":
		o.ttft, ok = wait(value)
		want = "a time from 0 to 1h, such as 50ms"
	case "gap":
		o.gap, ok = wait(value)
		want = "a time from 0 to 1h, such as 20ms"
	case "seed":
		seed, err := strconv.ParseUint(value, 10, 64)
		o.seed, ok = seed, err == nil
		want = "a whole number, 0 or more"
	case "fail":
		fail, err := strconv.ParseFloat(value, 64)
		o.fail, ok = fail, err == nil && !math.IsNaN(fail) && fail >= 0 && fail <= 1
		want = "a probability from 0 to 1"
	case "error":
		o.status, ok = number(value, 400, 599)
		want = "an HTTP status from 400 to 599"
	case "tool":
		o.tool, ok = value, value != "" && len(value) <= maxName
		want = "the name of one of the body's tools"
	default:
		return unknownOption
	}
	if ok {
		return ""
	}
	return want
}

func number(s string, least, most int) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= least && n <= most
}

func wait(s string) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0 && d <= maxWait
}
