// Package e2e holds the tests of the whole pipeline: real processes of the built
// program, on a real Kafka and a real PostgreSQL, killed and cut off as life
// does it. It has no code of its own outside its tests.
package e2e
