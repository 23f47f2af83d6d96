package processors

import (
	"context"
	"errors"
	"time"

	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/processors/engine"
)

// evictTimeout bounds one removal; where it is not answered, the peer is found
// silent again.
const evictTimeout = time.Second

// evict removes a silent member from the group. All who find it silent ask, for
// the answer tells each from when on it was none: the coordinator removes it
// once, and tells the others that it knows no such member.
func (p *Processor) evict(f engine.Evict) {
	ctx, cancel := context.WithTimeout(p.alive, evictTimeout)
	defer cancel()
	err := p.cluster.Evict(ctx, p.cfg.Group, f.Member)
	result := "removed"
	switch {
	case err == nil:
		p.log.WarnContext(ctx, "a silent peer was removed from the group", "member", f.Member, "owner", f.Owner, "silent", f.Silent)
	case errors.Is(err, kafka.ErrNotMember):
		result = "gone"
		p.log.InfoContext(ctx, "a silent peer is no member of the group any more", "member", f.Member, "owner", f.Owner, "silent", f.Silent)
	default:
		result = "failed"
		p.log.WarnContext(ctx, "a silent peer could not be removed from the group", "member", f.Member, "owner", f.Owner, "error", err)
	}
	if result != "failed" {
		p.group.Rejoin()
	}
	p.metrics.evictions.WithLabelValues(result).Inc()
	p.box.post(engine.Evicted{Member: f.Member, Out: result != "failed"})
}
