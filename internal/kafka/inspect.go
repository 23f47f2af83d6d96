package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Broker is a broker as the cluster names it.
type Broker struct {
	ID   int32
	Addr string // host:port at which it says that it can be reached
	Err  error  // why it does not answer there; nil where it does
	// Version is about which Kafka it is, such as "v4.0"; "" where it does not answer.
	Version string
	// TopicIDs tells whether it names topics by id, as Kafka does from 2.8 on
	// (KIP-516); we need that.
	TopicIDs bool
}

// metadataWithIDs is the version of a metadata answer from which topics have ids.
const metadataWithIDs = 10

// Brokers asks every broker at the address that the cluster has for it, until ctx
// ends. The error says that no broker could be asked for the list.
func (c *Cluster) Brokers(ctx context.Context) ([]Broker, error) {
	list, err := c.admin.ListBrokers(ctx)
	if err != nil {
		return nil, unavailable("ask for the cluster's brokers", err)
	}
	versions, err := c.admin.ApiVersions(ctx)
	if err != nil {
		return nil, unavailable("ask the brokers what they are", err)
	}
	brokers := make([]Broker, len(list))
	for i, b := range list {
		v, asked := versions[b.NodeID]
		brokers[i] = Broker{ID: b.NodeID, Addr: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))), Err: v.Err}
		if asked && v.Err == nil {
			newest, _ := v.KeyMaxVersion(kmsg.NewPtrMetadataRequest().Key())
			brokers[i].Version, brokers[i].TopicIDs = v.VersionGuess(), newest >= metadataWithIDs
		}
	}
	return brokers, nil
}

// Member is a member of a consumer group.
type Member struct {
	ID, Client, Host string
	Partitions       []TopicPartition
}

// Members tells who is in a group: nobody, where there is no such group.
func (c *Cluster) Members(ctx context.Context, group string) ([]Member, error) {
	var got kadm.DescribedGroups
	err := patiently(ctx, func() (err error) {
		got, err = c.admin.DescribeGroups(ctx, group)
		if err == nil {
			err = got[group].Err
		}
		return err
	})
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable("ask who is in group "+group, err)
	}
	members := make([]Member, 0, len(got[group].Members))
	for _, m := range got[group].Members {
		member := Member{ID: m.MemberID, Client: m.ClientID, Host: m.ClientHost}
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				for _, p := range t.Partitions {
					member.Partitions = append(member.Partitions, TopicPartition{t.Topic, p})
				}
			}
		}
		members = append(members, member)
	}
	return members, nil
}

// Unwell is a partition that cannot be written as it should.
type Unwell struct {
	TopicPartition
	Leaderless bool
	Copies     int // that it should have
	InSync     int // that are up to date
}

// Unwell lists the partitions of topics that have no leader, or copies that are
// behind.
func (c *Cluster) Unwell(ctx context.Context, names ...string) ([]Unwell, error) {
	details, err := c.admin.ListTopics(ctx, names...)
	if err != nil {
		return nil, unavailable("list topics", err)
	}
	var unwell []Unwell
	for _, d := range details.Sorted() {
		for _, p := range d.Partitions.Sorted() {
			u := Unwell{TopicPartition{d.Topic, p.Partition}, p.Leader < 0, len(p.Replicas), len(p.ISR)}
			if u.Leaderless || u.InSync < u.Copies {
				unwell = append(unwell, u)
			}
		}
	}
	return slices.Clip(unwell), nil
}

// Leader asks which broker leads a partition; -1 where none does.
func (c *Cluster) Leader(ctx context.Context, tp TopicPartition) (broker int32, err error) {
	meta, err := c.refresh(ctx, tp.Topic)
	if err != nil {
		return -1, err
	}
	return meta.leader(tp.Partition).broker, nil
}
