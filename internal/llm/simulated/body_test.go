package simulated_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
)

func FuzzNoNameAndNoBodyHarms(f *testing.F) {
	for _, model := range []string{"sim", "sim:tokens=9,chunk=2,seed=4", "sim:fail=0.5,error=500,tokens=5", "sim:tokens=0", "x"} {
		for _, body := range []string{hello, `{}`, `{"messages":[[{"content":["\ud83d\ude00"]}]]}`, `{"max_tokens":3}`, `[`, ``, "{\"input\":{\"a\":1e9}}"} {
			f.Add(model, []byte(body))
		}
	}
	p := simulated.New()
	f.Fuzz(func(t *testing.T, model string, body []byte) {
		// Without waits, and short enough to be heard to the end.
		model = strings.ReplaceAll(strings.ReplaceAll(model, "ttft", "seed"), "gap", "seed")
		if strings.HasPrefix(model, "sim:") {
			model += ",ttft=0,gap=0"
		} else if model == "sim" {
			model = "sim:ttft=0,gap=0"
		}
		req := llm.Request{Model: model, Body: body}
		chunks, end := 0, false
		for c, err := range p.Stream(t.Context(), req) {
			if end {
				t.Fatalf("after its end came %+v, %v", c, err)
			}
			var refused *fault.Error
			if err != nil && !errors.As(err, &refused) {
				t.Fatalf("%v is no fault", err)
			}
			end = err != nil || c.FinishReason != ""
			if chunks++; chunks > 1000 {
				return
			}
		}
		if !end {
			t.Fatal("it ended without an error or a finish reason")
		}
	})
}

func BenchmarkInstant(b *testing.B) {
	for _, tokens := range []int{0, 1, 100} {
		b.Run(fmt.Sprint("tokens=", tokens), func(b *testing.B) {
			p, ctx := simulated.New(), context.Background()
			req := request(fmt.Sprintf("sim:tokens=%d,ttft=0,gap=0", tokens), hello)
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range p.Stream(ctx, req) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
