package kafka_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
)

// TestWhatUnpacksToTooMuchStopsNobody writes batches that are small in the log
// and large in memory, as any producer may.
func TestWhatUnpacksToTooMuchStopsNobody(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("packed", 1)
		cl := g.client(
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
			kgo.ProducerBatchMaxBytes(96<<20), kgo.MaxDecompressBatchBytes(96<<20),
		)
		for _, size := range []int{65 << 20, 20 << 20, 20 << 20, 1} { // a batch each
			g.no(cl.ProduceSync(g.ctx, &kgo.Record{Topic: topic, Key: []byte("k"), Value: make([]byte, size)}).FirstErr())
		}
		check := func(how string, got []event.Record) {
			g.Helper()
			if len(got) != 4 {
				g.Fatalf("%s: %d records, want 4", how, len(got))
			}
			if r := got[0]; r.Offset != 0 || r.Value != nil || !strings.Contains(r.Defect, "offsets 0 to 0 unpacks to more than 64 MiB") {
				g.Errorf("%s: the first is at offset %d with %d bytes and the defect %q", how, r.Offset, len(r.Value), r.Defect)
			}
			for i, size := range []int{20 << 20, 20 << 20, 1} {
				if r := got[i+1]; r.Offset != int64(i)+1 || len(r.Value) != size || r.Defect != "" {
					g.Errorf("%s: record %d has %d bytes, want %d; its defect is %q", how, r.Offset, len(r.Value), size, r.Defect)
				}
			}
		}
		var scanned []event.Record
		for recs, err := range g.c.Scan(g.ctx, kafka.TopicPartition{Topic: topic}, 0, 4) {
			g.no(err)
			scanned = append(scanned, recs...)
		}
		check("a scan", scanned)
		tail := g.tail(kafka.TailConfig{Topic: topic})
		tail.Follow(0, 0)
		var tailed []event.Record
		for len(tailed) < 4 {
			chunks, err := tail.Poll(g.ctx)
			g.no(err)
			for _, ch := range chunks {
				g.no(ch.Err)
				tailed = append(tailed, ch.Records...)
			}
		}
		check("a tail", tailed)
	})
}
