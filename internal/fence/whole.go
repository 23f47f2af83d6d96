//go:build !chaosfault

package fence

// torn takes the fence away. It is a constant in every build but the one that
// the chaos harness tests itself with (torn_chaosfault.go).
const torn = false
