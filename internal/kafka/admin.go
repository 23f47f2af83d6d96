package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/penstock-io/penstock/internal/topics"
)

// createTimeoutMillis is what the controller gets to create topics.
const createTimeoutMillis = 15_000

// Describe tells of topics as the cluster has them, by name. One that is not
// there is left out; without names it tells of all.
func (c *Cluster) Describe(ctx context.Context, names ...string) ([]topics.Described, error) {
	details, err := c.admin.ListTopics(ctx, names...)
	if err != nil {
		return nil, unavailable("list topics", err)
	}
	var (
		found   []topics.Described
		present []string
	)
	for _, name := range slices.Sorted(maps.Keys(details)) {
		d := details[name]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			continue
		case d.Err != nil:
			return nil, unavailable("describe "+name, d.Err)
		}
		present = append(present, name)
		found = append(found, topics.Described{
			Name: name, ID: d.ID, Partitions: clamp32(len(d.Partitions)),
			Replication: replication(d), Configs: map[string]string{},
		})
	}
	if len(found) == 0 {
		return nil, nil
	}
	configs, err := c.admin.DescribeTopicConfigs(ctx, present...)
	if err != nil {
		return nil, unavailable("describe topics' configurations", err)
	}
	for i := range found {
		rc, err := configs.On(found[i].Name, nil)
		if err == nil {
			err = rc.Err
		}
		if err != nil {
			return nil, unavailable("describe the configuration of "+found[i].Name, err)
		}
		for _, cf := range rc.Configs {
			found[i].Configs[cf.Key] = cf.MaybeValue()
		}
	}
	return found, nil
}

func replication(d kadm.TopicDetail) int16 {
	return int16(d.Partitions.NumReplicas()) //nolint:gosec // A number of brokers.
}

// Apply makes changes good, in order. A Refuse among them keeps all of them
// from being made.
func (c *Cluster) Apply(ctx context.Context, changes []topics.Change) error {
	for _, ch := range changes {
		if ch.Kind == topics.Refuse {
			return fmt.Errorf("%w: %s: %s", topics.ErrMismatch, ch.Topic.Name, ch.Reason)
		}
	}
	for _, ch := range changes {
		var err error
		switch ch.Kind {
		case topics.Create:
			err = c.create(ctx, ch.Topic)
		case topics.Alter:
			err = c.alter(ctx, ch)
		default:
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// create makes a topic, and returns once every partition has a leader. One that
// is there already is somebody else's doing of the same, and no error.
func (c *Cluster) create(ctx context.Context, t topics.Topic) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = createTimeoutMillis
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.Name, t.Partitions, t.Replication
	for _, key := range slices.Sorted(maps.Keys(t.Configs)) {
		cf := kmsg.NewCreateTopicsRequestTopicConfig()
		cf.Name, cf.Value = key, new(t.Configs[key])
		rt.Configs = append(rt.Configs, cf)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return unavailable("create "+t.Name, err)
	}
	for _, rt := range resp.Topics {
		err := kerr.ErrorForCode(rt.ErrorCode)
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			continue
		}
		if rt.ErrorMessage != nil {
			err = fmt.Errorf("%w (%s)", err, *rt.ErrorMessage)
		}
		return unavailable("create "+t.Name, err)
	}
	return c.led(ctx, t)
}

// led waits until a new topic can be used.
func (c *Cluster) led(ctx context.Context, t topics.Topic) error {
	for tries := 1; ; tries++ {
		m, err := c.refresh(ctx, t.Name)
		if err == nil && len(m.leaders) == int(t.Partitions) &&
			!slices.ContainsFunc(m.leaders, func(l leader) bool { return l.broker < 0 }) {
			return nil
		}
		if !wait(ctx, backoff(tries)) {
			return fmt.Errorf("wait for leaders of %s: %w", t.Name, errors.Join(err, ctx.Err()))
		}
	}
}

func (c *Cluster) alter(ctx context.Context, ch topics.Change) error {
	set := make([]kadm.AlterConfig, len(ch.Configs))
	for i, cf := range ch.Configs {
		set[i] = kadm.AlterConfig{Op: kadm.SetConfig, Name: cf.Key, Value: &cf.To}
	}
	resps, err := c.admin.AlterTopicConfigs(ctx, set, ch.Topic.Name)
	if err != nil {
		return unavailable("change "+ch.Topic.Name, err)
	}
	for _, r := range resps {
		if r.Err != nil {
			return unavailable("change "+ch.Topic.Name, fmt.Errorf("%w %s", r.Err, r.ErrMessage))
		}
	}
	return nil
}

// DeleteTopics deletes topics with all that they hold. One that is not there is
// no error.
func (c *Cluster) DeleteTopics(ctx context.Context, names ...string) error {
	resps, err := c.admin.DeleteTopics(ctx, names...)
	if err != nil {
		return unavailable("delete topics", err)
	}
	for name, r := range resps {
		if r.Err != nil && !errors.Is(r.Err, kerr.UnknownTopicOrPartition) {
			return unavailable("delete "+name, r.Err)
		}
	}
	return nil
}

// passingTries is how often a group's coordinator or a partition's leader is
// asked for again that is just moving, or being made on a new cluster: with
// backoff, some 5 s.
const passingTries = 10

// patiently asks again while a group has no coordinator, or a partition no leader.
func patiently(ctx context.Context, ask func() error) error {
	for tries := 1; ; tries++ {
		err := ask()
		passing := errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.CoordinatorLoadInProgress) ||
			errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.LeaderNotAvailable)
		if !passing || tries >= passingTries || !wait(ctx, backoff(tries)) {
			return err
		}
	}
}

// Committed tells how far a group has come: nothing for one that is not there.
func (c *Cluster) Committed(ctx context.Context, group string) (map[TopicPartition]Commit, error) {
	var resps kadm.OffsetResponses
	err := patiently(ctx, func() (err error) {
		resps, err = c.admin.FetchOffsets(ctx, group)
		return err
	})
	if errors.Is(err, kerr.GroupIDNotFound) {
		return map[TopicPartition]Commit{}, nil
	}
	if err != nil {
		return nil, unavailable("ask for the commits of group "+group, err)
	}
	got := map[TopicPartition]Commit{}
	for topic, parts := range resps {
		for p, r := range parts {
			if r.Err != nil {
				return nil, unavailable("ask for the commits of group "+group, r.Err)
			}
			if r.At >= 0 {
				tp := TopicPartition{topic, p}
				got[tp] = Commit{TopicPartition: tp, Next: r.At, LeaderEpoch: r.LeaderEpoch, Metadata: r.Metadata}
			}
		}
	}
	return got, nil
}

// Evict removes another member from a group, as if it had left: its partitions
// are handed on at once. ErrNotMember says that the group does not know it.
func (c *Cluster) Evict(ctx context.Context, group, member string) error {
	doing := "remove member " + member + " from group " + group
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = group, member
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID, m.Reason = member, new("a peer found it silent")
	req.Members = append(req.Members, m)
	var resp *kmsg.LeaveGroupResponse
	err := patiently(ctx, func() (err error) {
		if resp, err = req.RequestWith(ctx, c.client); err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.ErrorCode)
	})
	if err != nil {
		return unavailable(doing, err)
	}
	for _, m := range resp.Members {
		if err := kerr.ErrorForCode(m.ErrorCode); err != nil {
			return unavailable(doing, err)
		}
	}
	return nil
}
