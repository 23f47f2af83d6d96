package bare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Sizes of the bare task loop, and how it gathers what it writes.
const (
	taskPoll     = 5000 // records of a poll, and of a transaction
	taskLinger   = 5 * time.Millisecond
	taskBuffered = 100_000
)

// Project writes what one poll of the jobs topic brought: what each job has
// said, and through which offset each partition was read. It is to do both or
// nothing.
type Project func(ctx context.Context, ids, outputs []string, through map[int32]int64) error

// taskRequest and taskFact are the loop's records.
type taskRequest struct {
	Job  string          `json:"job"`
	Body json.RawMessage `json:"body"`
}

type taskFact struct {
	Type string `json:"type"`
	Job  string `json:"job"`
	Seq  int    `json:"seq"`
	Out  string `json:"out"`
}

// Tasks is the bare loop of a whole task, with no engine, no fence, no order and
// no read-back: a group consumer reads requests, decodes them, and writes one
// record to a tokens topic and one to a jobs topic; a second consumer has those
// projected. It is what Penstock's tasks a second are measured against.
type Tasks struct {
	name   string
	client *kgo.Client
	admin  *kadm.Client
	count  int
	topics []string // requests, tokens, jobs
	seeds  kgo.Opt
}

// NewTasks makes the topics and writes so many requests. name must be unique to
// the run.
func NewTasks(ctx context.Context, brokers []string, name string, count int) (_ *Tasks, err error) {
	t := &Tasks{name: name, count: count, topics: []string{name + ".rq", name + ".tk", name + ".jb"}, seeds: kgo.SeedBrokers(brokers...)}
	t.client, err = kgo.NewClient(t.seeds, kgo.ProducerLinger(taskLinger), kgo.MaxBufferedRecords(taskBuffered))
	if err != nil {
		return nil, fmt.Errorf("bare: %w", err)
	}
	defer func() {
		if err != nil {
			t.Close(ctx)
		}
	}()
	t.admin = kadm.NewClient(t.client)
	if _, err := t.admin.CreateTopics(ctx, partitions, 1, nil, t.topics...); err != nil {
		return nil, fmt.Errorf("bare: create topics: %w", err)
	}
	body := json.RawMessage(`{"model":"sim","messages":[{"role":"user","content":"hello there, how are you doing today?"}]}`)
	var failed atomic.Pointer[error]
	for i := range count {
		id := fmt.Sprintf("job_%032d", i)
		value, err := json.Marshal(taskRequest{id, body})
		if err != nil {
			return nil, fmt.Errorf("bare: %w", err)
		}
		t.client.Produce(ctx, &kgo.Record{Topic: t.topics[0], Key: []byte(id), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := t.client.Flush(ctx); err != nil {
		return nil, fmt.Errorf("bare: write the requests: %w", err)
	}
	if err := failed.Load(); err != nil {
		return nil, fmt.Errorf("bare: write the requests: %w", *err)
	}
	return t, nil
}

// Run works all requests off, and returns how long it took from before the first
// was asked for until the last was projected.
func (t *Tasks) Run(ctx context.Context, project Project) (time.Duration, error) {
	ctx, stop := context.WithCancelCause(ctx)
	var both sync.WaitGroup
	begun := time.Now()
	both.Go(func() {
		if err := t.work(ctx); err != nil {
			stop(err)
		}
	})
	err := t.project(ctx, project)
	took := time.Since(begun)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	stop(nil)
	both.Wait()
	if err != nil {
		return 0, fmt.Errorf("bare: %w", err)
	}
	return took, nil
}

// work is the group consumer.
func (t *Tasks) work(ctx context.Context) error {
	worker, err := kgo.NewClient(t.seeds, kgo.ConsumerGroup(t.name), kgo.ConsumeTopics(t.topics[0]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		return err //nolint:wrapcheck // Run does
	}
	defer worker.Close()
	var failed atomic.Pointer[error]
	settled := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.Store(&err)
		}
	}
	for ctx.Err() == nil {
		var bad error
		worker.PollRecords(ctx, taskPoll).EachRecord(func(r *kgo.Record) {
			var q taskRequest
			if err := json.Unmarshal(r.Value, &q); err != nil {
				bad = err
				return
			}
			value, err := json.Marshal(taskFact{"completed", q.Job, 0, "hello"})
			bad = errors.Join(bad, err)
			t.client.Produce(ctx, &kgo.Record{Topic: t.topics[1], Key: r.Key, Value: value}, settled)
			t.client.Produce(ctx, &kgo.Record{Topic: t.topics[2], Key: r.Key, Value: value}, settled)
		})
		if err := worker.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
			return err //nolint:wrapcheck // Run does
		}
		if err := failed.Load(); err != nil && ctx.Err() == nil {
			return *err
		}
		if bad != nil {
			return bad
		}
	}
	return nil
}

// project is the second consumer.
func (t *Tasks) project(ctx context.Context, project Project) error {
	reader, err := kgo.NewClient(t.seeds, kgo.ConsumeTopics(t.topics[2]), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err //nolint:wrapcheck // Run does
	}
	defer reader.Close()
	for done := 0; done < t.count; {
		ids, outputs, through := make([]string, 0, taskPoll), make([]string, 0, taskPoll), map[int32]int64{}
		fetches := reader.PollRecords(ctx, taskPoll)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var bad error
		fetches.EachRecord(func(r *kgo.Record) {
			var f taskFact
			if err := json.Unmarshal(r.Value, &f); err != nil {
				bad = err
				return
			}
			ids, outputs = append(ids, f.Job), append(outputs, f.Out)
			through[r.Partition] = r.Offset
		})
		if bad != nil {
			return bad
		}
		if err := project(ctx, ids, outputs, through); err != nil {
			return err
		}
		done += len(ids)
	}
	return nil
}

// Close ends the client and deletes the topics and the group.
func (t *Tasks) Close(ctx context.Context) {
	const goodbye = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if t.admin != nil {
		_, _ = t.admin.DeleteTopics(ctx, t.topics...) // left behind, they hold what a bench wrote
		_, _ = t.admin.DeleteGroups(ctx, t.name)
	}
	t.client.Close()
}
