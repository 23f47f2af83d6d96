//go:build interop

package e2e

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/testenv"
)

// upstreamed starts the whole program with an upstream for the models that are
// not simulated.
func upstreamed(t *testing.T) *process {
	t.Helper()
	return develop(t, testenv.Prefix(t), startUpstream(t).URL)
}

// install puts what a client needs into a directory of its own.
func install(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// copyTo copies files of testdata/openai.
func copyTo(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join("testdata", "openai", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// script runs a client's script to its end.
func script(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func TestInteropOpenAIPython(t *testing.T) {
	t.Parallel()
	p, dir := upstreamed(t), t.TempDir()
	copyTo(t, dir, "sdk.py")
	script(t, dir, testenv.Python(t, requirement(t)), "sdk.py", p.url)
}

func TestInteropOpenAINode(t *testing.T) {
	t.Parallel()
	p, dir := upstreamed(t), t.TempDir()
	copyTo(t, dir, "package.json", "sdk.mjs")
	install(t, dir, "npm", "install", "--no-audit", "--no-fund", "--silent")
	script(t, dir, "node", "sdk.mjs", p.url)
}

func TestInteropOpenAIGo(t *testing.T) {
	p := upstreamed(t)
	client := openai.NewClient(option.WithBaseURL(p.url+"/v1"), option.WithAPIKey("anything"), option.WithMaxRetries(0))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	request := func(model string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("tell me of rivers")}}
	}
	t.Run("whole and streamed", func(t *testing.T) {
		whole, err := client.Chat.Completions.New(ctx, request(quick))
		if err != nil {
			t.Fatal(err)
		}
		text := stream(t, ctx, &client, request(quick)).Choices[0].Message.Content
		if got := whole.Choices[0].Message.Content; got != text || len(strings.Fields(text)) != 8 || whole.Usage.CompletionTokens != 8 {
			t.Errorf("whole %q, streamed %q, usage %+v", got, text, whole.Usage)
		}
	})
	t.Run("tools and choices", func(t *testing.T) {
		calls := stream(t, ctx, &client, request("tools")).Choices[0].Message.ToolCalls
		if len(calls) != 2 || calls[0].ID != "call_1" || calls[0].Function.Name != "Weather" || calls[1].Function.Arguments != `{"city":"Rome"}` {
			t.Errorf("the tool calls are %+v", calls)
		}
		params := request("two")
		params.N = openai.Int(2)
		if got := stream(t, ctx, &client, params).Choices; len(got) != 2 || got[0].Message.Content != "heads" || got[1].Message.Content != "tails" {
			t.Errorf("the choices are %+v", got)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for model, want := range map[string]int{"status-404": http.StatusNotFound, "status-429": http.StatusTooManyRequests, "status-400": http.StatusBadRequest, "status-500": http.StatusBadGateway} {
			_, err := client.Chat.Completions.New(ctx, request(model))
			failed, ok := errors.AsType[*openai.Error](err)
			if !ok || failed.StatusCode != want || failed.Code == "" {
				t.Errorf("%s: %v", model, err)
			}
			s := client.Chat.Completions.NewStreaming(ctx, request(model))
			for s.Next() {
				t.Errorf("%s: a chunk %v", model, s.Current())
			}
			if failed, ok := errors.AsType[*openai.Error](s.Err()); !ok || failed.StatusCode != want {
				t.Errorf("%s, streamed: %v", model, s.Err())
			}
			_ = s.Close()
		}
		s := client.Chat.Completions.NewStreaming(ctx, request("breaks"))
		defer func() { _ = s.Close() }()
		var text strings.Builder
		for s.Next() {
			text.WriteString(s.Current().Choices[0].Delta.Content)
		}
		if err := s.Err(); text.String() != "half an " || err == nil || !strings.Contains(err.Error(), "provider_error") {
			t.Errorf("broken in the middle: %q, %v", text.String(), err)
		}
	})
	t.Run("a client that leaves", func(t *testing.T) {
		var answer *http.Response
		leaving, leave := context.WithCancel(ctx)
		s := client.Chat.Completions.NewStreaming(leaving, request("sim:tokens=40,gap=20ms"), option.WithResponseInto(&answer))
		if !s.Next() {
			t.Fatal(s.Err())
		}
		leave()
		_ = s.Close()
		got := jobOf(t, p.url, s.Current().ID, "30s") //nolint:contextcheck // the client's has ended
		if got.Status != job.Completed || got.ID != answer.Header.Get("X-Penstock-Job") || len(strings.Fields(got.Output[0].Message.Content)) != 40 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("models and embeddings", func(t *testing.T) {
		var ids []string
		for pager := client.Models.ListAutoPaging(ctx); pager.Next(); {
			ids = append(ids, pager.Current().ID)
		}
		one, err := client.Models.Get(ctx, "sim")
		if err != nil || one.OwnedBy != "sim" || !slices.Contains(ids, "sim") {
			t.Errorf("%v, %+v, %v", ids, one, err)
		}
		vectors, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{
			Model: "vectors", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "b"}},
		})
		if err != nil || len(vectors.Data) != 2 || !slices.Equal(vectors.Data[1].Embedding, []float64{1, 0.25}) {
			t.Errorf("%+v, %v", vectors, err)
		}
	})
}

// stream gathers a stream's chunks as the SDK does.
func stream(t *testing.T, ctx context.Context, client *openai.Client, params openai.ChatCompletionNewParams) *openai.ChatCompletionAccumulator { //nolint:revive // t goes first
	t.Helper()
	s := client.Chat.Completions.NewStreaming(ctx, params)
	defer func() { _ = s.Close() }()
	acc := &openai.ChatCompletionAccumulator{}
	for s.Next() {
		if !acc.AddChunk(s.Current()) {
			t.Fatalf("a chunk of another answer: %+v", s.Current())
		}
	}
	if err := s.Err(); err != nil || len(acc.Choices) == 0 {
		t.Fatalf("%v, %+v", err, acc)
	}
	return acc
}
