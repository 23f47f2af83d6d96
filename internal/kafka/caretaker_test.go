package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/internal/event"
)

// A partition that has no leader keeps no other from being asked about.
func TestAPartitionWithoutALeaderStopsNoOther(t *testing.T) {
	t.Parallel()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(0), kfake.SeedTopics(2, "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	no := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := Open(ctx, Config{Brokers: broker.ListenAddrs()})
	no(err)
	defer c.Close()
	p, err := c.NewProducer(ProducerConfig{})
	no(err)
	defer p.Close()
	_, err = p.Append(ctx, event.Record{Topic: "tokens", Partition: 0, Value: []byte("a")})
	no(err)

	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = new("tokens")
	req.Topics = append(req.Topics, topic)
	known, err := req.RequestWith(ctx, c.client)
	no(err)
	epoch := int32(-1)
	for i := range known.Topics[0].Partitions {
		switch part := &known.Topics[0].Partitions[i]; part.Partition {
		case 0:
			epoch = part.LeaderEpoch
		case 1:
			part.Leader, part.ErrorCode = -1, kerr.LeaderNotAvailable.Code
		}
	}
	broker.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		resp := r.ResponseKind().(*kmsg.MetadataResponse) //nolint:forcetypeassert // It is the key's.
		version := r.GetVersion()
		*resp = *known
		resp.Version = version
		return resp, nil, true
	})
	_, err = c.refresh(ctx, "tokens")
	no(err)

	tail, err := c.NewTail(TailConfig{Topic: "tokens"})
	no(err)
	defer tail.Close()
	tail.Follow(1, 0)
	tail.FollowEpoch(0, 0, epoch) // which has to be asked about
	for {
		chunks, err := tail.Poll(ctx)
		if err != nil {
			t.Fatalf("nothing came of the partition that has a leader: %v", err)
		}
		for _, ch := range chunks {
			if ch.Partition == 0 && len(ch.Records) == 1 {
				return
			}
		}
	}
}
