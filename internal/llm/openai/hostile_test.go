package openai_test

import (
	"testing"

	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/llm/openai"
)

func TestServersThatMisbehave(t *testing.T) {
	llmtest.RunHostile(t, llmtest.Hostile{
		Open: func(t *testing.T, url string) llm.Provider {
			t.Helper()
			p, err := openai.New(openai.Config{BaseURL: url, Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			return p
		},
		Settle:  func(p llm.Provider) { p.(*openai.Provider).Close() },
		Request: request("m"),
		Begin:   "data: " + role + "\n\n",
		Text: func(text string) string {
			return "data: " + `{"choices":[{"index":0,"delta":{"content":"` + text + `"}}]}` + "\n\n"
		},
		Finish: "data: " + finish + "\n\ndata: " + usage + "\n\n",
		Done:   "data: [DONE]\n\n",
		Line:   "data: ",
	})
}
