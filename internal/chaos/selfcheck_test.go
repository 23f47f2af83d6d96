//go:build chaos

package chaos

import (
	"strconv"
	"testing"
	"time"
)

// TestAFaultOfTheProgramIsFound runs the harness against builds in which one
// safeguard is switched off. A harness that does not find that out proves
// nothing when it finds nothing.
func TestAFaultOfTheProgramIsFound(t *testing.T) {
	broken := build(t, "-tags", "chaosfault")
	for _, what := range []string{"fence", "readback"} {
		t.Run(what+" switched off", func(t *testing.T) {
			// Whether a zombie has something to say when it wakes is luck.
			const tries = 3
			for try := range uint64(tries) {
				cfg := config(t, broken)
				cfg.Env = append(cfg.Env, "PENSTOCK_CHAOS_FAULT="+what)
				cfg.Seed = seed(t) + try
				cfg.For = setting(t, "CHAOS_FOR", 40*time.Second, time.ParseDuration)
				cfg.AtOnce = setting(t, "CHAOS_JOBS", 100, strconv.Atoi)
				cfg.Faults = []string{zombieProcessor}
				r, err := Run(t.Context(), cfg)
				if err != nil {
					t.Fatalf("seed %d: %v", cfg.Seed, err)
				}
				if err := r.Write(t.Output()); err != nil {
					t.Error(err)
				}
				if r.Lost+r.Repeated > 0 {
					return
				}
			}
			t.Errorf("in %d runs nothing was found", tries)
		})
	}
	t.Run("nothing switched off", func(t *testing.T) { // the same build, for the build is not what is found
		cfg := config(t, broken)
		cfg.Seed, cfg.For, cfg.AtOnce, cfg.Faults = seed(t), 40*time.Second, 100, []string{zombieProcessor}
		r, err := Run(t.Context(), cfg)
		if err != nil || r.Lost+r.Repeated > 0 {
			t.Errorf("seed %d: %v, %+v", cfg.Seed, err, r)
		}
	})
}
