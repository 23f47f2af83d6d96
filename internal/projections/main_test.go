package projections

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/penstock-io/penstock/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(testenv.Wrap(m)) }
