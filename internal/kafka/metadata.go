package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topicMeta is where a topic's partitions are led. It is never changed once
// made.
type topicMeta struct {
	name    string
	id      [16]byte
	leaders []leader // by partition
}

// leader is a partition's leader; broker is -1 where there is none.
type leader struct {
	broker int32
	epoch  int32
}

func (m *topicMeta) leader(partition int32) leader {
	if m == nil || partition < 0 || int(partition) >= len(m.leaders) {
		return leader{-1, -1}
	}
	return m.leaders[partition]
}

// cached returns what is known of a topic, and nil where nothing is.
func (c *Cluster) cached(topic string) *topicMeta {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.topics[topic]
}

// topic returns what is known of a topic, asking where nothing is.
func (c *Cluster) topic(ctx context.Context, topic string) (*topicMeta, error) {
	if m := c.cached(topic); m != nil {
		return m, nil
	}
	return c.refresh(ctx, topic)
}

// refresh asks for a topic's leaders. The error is of ErrUnknownTopic where
// there is no such topic.
func (c *Cluster) refresh(ctx context.Context, topic string) (*topicMeta, error) {
	doing := "ask where " + topic + " is"
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = new(topic)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return nil, unavailable(doing, err)
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("%s: the broker answered for %d topics", doing, len(resp.Topics))
	}
	t := resp.Topics[0]
	if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
		c.mu.Lock()
		delete(c.topics, topic)
		c.mu.Unlock()
		return nil, unavailable(doing, err)
	}
	m := &topicMeta{name: topic, id: t.TopicID, leaders: make([]leader, len(t.Partitions))}
	for i := range m.leaders {
		m.leaders[i] = leader{-1, -1}
	}
	for _, p := range t.Partitions {
		if int(p.Partition) < len(m.leaders) && p.ErrorCode == 0 {
			m.leaders[p.Partition] = leader{p.Leader, p.LeaderEpoch}
		}
	}
	c.mu.Lock()
	c.topics[topic] = m
	c.mu.Unlock()
	return m, nil
}

// TopicID asks for a topic's id, which is new with every creation.
func (c *Cluster) TopicID(ctx context.Context, topic string) ([16]byte, error) {
	m, err := c.refresh(ctx, topic)
	if err != nil {
		return [16]byte{}, err
	}
	return m.id, nil
}
