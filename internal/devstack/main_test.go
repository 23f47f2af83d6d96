//go:build unix

package devstack

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// childVariable makes this test binary a child process of one of its tests.
const childVariable = "PENSTOCK_DEVSTACK_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childVariable); role != "" {
		child(role)
		return
	}
	goleak.VerifyTestMain(m)
}
