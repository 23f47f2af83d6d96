package kafka

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestOutcomesAreToldApart(t *testing.T) {
	t.Parallel()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &Producer{metrics: m}
	for _, c := range []struct {
		err     error
		written bool
		want    error
	}{
		{kerr.MessageTooLarge, true, ErrRefused},
		{kerr.MessageTooLarge, true, ErrTooLarge},
		{kerr.RecordListTooLarge, true, ErrTooLarge},
		{kerr.TopicAuthorizationFailed, true, ErrRefused},
		{kerr.UnknownTopicOrPartition, true, ErrRefused},
		{kgo.ErrRecordTimeout, true, ErrRefused},
		{kgo.ErrRecordRetries, true, ErrRefused},
		{context.DeadlineExceeded, true, ErrRefused},
		{kgo.ErrClientClosed, false, ErrRefused},
		{kgo.ErrClientClosed, true, ErrUnknownOutcome},
		{kerr.OutOfOrderSequenceNumber, true, ErrUnknownOutcome},
		{kerr.NotEnoughReplicasAfterAppend, true, ErrUnknownOutcome},
		{io.EOF, true, ErrUnknownOutcome},
	} {
		got := p.outcome(&kgo.Record{Topic: "t"}, c.err, c.written)
		other := ErrRefused
		if !errors.Is(c.want, ErrUnknownOutcome) {
			other = ErrUnknownOutcome
		}
		if !errors.Is(got, c.want) || errors.Is(got, ErrUnknownOutcome) == errors.Is(got, ErrRefused) || errors.Is(got, other) || !errors.Is(got, c.err) {
			t.Errorf("%v, written %v: %v, want %v", c.err, c.written, got, c.want)
		}
	}
	if err := worst([]error{ErrRefused, ErrUnknownOutcome}); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("the worst of both is %v", err)
	}
}

func TestBrokersAnswersGetNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ err, want error }{
		{kgo.ErrClientClosed, ErrClosed},
		{context.Canceled, context.Canceled},
		{io.EOF, ErrUnavailable},
		{context.DeadlineExceeded, ErrUnavailable},
		{kerr.UnknownTopicID, ErrUnknownTopic},
		{kerr.UnknownMemberID, ErrNotMember},
		{kerr.IllegalGeneration, ErrNotMember},
		{kerr.CoordinatorNotAvailable, ErrUnavailable},
		{kerr.TopicAuthorizationFailed, kerr.TopicAuthorizationFailed},
		{nil, nil},
	} {
		if got := unavailable("do it", c.err); !errors.Is(got, c.want) {
			t.Errorf("%v is told as %v, want %v", c.err, got, c.want)
		}
	}
	oor := &OutOfRangeError{TopicPartition{"t", 3}, 1, 4}
	if s := oor.Error(); !strings.Contains(s, "t/3") || !strings.Contains(s, "the earliest is 4") {
		t.Errorf("out of range is told as %q", s)
	}
	if !passing(kerr.FencedLeaderEpoch) || passing(kerr.TopicAuthorizationFailed) || passing(ErrRecreated) {
		t.Error("what passes and what does not is mixed up")
	}
	if clamp32(-1) != 0 || clamp32(1<<40) != 1<<31-1 || clamp32(5) != 5 {
		t.Error("clamp32 does not clamp")
	}
}
