package chaos

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/llm"
	"github.com/penstock-io/penstock/internal/llm/simulated"
	"github.com/penstock-io/penstock/internal/testenv"
)

// setting is a number or a time from the environment, for `make chaos`.
func setting[T any](t *testing.T, name string, otherwise T, parse func(string) (T, error)) T {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	v, err := parse(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// briefSeed is that of the brief run, which is the same trouble each time: its
// first seven faults are a processor restarted, one killed and one that wakes as a
// zombie, a gateway killed, a broker killed, and two links broken.
const briefSeed = 4365

func seed(t *testing.T) uint64 {
	t.Helper()
	otherwise := rand.Uint64N(1_000_000)
	if os.Getenv("CHAOS_FOR") == "" {
		otherwise = briefSeed
	}
	return setting(t, "CHAOS_SEED", otherwise, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
}

// config is what all runs have in common.
func config(t *testing.T, program string) Config {
	t.Helper()
	model := simulated.New()
	return Config{
		Program: program, Env: coverage(), Postgres: testenv.Postgres(t), Dir: logDir(t),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Expect: func(name string, body []byte) string {
			name, _, _ = strings.Cut(name, ",") // its pace says nothing
			var b strings.Builder
			for c, err := range model.Stream(context.Background(), llm.Request{Model: name + ",ttft=0s,gap=0s", Body: body}) {
				if err != nil {
					t.Error(err)
				}
				b.WriteString(c.Content)
			}
			return b.String()
		},
	}
}

// TestChaos is the kill test: briefly in `make test`, at length in `make chaos`.
func TestChaos(t *testing.T) {
	cfg := config(t, build(t))
	cfg.Seed = seed(t)
	cfg.For = setting(t, "CHAOS_FOR", 25*time.Second, time.ParseDuration)
	cfg.AtOnce = setting(t, "CHAOS_JOBS", 60, strconv.Atoi)
	t.Logf("seed %d", cfg.Seed)
	r, err := Run(t.Context(), cfg)
	if r != nil {
		if err := r.Write(t.Output()); err != nil {
			t.Error(err)
		}
	}
	if err != nil {
		t.Fatalf("seed %d: %v", cfg.Seed, err)
	}
	if r.Lost != 0 || r.Repeated != 0 {
		t.Errorf("seed %d: %d lost, %d repeated", cfg.Seed, r.Lost, r.Repeated)
	}
	if r.Accepted == 0 || len(r.Faults) == 0 || r.Completed == 0 {
		t.Error("nothing was tried")
	}
}
