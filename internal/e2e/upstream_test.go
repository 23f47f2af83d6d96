package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// upstream is a server that speaks Chat Completions; what it says depends on the
// model that is asked for.
type upstream struct {
	*httptest.Server
	mu    sync.Mutex
	asked map[string]int
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{asked: map[string]int{}}
	u.Server = httptest.NewServer(http.HandlerFunc(u.serve))
	t.Cleanup(u.Close)
	return u
}

// choice is one choice of a chunk.
func choice(index int, delta, rest string) string {
	return fmt.Sprintf(`{"id":"up","object":"chat.completion.chunk","created":1,"model":"up","choices":[{"index":%d,"delta":{%s}%s}]}`, index, delta, rest)
}

func content(index int, text string) string {
	return choice(index, `"content":`+strconv.Quote(text), "")
}

func finish(index int, reason string) string {
	return choice(index, "", `,"finish_reason":`+strconv.Quote(reason))
}

const usage = `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"completion_tokens_details":{"reasoning_tokens":2}}}`

// answers are what is said whole.
func answers(model string) []string {
	switch model {
	case "structured":
		return []string{content(0, `{"name":"Par`), content(0, `is","people":2}`), finish(0, "stop"), usage}
	case "tools":
		call := func(index int, rest string) string {
			return choice(0, fmt.Sprintf(`"tool_calls":[{"index":%d,%s}]`, index, rest), "")
		}
		return []string{
			choice(0, `"role":"assistant","content":null`, ""),
			call(0, `"id":"call_1","type":"function","function":{"name":"Weather","arguments":""}`),
			call(0, `"function":{"arguments":"{\"city\":"}`), call(0, `"function":{"arguments":"\"Oslo\"}"}`),
			call(1, `"id":"call_2","type":"function","function":{"name":"Weather","arguments":"{\"city\":\"Rome\"}"}`),
			finish(0, "tool_calls"), usage,
		}
	case "two":
		return []string{content(1, "ta"), content(0, "hea"), content(1, "ils"), content(0, "ds"), finish(0, "stop"), finish(1, "stop"), usage}
	case "refuses":
		return []string{choice(0, `"refusal":"I would "`, ""), choice(0, `"refusal":"rather not."`, ""), finish(0, "stop"), usage}
	case "logprobs":
		probs := func(token string) string {
			return fmt.Sprintf(`,"logprobs":{"content":[{"token":%q,"logprob":-0.5,"bytes":null,"top_logprobs":[]}],"refusal":null}`, token)
		}
		return []string{choice(0, `"content":"Hel"`, probs("Hel")), choice(0, `"content":"lo"`, probs("lo")), finish(0, "stop"), usage}
	case "thinks":
		return []string{choice(0, `"reasoning_content":"hm, "`, ""), choice(0, `"reasoning_content":"well"`, ""), content(0, "So."), finish(0, "stop"), usage}
	default:
		return []string{content(0, "at last"), finish(0, "stop"), usage}
	}
}

func (u *upstream) serve(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Model          string `json:"model"`
		EncodingFormat string `json:"encoding_format"`
	}
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	u.mu.Lock()
	u.asked[req.Model]++
	times := u.asked[req.Model]
	u.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "/embeddings") {
		embed(w, req.EncodingFormat)
		return
	}
	if text, ok := strings.CutPrefix(req.Model, "status-"); ok || strings.HasPrefix(req.Model, "second-time") && times == 1 {
		status, err := strconv.Atoi(text)
		if err != nil {
			status = http.StatusInternalServerError
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"error":{"message":"as you asked","type":"x","param":null,"code":null}}`)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	say := func(chunk string) {
		_, _ = io.WriteString(w, "data: "+chunk+"\n\n")
		_ = http.NewResponseController(w).Flush()
	}
	switch req.Model {
	case "breaks":
		say(content(0, "half an "))
		select { // the client is to have the first words before
		case <-time.After(2 * time.Second):
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case "breaks-at-once":
		panic(http.ErrAbortHandler)
	case "slow": // some ten seconds
		for i := range 100 {
			say(content(0, fmt.Sprint(i, " ")))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	}
	for _, chunk := range answers(req.Model) {
		say(chunk)
	}
	say("[DONE]")
}

// embed answers with two vectors.
func embed(w http.ResponseWriter, format string) {
	a, b := "[0.5,-1]", "[1,0.25]"
	if format == "base64" {
		a, b = `"AAAAPwAAgL8="`, `"AACAPwAAgD4="`
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":%s},{"object":"embedding","index":1,"embedding":%s}],`+
		`"model":"vectors","usage":{"prompt_tokens":2,"total_tokens":2}}`, a, b)
}
