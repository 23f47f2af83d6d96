//go:build chaosfault

package fence

import "os"

// torn takes the fence away where the environment says so: the chaos harness must
// find that out, or it is worth nothing. No build has it but by the tag.
var torn = os.Getenv("PENSTOCK_CHAOS_FAULT") == "fence"
