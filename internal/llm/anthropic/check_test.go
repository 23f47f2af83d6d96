package anthropic_test

import (
	"testing"

	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/anthropic"
	"github.com/penstock-io/penstock/internal/llm/llmtest"
)

func TestAServerIsAskedWhetherItAnswers(t *testing.T) {
	t.Parallel()
	llmtest.Checks(t, func(url, key string) (llm.Checker, func()) {
		p, err := anthropic.New(anthropic.Config{BaseURL: url, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		return p, p.Close
	})
}
