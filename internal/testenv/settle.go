package testenv

import (
	"time"

	"go.uber.org/goleak"
)

// settlePatience bounds the wait for goroutines that have been told to end.
const settlePatience = 10 * time.Second

// Settled returns a Runner that waits, after tests that passed, for the goroutines
// that they have told to end. goleak, for which it is, gives them less than half a
// second, and a machine that is busy with other packages' tests takes longer. One
// that does not end is left for goleak to find.
func Settled(tests Runner) Runner { return settled{tests} }

type settled struct{ tests Runner }

// Run implements Runner.
func (s settled) Run() int {
	code := s.tests.Run()
	for until := time.Now().Add(settlePatience); code == 0 && goleak.Find() != nil && time.Now().Before(until); {
		continue // Find has waited
	}
	return code
}
