package anthropic

import (
	"context"
	"net/http"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/penstock-io/penstock/internal/llm/wire"
)

// Check implements llm.Checker: it asks for the list of models, which costs
// nothing.
func (p *Provider) Check(ctx context.Context) error {
	var res *http.Response
	models := anthropic.ModelService{Options: p.messages.Options}
	_, err := models.List(ctx, anthropic.ModelListParams{}, option.WithResponseInto(&res))
	res, err = wire.Head(Name, res, err) //nolint:bodyclose // it is, below
	if err != nil {
		return err //nolint:wrapcheck // a fault
	}
	return res.Body.Close() //nolint:wrapcheck // all was read of it
}
