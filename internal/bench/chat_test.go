package bench

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAChatIsTimedToItsFirstTextAndReadToItsEnd(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(InstantUpstream(3))
	defer upstream.Close()
	s := NewServer(upstream.URL+"/", "key", 2)
	defer s.Close()
	took, err := s.FirstChatToken("instant")(t.Context(), 1)
	if err != nil || took <= 0 {
		t.Fatalf("it took %v, %v", took, err)
	}
	for body, want := range map[string]string{
		"data: {\"choices\":[{\"delta\":{\"content\": \"hi\"}}]}\n\ndata: [DONE]\n\n":                     "",
		"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\ndata: [DONE]\n\n": "without text",
		"data: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\ndata: [DONE]\n\n":                        "without text",
		"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n":                                      "[DONE]",
		"data: " + strings.Repeat("x", 2<<20):                                                             "the stream broke",
	} {
		if _, err := firstContent(strings.NewReader(body)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: %v, want %q", body, err, want)
		}
	}
	refusing := httptest.NewServer(http.NotFoundHandler())
	defer refusing.Close()
	r := NewServer(refusing.URL, "", 1)
	defer r.Close()
	if _, err := r.FirstChatToken("instant")(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("of one who refuses: %v", err)
	}
}
