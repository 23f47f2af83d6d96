package app

import (
	"fmt"

	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/anthropic"
	"github.com/penstock-io/penstock/internal/llm/openai"
	"github.com/penstock-io/penstock/internal/llm/simulated"
)

// upstreamName is the provider of Config.Upstream.
const upstreamName = "upstream"

// server is a provider over HTTP, which keeps connections.
type server interface {
	llm.Provider
	Close()
}

// provide opens the providers of models. They speak to nobody before they are
// called.
func (a *App) provide() error {
	var providers []llm.Provider
	var servers []server
	if a.cfg.Simulated {
		providers = append(providers, simulated.New())
	}
	for _, s := range a.cfg.Servers {
		p, err := open(s)
		if err != nil {
			return err
		}
		servers, providers = append(servers, p), append(providers, p)
	}
	var err error
	if a.models, err = llm.NewRegistry(a.cfg.Models, providers...); err != nil {
		return fmt.Errorf("models: %w", err)
	}
	if a.cfg.Upstream != "" {
		p, err := open(ModelServer{upstreamName, a.cfg.Upstream, a.cfg.UpstreamKey})
		if err != nil {
			return err
		}
		a.models, servers = a.models.WithFallback(p), append(servers, p)
	} else if len(providers) == 0 {
		a.log.Warn("no model is served: name a server with --providers, set OPENAI_API_KEY or ANTHROPIC_API_KEY, or take the simulated ones with --sim")
	}
	a.hangUp = func() {
		for _, s := range servers {
			s.Close()
		}
	}
	return nil
}

// open makes the provider of one server. The error begins with its name.
func open(s ModelServer) (server, error) {
	if s.Name == anthropic.Name {
		return anthropic.New(anthropic.Config{BaseURL: s.URL, Key: s.Key}) //nolint:wrapcheck // it begins with the name
	}
	return openai.New(openai.Config{Name: s.Name, BaseURL: s.URL, Key: s.Key}) //nolint:wrapcheck // it begins with the name
}
