package simulated_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
)

const tooled = `"tools":[{"type":"function","function":{"name":"now"}},{"type":"function","function":{"name":"weather","parameters":{"type":"object",
	"properties":{"city":{"type":"string"},"größe":{"enum":["kl\u00e4in"]},"days":{"type":"integer"},"dry":{"type":"boolean"},"of":{"type":"array"},"no":{"type":"null"},"in":{"required":["x"]},"left":{"type":"string"}},
	"required":["city","größe","days","dry","of","no","in"]}}}]`

// heard gives all chunks of a call.
func heard(t *testing.T, req llm.Request) (chunks []llm.Chunk, err error) {
	t.Helper()
	for c, e := range simulated.New().Stream(t.Context(), req) {
		if e != nil {
			return chunks, e
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}

// called puts a tool call together.
func called(t *testing.T, chunks []llm.Chunk) (id, name, arguments string) {
	t.Helper()
	for _, c := range chunks {
		var calls []struct {
			ID       string
			Function struct{ Name, Arguments string }
		}
		if c.ToolCalls == nil {
			continue
		}
		if err := json.Unmarshal(c.ToolCalls, &calls, json.MatchCaseInsensitiveNames(true)); err != nil || len(calls) != 1 {
			t.Fatalf("%s: %v", c.ToolCalls, err)
		}
		id, name, arguments = id+calls[0].ID, name+calls[0].Function.Name, arguments+calls[0].Function.Arguments
	}
	return id, name, arguments
}

func TestItCallsTheToolThatItsNameAsksFor(t *testing.T) {
	for chunk, shape := range []string{"sim:tool=weather,ttft=0,gap=0", "sim:tool=weather,ttft=0,gap=0,chunk=9"} {
		chunks, err := heard(t, request(shape, `{"messages":[{"role":"user","content":"hi there"}],`+tooled+`}`))
		if err != nil {
			t.Fatal(err)
		}
		id, name, arguments := called(t, chunks)
		var args map[string]any
		if err := json.Unmarshal([]byte(arguments), &args); err != nil {
			t.Fatalf("%s: %v", arguments, err)
		}
		if len(args) != 7 || args["größe"] != "kläin" || args["dry"] != true || args["city"] == "" || !strings.HasPrefix(id, "call_") || name != "weather" {
			t.Errorf("%s called %s(%s)", id, name, arguments)
		}
		last := chunks[len(chunks)-1]
		if last.FinishReason != "tool_calls" || last.Usage.PromptTokens != 2 || last.Usage.CompletionTokens < 3 || chunk == 0 && len(chunks) < 10 {
			t.Errorf("%d chunks, the last %+v", len(chunks), last)
		}
	}
	if _, name, arguments := called(t, first(heard(t, request("sim:tool=now,ttft=0,gap=0", `{`+tooled+`}`)))); name != "now" || arguments != "{}" {
		t.Errorf("it called %s(%s)", name, arguments)
	}
}

func first(chunks []llm.Chunk, _ error) []llm.Chunk { return chunks }

func TestItCallsNoToolWhereTextIsDue(t *testing.T) {
	for _, body := range []string{
		`{` + tooled + `,"messages":[{"role":"user","content":"hi"},{"role":"tool","content":"sunny"}]}`,
		`{` + tooled + `,"tool_choice":"none"}`,
	} {
		if got := text(t, "sim:tool=weather,tokens=3,ttft=0,gap=0", body); len(strings.Fields(got)) != 3 {
			t.Errorf("%s: %q", body, got)
		}
	}
	for body, param := range map[string]string{
		`{}`: "tools", `{"tools":[{"function":{"name":"other"}}]}`: "tools", `{"tools":7}`: "",
	} {
		_, err := heard(t, request("sim:tool=weather,ttft=0,gap=0", body))
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.InvalidRequest || f.Param != param {
			t.Errorf("%s: %v", body, err)
		}
	}
	p := simulated.New()
	req := request("sim:tool=now,ttft=0,gap=0", `{`+tooled+`}`)
	if p.CanContinue(req, llm.Prefix{Content: "T"}) || !p.CanContinue(req, llm.Prefix{}) {
		t.Error("a tool call is continued from text, or not from nothing")
	}
}

func TestManyChoicesTakeTurns(t *testing.T) {
	chunks, err := heard(t, request("sim:tokens=4,chunk=2,ttft=0,gap=0", `{"n":3,"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var order []int
	texts := make([]string, 3)
	for i, c := range chunks {
		order = append(order, c.Index)
		texts[c.Index] += c.Content
		if (c.FinishReason == "stop") != (i >= 3) || (c.Usage != nil) != (i == 5) {
			t.Errorf("chunk %d: %+v", i, c)
		}
	}
	if diff := cmp.Diff([]int{0, 1, 2, 0, 1, 2}, order); diff != "" || texts[0] == texts[1] || texts[1] == texts[2] {
		t.Errorf("%q %s", texts, diff)
	}
	if u := chunks[5].Usage; u.CompletionTokens != 12 || u.TotalTokens != 13 {
		t.Errorf("%+v", u)
	}
	if one := text(t, "sim:tokens=4,chunk=2,ttft=0,gap=0", `{"messages":[{"role":"user","content":"hi"}]}`); one != texts[0] {
		t.Errorf("the first says %q, alone %q", texts[0], one)
	}
	if simulated.New().CanContinue(request("sim", `{"n":2}`), llm.Prefix{Content: "The"}) {
		t.Error("many are continued")
	}
	for _, n := range []string{"0", "129", "1.5", `"2"`} {
		_, err := heard(t, request("sim", `{"n":`+n+`}`))
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Param != "n" {
			t.Errorf("n=%s: %v", n, err)
		}
	}
}

func embeddings(model, body string) llm.Request {
	req := request(model, body)
	req.Endpoint = llm.Embeddings
	return req
}

func TestTheSameTextHasTheSameVector(t *testing.T) {
	const model = "sim:ttft=0"
	chunks, err := heard(t, embeddings(model, `{"input":["one text","another","one text",[1,2]]}`))
	if err != nil || len(chunks) != 5 {
		t.Fatalf("%+v, %v", chunks, err)
	}
	for i, c := range chunks[:4] {
		var v []float64
		if err := json.Unmarshal(c.Embedding, &v); err != nil || c.Index != i || len(v) != 64 {
			t.Fatalf("%+v: %v", c, err)
		}
		sum := 0.0
		for _, x := range v {
			sum += x * x
		}
		if math.Abs(sum-1) > 1e-5 {
			t.Errorf("vector %d has the length %g", i, math.Sqrt(sum))
		}
	}
	if string(chunks[0].Embedding) != string(chunks[2].Embedding) || string(chunks[0].Embedding) == string(chunks[1].Embedding) {
		t.Error("one text has two vectors, or two have one")
	}
	if diff := cmp.Diff(llm.Chunk{Usage: &llm.Usage{PromptTokens: 5, TotalTokens: 5}}, chunks[4]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	packed, err := heard(t, embeddings(model, `{"input":"one text","encoding_format":"base64","dimensions":6.4e1}`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Trim(string(packed[0].Embedding), `"`))
	var want []float32
	if err2 := json.Unmarshal(chunks[0].Embedding, &want); err != nil || err2 != nil || len(raw) != 256 {
		t.Fatalf("%d bytes, %v, %v", len(raw), err, err2)
	}
	for i, x := range want {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])); got != x {
			t.Errorf("number %d is %g as base64, %g as text", i, got, x)
		}
	}
}

func TestABadEmbeddingsRequestIsRefusedByName(t *testing.T) {
	for body, param := range map[string]string{
		`{}`: "input", `{"input":[]}`: "input", `{"input":{}}`: "input", `{"input":[true]}`: "input",
		`{"input":[` + strings.Repeat(`"x",`, 2048) + `"x"]}`: "input",
		`{"input":"x","dimensions":0}`:                        "dimensions", `{"input":"x","dimensions":5000}`: "dimensions", `{"input":"x","dimensions":1.5}`: "dimensions",
		`{"input":"x","encoding_format":"int8"}`: "encoding_format",
	} {
		_, err := heard(t, embeddings("sim:ttft=0", body))
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.InvalidRequest || f.Param != param {
			t.Errorf("%.80s: %v", body, err)
		}
	}
	_, err := heard(t, embeddings("sim:ttft=0,error=429", `{"input":"x"}`))
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != fault.RateLimited {
		t.Error(err)
	}
	other := request("sim", `{}`)
	other.Endpoint = "/v1/completions"
	_, err = heard(t, other)
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Param != "endpoint" {
		t.Error(err)
	}
	if simulated.New().CanContinue(embeddings("sim", `{"input":"x"}`), llm.Prefix{}) {
		t.Error("vectors are continued")
	}
}
