package openai

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/wire"
)

// embed asks for embeddings. The answer is no stream, but it is read as one: of
// its vectors one is held at a time.
func (p *Provider) embed(ctx context.Context, cancel context.CancelFunc, req llm.Request, yield wire.Yield) error {
	inputs, err := llm.Inputs(req.Body)
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	body, err := named(req.Body, req.Model)
	if err != nil {
		return err
	}
	var res *http.Response
	_, err = p.embeddings.New(ctx, openai.EmbeddingNewParams{}, append(raw(body, req, &res), option.WithResponseBodyInto(&res))...)
	if res, err = wire.Head(p.name, res, err); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return wire.Read(res, cancel, func(in io.Reader) error { //nolint:wrapcheck // a fault
		v := vectors{provider: p.name, header: res.Header, want: len(inputs), seen: make([]bool, len(inputs)), yield: yield}
		return v.run(in)
	})
}

// vectors turns an answer of embeddings into chunks.
type vectors struct {
	provider string
	header   http.Header
	want     int    // vectors
	seen     []bool // which of them came
	yield    wire.Yield

	in    meter
	heard bool // a vector came
	usage *llm.Usage
}

// run reads the answer, an object, member by member.
func (v *vectors) run(in io.Reader) error {
	v.in = meter{in: in, left: wire.MaxEventBytes}
	d := jsontext.NewDecoder(&v.in, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if d.PeekKind() != jsontext.KindBeginObject {
		_, err := d.ReadToken()
		return v.broken(err)
	}
	_, err := d.ReadToken()
	for err == nil && d.PeekKind() == jsontext.KindString {
		var name jsontext.Token
		if name, err = d.ReadToken(); err == nil {
			err = v.member(d, name.String())
		}
		v.in.left = wire.MaxEventBytes
	}
	if err == nil {
		_, err = d.ReadToken() // the closing brace
	}
	if err != nil {
		return v.broken(err)
	}
	for i, seen := range v.seen {
		if !seen {
			return fault.New(fault.ProviderError, "%s sent no vector for input %d of %d", v.provider, i, v.want)
		}
	}
	if v.usage == nil {
		return nil
	}
	return v.yield(llm.Chunk{Usage: v.usage})
}

// broken is the fault of an answer that cannot be read on; what is one already,
// or the caller's own end, stays.
func (v *vectors) broken(err error) error {
	if _, ok := errors.AsType[*jsontext.SyntacticError](err); err != nil && !ok && !errors.Is(err, io.EOF) &&
		!errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, wire.ErrTooLarge) && !wire.TimedOut(err) {
		return err
	}
	if errors.Is(err, wire.ErrTooLarge) || v.heard || wire.TimedOut(err) {
		return wire.BrokenOff(v.provider, v.header, true, err) //nolint:wrapcheck // a fault
	}
	return fault.New(fault.ProviderError, "%s answered with %.80q that holds no embeddings", v.provider, v.header.Get("Content-Type"))
}

// member reads one member of the answer.
func (v *vectors) member(d *jsontext.Decoder, name string) error {
	switch {
	case name == "data" && d.PeekKind() == jsontext.KindBeginArray:
		return v.data(d)
	case name == "usage" || name == "error":
		raw, err := d.ReadValue()
		if err != nil {
			return err //nolint:wrapcheck // broken makes a fault of it
		}
		if name == "error" && !wire.Absent(raw) {
			return reported(v.provider, raw)
		}
		var u *llm.Usage
		if name == "usage" && json.Unmarshal(raw, &u, jsontext.AllowDuplicateNames(true)) == nil && u != nil {
			v.usage = u.Told()
		}
		return nil
	default:
		return d.SkipValue() //nolint:wrapcheck // broken makes a fault of it
	}
}

// data reads the vectors. Each gets room of its own.
func (v *vectors) data(d *jsontext.Decoder) error {
	_, err := d.ReadToken()
	for err == nil && d.PeekKind() != jsontext.KindEndArray {
		v.in.left = wire.MaxEventBytes
		var raw jsontext.Value
		if raw, err = d.ReadValue(); err == nil {
			err = v.vector(raw)
		}
	}
	if err == nil {
		_, err = d.ReadToken()
	}
	return err //nolint:wrapcheck // broken makes a fault of it
}

func (v *vectors) vector(raw jsontext.Value) error {
	var w struct {
		Index     int            `json:"index"`
		Embedding jsontext.Value `json:"embedding"`
	}
	err := json.Unmarshal(raw, &w, jsontext.AllowDuplicateNames(true))
	if err != nil || !isVector(w.Embedding) {
		return fault.Wrap(err, fault.ProviderError, "%s sent an embedding that is neither numbers nor text", v.provider)
	}
	if w.Index < 0 || w.Index >= v.want {
		return fault.New(fault.ProviderError, "%s sent a vector for input %d: they go from 0 to %d", v.provider, w.Index, v.want-1)
	}
	if v.seen[w.Index] {
		return fault.New(fault.ProviderError, "%s sent two vectors for input %d", v.provider, w.Index)
	}
	v.seen[w.Index], v.heard = true, true
	return v.yield(llm.Chunk{Index: w.Index, Embedding: w.Embedding})
}

// isVector tells whether v is what encoding_format may ask for: base64 text, or
// an array of numbers.
func isVector(v jsontext.Value) bool {
	if v.Kind() == jsontext.KindString {
		return v.IsValid()
	}
	var numbers []float64
	return v.Kind() == jsontext.KindBeginArray && json.Unmarshal(v, &numbers) == nil
}

// meter is a reader that gives only so much until it is told to go on.
type meter struct {
	in   io.Reader
	left int
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, wire.ErrTooLarge
	}
	n, err := m.in.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err //nolint:wrapcheck // a reader's own
}
