package llmtest

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
)

// What a provider makes wrongly of a server that misbehaves is seen.
func TestEveryWrongEndIsSeen(t *testing.T) {
	limited := hostileCase{code: fault.RateLimited, retry: true}
	for name, c := range map[string]struct {
		provider *script
		model    string
		want     hostileCase
		says     string
	}{
		"it says nothing":         {&script{}, "good", hostileCase{text: "uno"}, `want "uno"`},
		"it says what it may not": {&script{}, "good", limited, `want ""`},
		"it ends well":            {&script{}, "good", hostileCase{code: fault.ProviderError, text: "one"}, "it ended well"},
		"it fails":                {&script{}, "bad", hostileCase{}, "slow down"},
		"another code":            {&script{wrongCode: true}, "bad", limited, "want rate_limited"},
		"another time":            {&script{}, "bad", hostileCase{code: fault.RateLimited, retry: true, after: time.Second}, "after 1s"},
		"no fault":                {&script{plainError: true}, "bad", limited, "want a fault"},
		"no message":              {&script{noMessage: true}, "bad", limited, "too little"},
	} {
		err := c.want.check(t.Context(), c.provider, llm.Request{Model: c.model})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: the check said %v, want it to speak of %q", name, err, c.says)
		}
	}
	if err := stalled(t.Context(), &script{}, llm.Request{Model: "good"}); err == nil || !strings.Contains(err.Error(), "want ctx's error") {
		t.Errorf("an answer in place of a stall: %v", err)
	}
}
