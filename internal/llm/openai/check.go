package openai

import (
	"context"
	"net/http"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/penstock-io/penstock/internal/llm/wire"
)

// Check implements llm.Checker: it asks for the server's list of models. A server
// that has none (404) answers all the same.
func (p *Provider) Check(ctx context.Context) error {
	var res *http.Response
	models := openai.ModelService{Options: p.chat.Options}
	_, err := models.List(ctx, option.WithResponseInto(&res))
	if res != nil && res.StatusCode == http.StatusNotFound {
		return res.Body.Close() //nolint:wrapcheck // nothing was read of it
	}
	res, err = wire.Head(p.name, res, err) //nolint:bodyclose // it is, below
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return res.Body.Close() //nolint:wrapcheck // all was read of it
}
