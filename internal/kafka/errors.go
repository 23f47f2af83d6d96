package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What can be told of a record, a partition or a member. They come wrapped in
// detail: test with errors.Is.
var (
	// ErrUnknownOutcome says that a record may be in the log or not.
	ErrUnknownOutcome = errors.New("the record may be in the log or not")
	// ErrRefused says that a record is surely not in the log.
	ErrRefused = errors.New("the record is not in the log")
	// ErrTooLarge says that a record is refused (ErrRefused) for its size: more
	// than its topic takes, today and whoever writes it.
	ErrTooLarge = errors.New("it is larger than the topic takes")
	// ErrFull says that the producer's buffer is full: nothing was taken.
	ErrFull = errors.New("the producer's buffer is full")
	// ErrMetadataTooLarge says that commit metadata is over MaxMetadataBytes.
	ErrMetadataTooLarge = errors.New("the commit metadata is too large")
	// ErrTruncated says that the log lost what stood at a position.
	ErrTruncated = errors.New("the log was truncated")
	// ErrOutOfRange says that retention took a position; it comes as an
	// OutOfRangeError, which tells the earliest one.
	ErrOutOfRange = errors.New("the offset is before the log's start")
	// ErrRecreated says that a topic of this name is another one than before.
	ErrRecreated = errors.New("the topic was deleted and created anew")
	// ErrCorrupt says that a batch of records cannot be decoded; it comes as a
	// CorruptError, which tells where it stands and where to go on.
	ErrCorrupt = errors.New("a batch of records cannot be decoded")
	// ErrUnknownTopic says that there is no such topic or partition.
	ErrUnknownTopic = errors.New("unknown topic or partition")
	// ErrUnavailable says that no broker answered in time.
	ErrUnavailable = errors.New("kafka is not available")
	// ErrNotMember says that the group does not know this member, or not in
	// this generation, or that the partition is not this member's.
	ErrNotMember = errors.New("not a member of the group")
	// ErrDenied says that the brokers' access rules forbid it, or that they or
	// this process do not accept who the other says to be.
	ErrDenied = errors.New("access is denied")
	// ErrClosed says that the value was closed.
	ErrClosed = errors.New("closed")
)

// OutOfRangeError tells where a log begins whose earlier part was asked for.
type OutOfRangeError struct {
	TopicPartition
	Offset   int64 // that was asked for
	Earliest int64 // offset that can be read
}

// Error implements error.
func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("%s: offset %d was asked for, the earliest is %d: %s",
		e.TopicPartition, e.Offset, e.Earliest, ErrOutOfRange)
}

// Is makes errors.Is(err, ErrOutOfRange) hold.
func (*OutOfRangeError) Is(target error) bool { return target == ErrOutOfRange }

// refusals are the broker's answers that say that a batch was not appended and
// will not be.
func refusal(err error) bool {
	var ke *kerr.Error
	if !errors.As(err, &ke) {
		return false
	}
	switch ke {
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.InvalidTopicException,
		kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.UnsupportedForMessageFormat,
		kerr.PolicyViolation, kerr.NotEnoughReplicas, kerr.InvalidRequiredAcks:
		return true
	default:
		return false
	}
}

// gaveUp tells whether the client ended a record by itself, by its context, its
// delivery timeout or its retries.
func gaveUp(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, kgo.ErrRecordRetries)
}

// unavailable wraps the error of a request that a broker did not answer, and
// translates the answers that have a name here.
func unavailable(doing string, err error) error {
	var ke *kerr.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("%s: the Kafka client is %w", doing, ErrClosed)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	case !errors.As(err, &ke):
		return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return fmt.Errorf("%s: %w: create it with `penstock topic apply`", doing, ErrUnknownTopic)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed),
		errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fmt.Errorf("%s: %w: %w", doing, ErrDenied, err)
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration),
		errors.Is(err, kerr.FencedInstanceID):
		return fmt.Errorf("%s: %w: %w", doing, ErrNotMember, err)
	case ke.Retriable:
		return fmt.Errorf("%s: %w: %w", doing, ErrUnavailable, err)
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
}

// denied tells whether a broker did not accept the user or the mechanism
// (KIP-152), or one side the other's certificate: to ask again does not help.
func denied(err error) bool {
	var (
		unknown *tls.CertificateVerificationError
		op      *net.OpError
	)
	return errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.UnsupportedSaslMechanism) ||
		errors.As(err, &unknown) || errors.As(err, &op) && op.Op == "remote error" // as crypto/tls calls an alert
}
