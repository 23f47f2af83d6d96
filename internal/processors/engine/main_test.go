package engine

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain has rapid draw the same runs each time, as the seeds of the other
// simulations are the same: what is drawn anew is for a search, with -rapid.seed.
func TestMain(m *testing.M) {
	flag.Parse()
	drawn := false
	flag.Visit(func(f *flag.Flag) { drawn = drawn || f.Name == "rapid.seed" })
	if !drawn {
		if err := flag.Set("rapid.seed", "1"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
