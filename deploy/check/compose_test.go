package check

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// project reads the compose file as Docker does: schema, references, cycles.
func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{repository + "/deploy/compose.yaml"},
		cli.WithProfiles([]string{"*"}), cli.WithLoadOptions(func(o *loader.Options) { o.SkipNormalization = false }))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheComposeFileFollowsTheSpecification(t *testing.T) {
	t.Parallel()
	p := project(t)
	if got := slices.Sorted(maps.Keys(p.Services)); !slices.Equal(got, []string{"grafana", "kafka", "penstock", "postgres", "prometheus", "schema", "topics"}) {
		t.Errorf("it has the services %q", got)
	}
	used := map[string]bool{}
	for name, s := range p.Services {
		for other, d := range s.DependsOn {
			if d.Condition == types.ServiceConditionHealthy && p.Services[other].HealthCheck == nil {
				t.Errorf("%s waits for the health of %s, which has no check", name, other)
			}
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s opens port %s to everybody", name, port.Published)
			}
		}
		for _, v := range s.Volumes {
			used[v.Source] = true
			if _, err := os.Stat(v.Source); v.Type == types.VolumeTypeBind && err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s.Build == nil && !strings.Contains(s.Image, ":") {
			t.Errorf("%s takes any %s", name, s.Image)
		}
	}
	for name := range p.Volumes {
		if !used[name] {
			t.Errorf("nobody uses the volume %s", name)
		}
	}
}

// TestTheComposeFileRuns runs its services of Penstock as they stand, on this
// machine's Kafka and PostgreSQL.
func TestTheComposeFileRuns(t *testing.T) {
	p := project(t)
	env := map[string]string{}
	for k, v := range p.Services["penstock"].Environment {
		env[k] = *v
	}
	maps.Copy(env, services(t))
	env["PENSTOCK_PREFIX"] = "compose."
	main := p.Services["penstock"]
	for _, first := range []string{"topics", "schema"} {
		if main.DependsOn[first].Condition != types.ServiceConditionCompletedSuccessfully {
			t.Errorf("penstock does not wait for the end of %s", first)
		}
		begin(t, p.Services[first].Command, env).wait(t, patience)
	}
	running := begin(t, main.Command, env)
	answers(t, "http://"+running.listen+"/readyz")
	check := main.HealthCheck.Test
	if len(check) < 2 || check[0] != "CMD" || check[1] != "/usr/local/bin/penstock" {
		t.Fatalf("the health check is %q: the image has nothing but penstock", check)
	}
	env["PENSTOCK_SERVER"] = "http://" + running.listen // in the container it is the default
	begin(t, check[2:], env).wait(t, patience)
	takeOneJobThrough(t, running)
	limit := time.Duration(*main.StopGracePeriod)
	if least := 40 * time.Second; limit < least {
		t.Errorf("a stop gets %v; --grace and the 10 s beyond it are %v", limit, least)
	}
	stop(t, limit, running)
}
