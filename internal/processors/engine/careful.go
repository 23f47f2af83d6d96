//go:build !chaosfault

package engine

// rash takes a terminal event for read back as soon as it is written. It is a
// constant in every build but the one that the chaos harness tests itself with
// (rash_chaosfault.go).
const rash = false
