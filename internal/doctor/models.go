package doctor

import (
	"context"

	"github.com/penstock-io/penstock/internal/fault"
)

// Models asks the providers of models whether they answer.
func Models(ctx context.Context, models []Model) []Finding {
	const check = "models"
	if len(models) == 0 {
		return []Finding{{
			check, Warn, "no model is served", "no provider is configured here: every job would fail with model_not_found",
			"configure a provider, or serve the simulated models with --sim; run this command with the settings of a processor",
		}}
	}
	var list []Finding
	for _, m := range models {
		name := check + "." + m.Name
		if m.Check == nil {
			list = append(list, ok(name, "it is served, and needs nobody"))
			continue
		}
		err := m.Check(ctx)
		if err == nil {
			list = append(list, ok(name, "it answers"))
			continue
		}
		f := Finding{
			name, Fail, "the model server does not answer as it should", err.Error(),
			"see that it runs, and that its address is right as seen from this machine",
		}
		if fault.From(err).Code == fault.ProviderRejected {
			f.What, f.Do = "the provider refuses the request: most likely the key", "set a key that is valid for this provider, on every processor"
		}
		list = append(list, f)
	}
	return list
}
