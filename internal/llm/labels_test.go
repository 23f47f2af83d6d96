package llm

import (
	"strconv"
	"strings"
	"testing"
)

func TestModelNamesAreBounded(t *testing.T) {
	t.Parallel()
	var n ModelNames
	for in, want := range map[[2]string]string{
		{"sim", "sim"}:                         "sim",
		{"sim", "sim:tokens=1,seed=2"}:         "sim",
		{"openai", "ft:gpt-5-mini:us::1"}:      "ft:gpt-5-mini:us::1",
		{"openai", ""}:                         "unknown",
		{"openai", strings.Repeat("long", 40)}: "other",
	} {
		if got := n.Of(in[0], in[1]); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	told := map[string]bool{}
	for i := range 3 * MaxModelNames {
		told[n.Of("openai", "model-"+strconv.Itoa(i))] = true
	}
	if !told["other"] || len(told) > MaxModelNames+1 {
		t.Errorf("%d names are told apart", len(told))
	}
	if got := n.Of("openai", "model-0"); got != "model-0" {
		t.Errorf("a name that was known became %q", got)
	}
}

func TestOperationIsOpenTelemetrys(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{
		"/v1/chat/completions": "chat", "/v1/responses": "chat", "/v1/completions": "text_completion", "/v1/embeddings": "embeddings",
	} {
		if got := Operation(endpoint); got != want {
			t.Errorf("%s: %q, want %q", endpoint, got, want)
		}
	}
}
