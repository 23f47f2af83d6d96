package llm_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
)

// named is a provider that is only a name.
type named string

func (n named) Name() string { return string(n) }

func (named) Stream(context.Context, llm.Request) iter.Seq2[llm.Chunk, error] { return nil }

func registry(t *testing.T) *llm.Registry {
	t.Helper()
	r, err := llm.NewRegistry(map[string]string{
		"fast":      "openai/gpt-5-mini",
		"demo":      "sim:tokens=3",
		"claude":    "anthropic/claude-5",
		"llama3:8b": "openai/meta/llama3",
	}, named("openai"), simulated.New())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResolveFindsWhoServesAModel(t *testing.T) {
	r := registry(t)
	for model, want := range map[string][2]string{
		"openai/gpt-5":       {"openai", "gpt-5"},
		"openai/ft/mine":     {"openai", "ft/mine"},
		"fast":               {"openai", "gpt-5-mini"},
		"llama3:8b":          {"openai", "meta/llama3"},
		"sim":                {"sim", "sim"},
		"sim:tokens=5,gap=0": {"sim", "sim:tokens=5,gap=0"},
		"demo":               {"sim", "sim:tokens=3"},
	} {
		p, name, err := r.Resolve(model)
		if err != nil {
			t.Errorf("%s: %v", model, err)
			continue
		}
		if diff := cmp.Diff(want, [2]string{p.Name(), name}); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", model, diff)
		}
	}
}

func TestResolveSaysWhatIsThere(t *testing.T) {
	r := registry(t)
	for model, want := range map[string]string{
		"gpt-5":        `write "provider/model"`,
		"nobody/gpt-5": `there is no provider "nobody"; known: demo, fast, llama3:8b, openai/…, sim`,
		"claude":       `stands for "anthropic/claude-5", but there is no provider "anthropic"`,
		"openai/":      "is not known",
		"sim/tokens=3": "is not known",
		"simple":       "is not known",
		"/":            `no provider ""`,
		"x\n\"y":       `model "x\n\"y" is not known`,
	} {
		_, _, err := r.Resolve(model)
		var f *fault.Error
		if !errors.As(err, &f) || f.Code != fault.ModelNotFound || f.Param != "model" {
			t.Errorf("%q: %v, want model_not_found", model, err)
		} else if !strings.Contains(f.Message, want) {
			t.Errorf("%q: it says %q, want it to speak of %q", model, f.Message, want)
		}
	}
	_, _, err := r.Resolve("")
	if f := fault.From(err); f.Code != fault.InvalidRequest || f.Param != "model" {
		t.Errorf("no name: %v", err)
	}
}

func TestResolveOfNothingSaysThatThereIsNothing(t *testing.T) {
	r, err := llm.NewRegistry(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = r.Resolve("sim"); err == nil || !strings.Contains(err.Error(), "no models are available") {
		t.Errorf("it says %v", err)
	}
	if got := r.Models(); len(got) > 0 {
		t.Errorf("it lists %q", got)
	}
}

func TestResolveKeepsItsMessageShort(t *testing.T) {
	models := map[string]string{}
	for i := range 500 {
		models[fmt.Sprintf("%03d-%s", i, strings.Repeat("é", 300))] = "openai/x"
	}
	r, err := llm.NewRegistry(models, named("openai"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = r.Resolve(strings.Repeat("m", 1<<20))
	f := fault.From(err)
	if f.Code != fault.ModelNotFound || len(f.Message) > 2000 || !strings.HasSuffix(f.Message, "and 489 more") {
		t.Errorf("%d bytes of message: …%s", len(f.Message), f.Message[max(0, len(f.Message)-100):])
	}
	if !utf8.ValidString(f.Message) {
		t.Error("a name is cut within a rune")
	}
}

func TestTheFallbackServesEveryOtherName(t *testing.T) {
	plain := registry(t)
	r := plain.WithFallback(named("upstream"))
	for model, want := range map[string]string{
		"gpt-5":           "upstream gpt-5",
		"meta-llama/Ll-3": "upstream meta-llama/Ll-3",
		"sim":             "sim sim",
		"openai/gpt-5":    "openai gpt-5",
	} {
		p, name, err := r.Resolve(model)
		if err != nil {
			t.Errorf("%s: %v", model, err)
		} else if got := p.Name() + " " + name; got != want {
			t.Errorf("%s goes to %s, want %s", model, got, want)
		}
	}
	if _, _, err := r.Resolve("claude"); err == nil {
		t.Error("a name that stands for an absent provider's model went elsewhere")
	}
	if _, _, err := plain.Resolve("gpt-5"); err == nil {
		t.Error("the registry that it was made from has a fallback as well")
	}
}

func TestModelsListsWhatResolves(t *testing.T) {
	if diff := cmp.Diff([]string{"demo", "fast", "llama3:8b", "sim"}, registry(t).Models()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestNewRegistryRefusesWhatCannotBe(t *testing.T) {
	for want, c := range map[string]struct {
		models    map[string]string
		providers []llm.Provider
	}{
		"two providers":      {nil, []llm.Provider{named("a"), named("a")}},
		"it must be a word":  {nil, []llm.Provider{named("a/b")}},
		`provider name ""`:   {nil, []llm.Provider{named("")}},
		`"fas/t"`:            {map[string]string{"fas/t": "a/b"}, nil},
		`models: ""`:         {map[string]string{"": "a/b"}, nil},
		`write it as`:        {map[string]string{"fast": "gpt-5"}, nil},
		`x: "/gpt-5"`:        {map[string]string{"x": "/gpt-5"}, nil},
		`x: "openai/": writ`: {map[string]string{"x": "openai/"}, nil},
		`x: "sim": write it`: {map[string]string{"x": "sim"}, []llm.Provider{named("sim")}},
	} {
		if _, err := llm.NewRegistry(c.models, c.providers...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it says %v, want it to speak of %s", err, want)
		}
	}
}

func TestTheRegistryIsNotChangedThroughItsMap(t *testing.T) {
	models := map[string]string{"fast": "openai/a"}
	r, err := llm.NewRegistry(models, named("openai"))
	if err != nil {
		t.Fatal(err)
	}
	models["fast"] = "openai/b"
	if _, name, _ := r.Resolve("fast"); name != "a" {
		t.Errorf("fast is now %s", name)
	}
}
