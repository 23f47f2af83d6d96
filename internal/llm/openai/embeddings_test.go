package openai_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/llm/openai"
)

func embedding(body string) llm.Request {
	return llm.Request{Job: "job_1", Attempt: 1, Endpoint: llm.Embeddings, Model: "m", Body: []byte(body)}
}

func TestEmbeddingsComeVectorByVector(t *testing.T) {
	f := serve(t, map[string]script{"m": refuse(200, nil, `{"object":"list","error":null,"data":[
		{"object":"embedding","index":1,"embedding":[0.5,-1e-3]},{"object":"embedding","index":0,"embedding":"AACAPw=="}],
		"model":"m","usage":{"prompt_tokens":5,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1},"completion_tokens_details":null}}`)})
	p := f.provider(t, openai.Config{})
	got, err := llmtest.Listen(t, p, embedding(`{"model":"p/m", "input":["a",[1,2]],"dimensions":2,"penstock":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []llm.Chunk{
		{Index: 1, Embedding: []byte(`[0.5,-1e-3]`)},
		{Embedding: []byte(`"AACAPw=="`)},
		{Usage: &llm.Usage{PromptTokens: 5, TotalTokens: 5, PromptTokensDetails: []byte(`{"cached_tokens":1}`)}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if a := f.Last(t); a.Path != "/v1/embeddings" || a.Body != `{"input":["a",[1,2]],"dimensions":2,"model":"m"}` {
		t.Errorf("%s: %s", a.Path, a.Body)
	}
	for _, err := range p.Stream(t.Context(), embedding(`{"model":"p/m","input":["a","b"]}`)) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}

func TestAnswersThatAreNoEmbeddingsAreFaults(t *testing.T) {
	vector := func(index int, v string) string { return fmt.Sprintf(`{"index":%d,"embedding":%s}`, index, v) }
	for name, c := range map[string]struct {
		play script
		says string
	}{
		"one too few":       {refuse(200, nil, `{"data":[`+vector(0, "[1]")+`]}`), "no vector for input 1 of 2"},
		"no data":           {refuse(200, nil, `{"object":"list"}`), "no vector for input 0"},
		"one twice":         {refuse(200, nil, `{"data":[`+vector(0, "[1]")+`,`+vector(0, "[1]")+`]}`), "two vectors for input 0"},
		"one too many":      {refuse(200, nil, `{"data":[`+vector(2, "[1]")+`]}`), "for input 2: they go from 0 to 1"},
		"words":             {refuse(200, nil, `{"data":[`+vector(0, `["x"]`)+`]}`), "neither numbers nor text"},
		"an object":         {refuse(200, nil, `{"data":[`+vector(0, `{}`)+`]}`), "neither numbers nor text"},
		"a page":            {refuse(200, map[string]string{"Content-Type": "text/html"}, `<html>`), `"text/html" that holds no embeddings`},
		"an array":          {refuse(200, nil, `[]`), "holds no embeddings"},
		"nothing":           {refuse(200, nil, ``), "holds no embeddings"},
		"cut off":           {then(raw(`{"data":[`+vector(0, "[1]")+`,{"ind`), breaks), "broke off"},
		"an error":          {refuse(200, nil, `{"error":{"message":"the card is hot"}}`), "the card is hot"},
		"an endless vector": {refuse(200, nil, `{"data":[{"embedding":[`+strings.Repeat("1,", 3<<20)), "more than 4194304 bytes"},
		"a refusal":         {refuse(500, nil, `{"error":{"message":"oh"}}`), "status 500: oh"},
	} {
		_, err := faulty(t, serve(t, map[string]script{"m": c.play}).provider(t, openai.Config{}), embedding(`{"model":"m","input":["a","b"]}`))
		if err.Code != fault.ProviderError || !strings.Contains(err.Message, c.says) {
			t.Errorf("%s: %v, want it to say %s", name, err, c.says)
		}
	}
	for body, code := range map[string]fault.Code{`{}`: fault.InvalidRequest, `{"input":[`: fault.InvalidJSON} {
		if _, err := faulty(t, serve(t, nil).provider(t, openai.Config{}), embedding(body)); err.Code != code {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// A long answer is read vector by vector, and none of it is held.
func TestManyVectorsAreNotHeld(t *testing.T) {
	long := "[" + strings.Repeat("0.123456789,", 4000) + "0]"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"data":[`)
		for i := range 500 {
			_, _ = fmt.Fprintf(w, `%s{"index":%d,"embedding":%s}`, strings.Repeat(",", min(i, 1)), i, long)
		}
		_, _ = fmt.Fprint(w, `]}`)
	}))
	defer s.Close()
	p, err := openai.New(openai.Config{BaseURL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	n := 0
	for c, err := range p.Stream(t.Context(), embedding(`{"input":[`+strings.Repeat(`"x",`, 499)+`"x"]}`)) {
		if err != nil || c.Index != n || string(c.Embedding) != long {
			t.Fatalf("vector %d: %.40s, %v", n, c.Embedding, err)
		}
		n++
	}
	if n != 500 {
		t.Errorf("%d vectors", n)
	}
}

func TestARefusalKeepsTheServersFieldAndCode(t *testing.T) {
	p := serve(t, map[string]script{"m": refuse(400, nil, `{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`)}).provider(t, openai.Config{})
	_, err := faulty(t, p, request("m"))
	if err.Param != "messages" || err.Message != "openai answered with status 400 (context_length_exceeded): too long" {
		t.Errorf("%s: %s", err.Param, err.Message)
	}
}
