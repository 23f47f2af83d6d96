package llm

import (
	"strings"
	"sync"
)

// MaxModelNames bounds the models that metrics tell apart; what comes after
// them is "other".
const MaxModelNames = 64

// maxModelName bounds a model's name in a metric, in bytes.
const maxModelName = 128

// ModelNames gives models names for metrics: at most MaxModelNames of them, since
// a client's typo must not make a time series for ever. Its methods may be called
// from many goroutines. The zero value works.
type ModelNames struct {
	mu   sync.RWMutex
	seen map[string]struct{}
}

// Of is the name of a model in metrics. What follows a colon in a simulated
// model's name is a load's shape, and left out.
func (n *ModelNames) Of(provider, model string) string {
	if bare, _, options := strings.Cut(model, ":"); options && bare == provider {
		model = bare
	}
	if model == "" {
		return "unknown"
	}
	n.mu.RLock()
	_, known := n.seen[model]
	n.mu.RUnlock()
	if known {
		return model
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.seen) >= MaxModelNames || len(model) > maxModelName {
		return "other"
	}
	if n.seen == nil {
		n.seen = map[string]struct{}{}
	}
	n.seen[model] = struct{}{}
	return model
}

// Operation is what OpenTelemetry calls an endpoint's work
// (gen_ai.operation.name).
func Operation(endpoint string) string {
	switch endpoint {
	case "/v1/embeddings":
		return "embeddings"
	case "/v1/completions":
		return "text_completion"
	default:
		return "chat"
	}
}
