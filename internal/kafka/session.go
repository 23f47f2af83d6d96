package kafka

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// noSession is the epoch of a request that has no session, and ends the one
	// that it names.
	noSession = -1
	// goodbyeTimeout bounds the end of a session that nobody needs any more.
	goodbyeTimeout = 100 * time.Millisecond
)

// errSession says that the broker does not know a session any more, as after
// its restart or when it has given the session's room to another.
var errSession = errors.New("the broker has ended the fetch session")

// session is a lane's fetch session at its broker (KIP-227): the broker
// remembers the partitions, a request names those that changed and those to
// forget, and an answer leaves out those that have nothing new. A request at
// epoch 0 is whole and asks for a new session, in place of the one that it
// names; where the broker gives none every request stays whole.
//
// It belongs to its lane's goroutine.
type session struct {
	id      int32                       // 0: none
	epoch   int32                       // of the next request; 0 begins anew
	refused bool                        // the broker had none to give the last time
	parts   map[sessionKey]*sessionPart // as the broker knows them
	rounds  int
}

// sessionKey names a partition of a topic as created.
type sessionKey struct {
	TopicPartition
	id [16]byte
}

type sessionPart struct {
	wanted
	end   int64 // the high watermark as last told; -1 unknown
	round int   // in which it was last wanted
}

// asks tells whether the next request asks for a session and may get one.
func (s *session) asks() bool { return s.epoch == 0 && !s.refused }

// fetch sends one request for the wanted partitions and notes the answer. After
// an error the next request begins anew; errSession says to send it at once.
func (s *session) fetch(ctx context.Context, cl *kgo.Client, broker int32, parts []wanted, limits fetchLimits) (*kmsg.FetchResponse, error) {
	whole := s.epoch == 0
	resp, err := send(ctx, cl, broker, s.request(parts, limits), parts)
	if err != nil {
		s.epoch = 0
		if errors.Is(err, kerr.FetchSessionIDNotFound) {
			s.id = 0
		}
		if !whole && sessionEnded(err) {
			return nil, errSession
		}
		return nil, err
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			rp := &t.Partitions[j]
			p := s.parts[sessionKey{TopicPartition{t.Topic, rp.Partition}, t.TopicID}]
			switch {
			case p == nil:
			case rp.ErrorCode != 0:
				p.end = -1
			default:
				p.end = rp.HighWatermark
			}
		}
	}
	s.id, s.refused = resp.SessionID, resp.SessionID == 0
	switch {
	case s.refused:
		s.epoch = 0
	case s.epoch == math.MaxInt32:
		s.epoch = 1
	default:
		s.epoch++
	}
	return resp, nil
}

// request names what the broker does not know yet, and what it is to forget.
func (s *session) request(parts []wanted, limits fetchLimits) *kmsg.FetchRequest {
	req := limits.request()
	req.SessionID, req.SessionEpoch = s.id, s.epoch
	if s.epoch == 0 {
		s.parts = make(map[sessionKey]*sessionPart, len(parts))
	}
	s.rounds++
	for _, w := range parts {
		key := sessionKey{w.TopicPartition, w.id}
		p := s.parts[key]
		if p == nil {
			p = &sessionPart{end: -1}
			s.parts[key] = p
		}
		p.round = s.rounds
		if p.wanted != w {
			p.wanted = w
			name(req, w, limits)
		}
	}
	if len(s.parts) == len(parts) {
		return req
	}
	for key, p := range s.parts {
		if p.round == s.rounds {
			continue
		}
		delete(s.parts, key)
		f := kmsg.NewFetchRequestForgottenTopic()
		f.Topic, f.TopicID, f.Partitions = key.Topic, key.id, []int32{key.Partition}
		req.ForgottenTopics = append(req.ForgottenTopics, f)
	}
	return req
}

// end is a partition's high watermark: of the last answer too, where that left
// the partition out. -1 is unknown.
func (s *session) end(c *cursor) int64 {
	if p := s.parts[sessionKey{c.TopicPartition, c.id}]; p != nil {
		return p.end
	}
	return -1
}

// close gives the session's room at the broker back, if that is to be had in
// good time: else the broker takes it when it needs it.
func (s *session) close(cl *kgo.Client, broker int32) {
	if s.id == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	req := fetchLimits{}.request()
	req.SessionID, req.SessionEpoch = s.id, noSession
	_, _ = send(ctx, cl, broker, req, nil)
}

func sessionEnded(err error) bool {
	return errors.Is(err, kerr.FetchSessionIDNotFound) || errors.Is(err, kerr.InvalidFetchSessionEpoch) ||
		errors.Is(err, kerr.FetchSessionTopicIDError)
}
