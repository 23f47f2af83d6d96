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

func TestContendersTakeTurns(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(InstantUpstream(1))
	defer upstream.Close()
	s := NewServer(upstream.URL, "", 4)
	defer s.Close()
	all := []Contender{{"a", s.FirstChatToken("instant")}, {"b", s.FirstChatToken("instant")}}
	var told []int
	err := Turns(t.Context(), all, Options{Concurrency: []int{1, 4}, Trips: 6, Rounds: 2}, func(concurrency int, samples []Sample) {
		told = append(told, concurrency)
		for i := range samples {
			if n := len(samples[i].Times); n < 6 || samples[i].Concurrency != concurrency {
				t.Errorf("%s made %d trips at %d at a time", all[i].Name, n, samples[i].Concurrency)
			}
		}
	})
	if err != nil || len(told) != 2 {
		t.Errorf("told of %v, %v", told, err)
	}
	if err := Turns(t.Context(), all, Options{}, nil); err == nil {
		t.Error("nothing was to be measured, and it was")
	}
	upstream.Close()
	if err := Turns(t.Context(), all, Options{Concurrency: []int{1}, Trips: 1, Rounds: 1}, nil); err == nil || !strings.Contains(err.Error(), "warming up a") {
		t.Errorf("with nobody there: %v", err)
	}
}
