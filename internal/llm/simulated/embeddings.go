package simulated

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/integer"
	"github.com/penstock-io/penstock/internal/llm"
)

const (
	defaultDimensions = 64
	maxDimensions     = 4096
)

// embed gives each input its vector, the first after the wait of the model's
// name.
func (a *answer) embed(ctx context.Context, body []byte, yield func(llm.Chunk, error) bool) {
	defer a.stop()
	inputs, dimensions, pack, err := embedding(body)
	if err == nil {
		err = a.wait(ctx, a.ttft)
	}
	if err == nil && a.failAt >= 0 {
		err = a.failure()
	}
	if err != nil {
		yield(llm.Chunk{}, err)
		return
	}
	for i, in := range inputs {
		if err := ctx.Err(); err != nil {
			yield(llm.Chunk{}, err)
			return
		}
		v := vector(hashStart.text(text(in)).number(a.seed), dimensions)
		c := llm.Chunk{Index: i, Embedding: numbers(v)}
		if pack {
			c.Embedding = packed(v)
		}
		if !yield(c, nil) {
			return
		}
	}
	yield(llm.Chunk{Usage: &llm.Usage{PromptTokens: a.words, TotalTokens: a.words}}, nil)
}

// embedding reads what an embeddings body asks for.
func embedding(body []byte) (inputs []jsontext.Value, dimensions int, pack bool, err error) {
	if inputs, err = llm.Inputs(body); err != nil {
		return nil, 0, false, err //nolint:wrapcheck // a fault
	}
	var b struct {
		Dimensions     jsontext.Value `json:"dimensions"`
		EncodingFormat jsontext.Value `json:"encoding_format"`
	}
	_ = json.Unmarshal(body, &b, jsontext.AllowDuplicateNames(true)) // Inputs has read it
	switch string(b.EncodingFormat) {
	case "", "null", `""`, `"float"`:
	case `"base64"`:
		pack = true
	default:
		return nil, 0, false, fault.Param("encoding_format", "encoding_format must be float or base64")
	}
	dimensions = defaultDimensions
	if len(b.Dimensions) > 0 && b.Dimensions.Kind() != jsontext.KindNull {
		n, ok := integer.Parse(b.Dimensions)
		if dimensions = int(n); !ok || n < 1 || n > maxDimensions {
			return nil, 0, false, fault.Param("dimensions", "dimensions must be a whole number from 1 to %d", maxDimensions)
		}
	}
	return inputs, dimensions, pack, nil
}

// text is an input's own text; tokens stand for themselves.
func text(in jsontext.Value) string {
	if in.Kind() != jsontext.KindString {
		return string(in)
	}
	s, _ := jsontext.AppendUnquote(nil, in) // the decoder has seen it
	return string(s)
}

// vector draws a vector of length 1.
func vector(h hash, dimensions int) []float32 {
	p := prose{state: uint64(h)}
	v := make([]float32, dimensions)
	sum := 0.0
	for i := range v {
		x := float64(p.draw(1<<20)-1<<19) + 0.5 // never 0
		v[i], sum = float32(x), sum+x*x
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

func numbers(v []float32) jsontext.Value {
	out := []byte{'['}
	for i, x := range v {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendFloat(out, float64(x), 'g', -1, 32)
	}
	return append(out, ']')
}

// packed is a vector as base64 of its little-endian float32s.
func packed(v []float32) jsontext.Value {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return jsontext.Value(`"` + base64.StdEncoding.EncodeToString(raw) + `"`)
}
