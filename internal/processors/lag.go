package processors

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// lagEvery is how often the ends of the request topics are asked for.
const lagEvery = 5 * time.Second

// lagMeter tells how far the partitions of this process are behind. The loop
// hands it its newest pulses; a goroutine of its own asks where the logs end.
type lagMeter struct {
	mu     sync.Mutex
	pulses []engine.Pulse // the newest, of all that is owned; never changed
}

func (m *lagMeter) put(pulses []engine.Pulse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pulses = pulses
}

func (m *lagMeter) newest() []engine.Pulse {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pulses
}

// measure keeps the lags' metrics.
func (p *Processor) measure(ctx context.Context) error {
	tick := time.NewTicker(lagEvery)
	defer tick.Stop()
	for {
		p.tellLag(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// tellLag sets the metrics of what is owned, and drops those of what is not. The
// ends of a lane that Kafka does not tell are left out.
func (p *Processor) tellLag(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, lagEvery)
	defer cancel()
	pulses := p.lags.newest()
	var ends [event.LaneCount]map[int32]int64
	for i := range pulses {
		if lane := pulses[i].Lane; ends[lane] == nil {
			ends[lane], _ = p.cluster.Offsets(bounded, p.cfg.Names.Requests(lane), kafka.End())
		}
	}
	p.metrics.lag.Reset()
	p.metrics.uncommitted.Reset()
	for i := range pulses {
		d := &pulses[i].Data
		lane, partition := pulses[i].Lane.String(), strconv.Itoa(int(pulses[i].Partition))
		p.metrics.uncommitted.WithLabelValues(lane, partition).Set(float64(max(0, d.Consumed-d.Watermark)))
		if end, ok := ends[pulses[i].Lane][pulses[i].Partition]; ok {
			p.metrics.lag.WithLabelValues(lane, partition).Set(float64(max(0, end-d.Watermark)))
		}
	}
}
