package openai_test

import (
	"testing"

	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
	"github.com/penstock-io/penstock/internal/llm/openai"
)

func TestAServerIsAskedWhetherItAnswers(t *testing.T) {
	t.Parallel()
	llmtest.Checks(t, func(url, key string) (llm.Checker, func()) {
		p, err := openai.New(openai.Config{BaseURL: url, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return p, p.Close
	})
}
