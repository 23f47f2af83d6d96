package gateway

import (
	"net/http"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/gateway/openai"
)

// serveModels answers GET /v1/models.
func (g *Gateway) serveModels(w http.ResponseWriter, r *http.Request) {
	var list []openai.Model
	for _, name := range g.cfg.Models.Models() {
		if provider, err := g.cfg.Models.Provider(name); err == nil {
			list = append(list, openai.NewModel(name, provider))
		}
	}
	api.WriteJSON(w, r, http.StatusOK, api.NewList(list, false, func(m *openai.Model) string { return m.ID }))
}

// serveModel answers GET /v1/models/{id}. The slash of "provider/model" may come
// as it is or escaped.
func (g *Gateway) serveModel(w http.ResponseWriter, r *http.Request) {
	name := api.PathParam(r, "*")
	provider, err := g.cfg.Models.Provider(name)
	if err != nil {
		api.WriteError(w, r, err)
		return
	}
	api.WriteJSON(w, r, http.StatusOK, openai.NewModel(name, provider))
}
