package processors

import (
	"testing"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

func TestWhatIsPackedIsWhatIsSent(t *testing.T) {
	if offsets.MaxMetadata != kafka.MaxMetadataBytes {
		t.Errorf("offsets packs up to %d bytes, and kafka sends up to %d", offsets.MaxMetadata, kafka.MaxMetadataBytes)
	}
}
