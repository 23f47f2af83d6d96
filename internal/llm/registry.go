package llm

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock-io/penstock/internal/fault"
)

// What a message may show of names, so that neither a client's long name nor
// an operator's long list makes a long record.
const (
	maxShownName   = 80 // bytes of one name
	maxShownModels = 12 // names in a list
)

// BareNamer is a Provider whose models are called by a bare name that is its
// own, such as "sim" or "sim:tokens=200", and not as "provider/model".
type BareNamer interface {
	Provider
	// HasModel tells whether the bare name is one of this provider's.
	HasModel(model string) bool
	// BareNames lists the names for people; HasModel may know variants of them.
	BareNames() []string
}

// Registry finds the provider that serves a model's name. It is immutable and
// may be used from several goroutines.
type Registry struct {
	providers map[string]Provider // by name
	bare      []BareNamer
	models    map[string]string // bare name -> target
	fallback  Provider
}

// NewRegistry makes a Registry of the providers. models gives bare names to
// models of theirs: "fast" -> "openai/gpt-5-mini". A target whose provider is
// absent is no error here, since a provider comes and goes with its key;
// Resolve says so when the name is asked for. A target that cannot be one, and
// two providers of one name, are errors.
func NewRegistry(models map[string]string, providers ...Provider) (*Registry, error) {
	r := &Registry{providers: make(map[string]Provider, len(providers)), models: maps.Clone(models)}
	for _, p := range providers {
		name := p.Name()
		if name == "" || strings.ContainsAny(name, "/:") {
			return nil, fmt.Errorf("llm: provider name %q: it must be a word without %q or %q", name, "/", ":")
		}
		if _, taken := r.providers[name]; taken {
			return nil, fmt.Errorf("llm: two providers are named %q: each needs a name of its own", name)
		}
		r.providers[name] = p
		if b, ok := p.(BareNamer); ok {
			r.bare = append(r.bare, b)
		}
	}
	for name, target := range models {
		if name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("llm: models: %q: a bare name is not empty and holds no %q", name, "/")
		}
		provider, model, explicit := strings.Cut(target, "/")
		if explicit && (provider == "" || model == "") || !explicit && r.bareNamer(target) == nil {
			return nil, fmt.Errorf("llm: models: %s: %q: write it as %q", name, target, "provider/model")
		}
	}
	return r, nil
}

// WithFallback returns a Registry that gives every name that r does not know,
// whole, to p: the upstream of `penstock dev`.
func (r *Registry) WithFallback(p Provider) *Registry {
	with := *r
	with.fallback = p
	return &with
}

// Resolve finds who serves model, and the name that the provider knows it by.
// The error is a *fault.Error: InvalidRequest for an empty name, ModelNotFound
// for one that nobody serves.
func (r *Registry) Resolve(model string) (Provider, string, error) {
	if model == "" {
		return nil, "", errNoModel()
	}
	target, mapped := r.models[model]
	if !mapped {
		target = model
	}
	if p, name := r.direct(target); p != nil {
		return p, name, nil
	}
	if mapped {
		provider, _, _ := strings.Cut(target, "/")
		return nil, "", notFound("model %s stands for %s, but there is no provider %s; is its key set? %s",
			shown(model), shown(target), shown(provider), r.available())
	}
	if r.fallback != nil {
		return r.fallback, model, nil
	}
	if provider, _, explicit := strings.Cut(model, "/"); explicit && r.providers[provider] == nil {
		return nil, "", notFound("model %s: there is no provider %s; %s", shown(model), shown(provider), r.available())
	}
	return nil, "", notFound(`model %s is not known: write "provider/model", or a name from the configuration's models; %s`,
		shown(model), r.available())
}

// direct resolves what needs no entry under models: "provider/model" and a
// provider's own bare names.
func (r *Registry) direct(model string) (Provider, string) {
	if b := r.bareNamer(model); b != nil {
		return b, model
	}
	prefix, name, explicit := strings.Cut(model, "/")
	if !explicit || name == "" {
		return nil, ""
	}
	p := r.providers[prefix]
	if _, own := p.(BareNamer); own || p == nil {
		return nil, "" // one way to name a model: its bare name, where it has one
	}
	return p, name
}

func (r *Registry) bareNamer(model string) BareNamer {
	for _, b := range r.bare {
		if b.HasModel(model) {
			return b
		}
	}
	return nil
}

// Models lists the bare names that resolve, sorted.
func (r *Registry) Models() []string {
	var names []string
	for name, target := range r.models {
		if p, _ := r.direct(target); p != nil {
			names = append(names, name)
		}
	}
	for _, b := range r.bare {
		names = append(names, b.BareNames()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Providers lists the providers, by name, the fallback last.
func (r *Registry) Providers() []Provider {
	all := make([]Provider, 0, len(r.providers)+1)
	for _, name := range slices.Sorted(maps.Keys(r.providers)) {
		all = append(all, r.providers[name])
	}
	if r.fallback != nil {
		all = append(all, r.fallback)
	}
	return all
}

// available is the end of a ModelNotFound's sentence: what there is.
func (r *Registry) available() string {
	names := r.Models()
	for prefix, p := range r.providers {
		if _, bare := p.(BareNamer); !bare {
			names = append(names, prefix+"/…")
		}
	}
	if len(names) == 0 {
		return "no models are available"
	}
	slices.Sort(names)
	more := ""
	if n := len(names) - maxShownModels; n > 0 {
		names, more = names[:maxShownModels], " and "+strconv.Itoa(n)+" more"
	}
	for i, name := range names {
		names[i] = cut(name)
	}
	return "known: " + strings.Join(names, ", ") + more
}

func errNoModel() *fault.Error {
	return fault.Param("model", "model is missing: it must name the model that is to answer")
}

func notFound(format string, args ...any) *fault.Error {
	err := fault.New(fault.ModelNotFound, format, args...)
	err.Param = "model"
	return err
}

// shown quotes a name for a message.
func shown(name string) string { return strconv.Quote(cut(name)) }

// cut shortens a name to what a message may show, at a rune's border.
func cut(name string) string {
	if len(name) <= maxShownName {
		return name
	}
	return strings.ToValidUTF8(name[:maxShownName], "") + "…"
}
