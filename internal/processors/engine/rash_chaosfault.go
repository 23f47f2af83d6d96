//go:build chaosfault

package engine

import "os"

// rash leaves the read-back out where the environment says so: the chaos harness
// must find that out, or it is worth nothing. No build has it but by the tag.
var rash = os.Getenv("PENSTOCK_CHAOS_FAULT") == "readback"
