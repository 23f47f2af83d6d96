package cli

import (
	"context"
	"fmt"

	"github.com/penstock-io/penstock/internal/app"
	"github.com/penstock-io/penstock/internal/doctor"
)

// DoctorCmd says what is wrong with a deployment.
type DoctorCmd struct {
	KafkaFlags
	PostgresFlags
	Providers map[string]string `setting:"" secret:"" placeholder:"NAME=URL" help:"OpenAI-compatible servers of models, called by NAME/MODEL; the key of each is in the variable NAME_API_KEY."`
	Models    map[string]string `setting:"" placeholder:"NAME=MODEL" help:"Bare names of models."`
	Sim       bool              `setting:"" help:"Serve the simulated models."`
	OutputFlags
}

// Run implements the command.
func (c *DoctorCmd) Run(ctx context.Context, sys *System) error {
	servers, err := modelServers(c.Providers, sys.Env)
	if err != nil {
		return usageError{err}
	}
	a, err := app.New(app.Config{
		Roles: []app.Role{app.Processors}, Kafka: c.Kafka, Security: c.security(), Topics: c.options(), Simulated: c.Sim, Models: c.Models, Servers: servers,
	}, nil)
	if err != nil {
		return usageError{err}
	}
	defer a.Close()
	failed := false
	var told error
	doctor.Run(ctx, doctor.Config{Brokers: c.Kafka, Security: c.security(), Topics: c.options(), Postgres: c.Postgres, Models: a.Checks()}, func(f doctor.Finding) {
		failed = failed || f.Status == doctor.Fail
		if c.Output != asTable {
			told = writeJSON(sys.Stdout, c.Output, f)
			return
		}
		fmt.Fprintf(sys.Stdout, "%-4s  %-20s %s\n", f.Status, f.Check, f.What)
		if f.Status != doctor.OK {
			fmt.Fprintf(sys.Stdout, "      why: %s\n      do:  %s\n", f.Why, f.Do)
		}
	})
	switch {
	case told != nil:
		return told
	case failed:
		return errSilent
	}
	return nil
}
