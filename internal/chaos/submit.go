package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/gorilla/websocket"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/kafka"
)

// submitPatience is how long one try to submit a job may take: more than Kafka
// gets to take it.
const submitPatience = 15 * time.Second

// receipt is what a way in answers: the job, or why there is none, as a status
// of HTTP or a code of it.
type receipt struct {
	job     job.Resource
	refused string // for good: nobody should refuse a good job so
}

// submit submits a job until some gateway has accepted it, by t.byPost or bySocket:
// under one key, so that it is one job however often it is tried.
func (t *traffic) submit(ctx context.Context, w *wish, j *Job, by func(ctx context.Context, gateway, key string, body []byte) (receipt, error)) (partition int32, cursor string) {
	body := fmt.Appendf(nil, `{"lane":%q,"stream":%t,"body":%s}`, w.lane, w.stream, w.body)
	for ctx.Err() == nil {
		r, err := by(ctx, t.gateways[w.random.IntN(len(t.gateways))], w.key, body)
		switch {
		case err == nil && r.refused != "":
			j.ID = w.key
			t.fail(w.key, "a good job was answered "+r.refused)
			return 0, ""
		case err == nil && r.job.Request != nil:
			j.ID, j.Accepted = r.job.ID, true
			return r.job.Request.Partition, r.job.Cursor
		}
		pause(ctx, time.Duration(100+w.random.IntN(400))*time.Millisecond)
	}
	return 0, ""
}

// byPost submits over HTTP.
func (t *traffic) byPost(ctx context.Context, gateway, key string, body []byte) (r receipt, err error) {
	status, answer, err := t.ask(ctx, gateway+"/v1/jobs", key, body)
	switch {
	case err != nil:
	case status == http.StatusAccepted:
		err = json.Unmarshal(answer, &r.job)
	case status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusConflict:
		r.refused = fmt.Sprintf("%d: %s", status, answer)
	}
	return r, err
}

// bySocket submits over a WebSocket of its own.
func bySocket(ctx context.Context, gateway, key string, body []byte) (r receipt, err error) {
	ctx, cancel := context.WithTimeout(ctx, submitPatience)
	defer cancel()
	conn, hangUp, err := connect(ctx, gateway)
	if err != nil {
		return r, err
	}
	defer hangUp()
	if err := conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"op":"submit","ref":"1","idempotency_key":%q,"job":%s}`, key, body)); err != nil {
		return r, fmt.Errorf("submit: %w", err)
	}
	for {
		_, raw, err := conn.ReadMessage()
		if err != nil {
			return r, fmt.Errorf("read the answer: %w", err)
		}
		var f frame
		if err := json.Unmarshal(raw, &f); err != nil {
			return r, fmt.Errorf("read the answer: %w", err)
		}
		switch f.Op {
		case "accepted":
			r.job = f.Job
			return r, nil
		case "error":
			if f.Code == "invalid_request" || f.Code == "not_found" {
				r.refused = string(raw)
			}
			return r, nil
		case "goaway":
			return r, errCut
		default: // welcome
		}
	}
}

// connect opens a WebSocket, which hangUp or the end of ctx closes.
func connect(ctx context.Context, gateway string) (conn *websocket.Conn, hangUp func(), err error) {
	dialer := websocket.Dialer{Subprotocols: []string{"penstock.v1"}, HandshakeTimeout: silence}
	conn, resp, err := dialer.DialContext(ctx, strings.Replace(gateway, "http", "ws", 1)+"/v1/ws", nil)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	_ = resp.Body.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() {
		if stop() {
			_ = conn.Close()
		}
	}, nil
}

// fail tells of a job that no reader will follow.
func (t *traffic) fail(id, what string) {
	r := &Reader{Who: "a client", Job: id}
	r.Fail(Lost, what)
	t.add(r)
}

func (t *traffic) ask(ctx context.Context, url, key string, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, submitPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err //nolint:wrapcheck // it is told nobody
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return 0, nil, err //nolint:wrapcheck // as above
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err //nolint:wrapcheck // as above
}

// produce writes a job's request to Kafka, once, as an outside producer that
// chooses the partition as it likes. What was not acknowledged may run, or not.
func (t *traffic) produce(ctx context.Context, w *wish, j *Job) int32 {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	j.ID = w.key
	partition := w.random.Int32N(t.partitions)
	_, err := t.out.Append(ctx, event.Record{
		Topic: t.names.Requests(w.lane), Partition: partition, Key: []byte(w.key),
		Value: fmt.Appendf(nil, `{"job":%q,"data":{"stream":%t,"body":%s}}`, w.key, w.stream, w.body),
	})
	j.Accepted = err == nil
	if errors.Is(err, kafka.ErrRefused) {
		j.ID = ""
	}
	return partition
}
