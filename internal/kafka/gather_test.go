package kafka_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/penstock-io/penstock/internal/kafka"
)

func TestWhatWaitsForOthersStaysInOrder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(g *ground) {
		topic := g.topic("gathered", 1)
		p := g.producer(kafka.ProducerConfig{Gather: 2 * time.Millisecond, Busy: 1})
		const records = 500
		acks := make(chan kafka.Ack, records)
		for i := range records {
			put := p.Later
			if i%50 == 25 {
				put = p.Go
			}
			g.no(put(record(topic, 0, strconv.Itoa(i)), func(a kafka.Ack, err error) {
				if err != nil {
					t.Error(err)
				}
				acks <- a
			}))
		}
		g.no(p.Flush(t.Context()))
		for i := range int64(records) {
			if a := <-acks; a.Offset != i {
				t.Fatalf("record %d stands at %d", i, a.Offset)
			}
		}
	})
}
