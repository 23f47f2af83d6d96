package gateway

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/integer"
	"github.com/penstock-io/penstock/internal/job"
)

// The ops of a client's frames.
const (
	opSubscribe   = "subscribe"
	opUnsubscribe = "unsubscribe"
	opCredit      = "credit"
	opSubmit      = "submit"
	opCancel      = "cancel"
	opPing        = "ping"
)

const (
	// maxName bounds ref and sub, in bytes.
	maxName = 128
	// maxCredit bounds what one frame may ask for, so that sums do not overflow.
	maxCredit = 1 << 40
)

// clientFrame is a frame of a client's that has what its op needs.
type clientFrame struct {
	op, ref, sub string

	job, conversation, batch, topic string // subscribe: one of them; cancel: job
	partition                       *int32
	from                            string // subscribe with topic: an offset, as ?offset= has it
	cursor                          string
	snapshot                        bool
	credit                          int64 // subscribe: -1 where absent; credit: n

	key  string         // submit
	body jsontext.Value // submit's job, undecoded
}

// The frames as they are written, by op. Pointers tell what is absent.
type (
	anyWire struct {
		Op  string `json:"op"`
		Ref string `json:"ref"`
		Sub string `json:"sub"`
	}
	subscribeWire struct {
		anyWire
		Job          string         `json:"job"`
		Conversation string         `json:"conversation"`
		Batch        string         `json:"batch"`
		Topic        string         `json:"topic"`
		Partition    *integer.Int   `json:"partition"`
		Offset       jsontext.Value `json:"offset"`
		Cursor       string         `json:"cursor"`
		Snapshot     bool           `json:"snapshot"`
		Credit       *integer.Int   `json:"credit"`
	}
	creditWire struct {
		anyWire
		N *integer.Int `json:"n"`
	}
	submitWire struct {
		anyWire
		Key *string        `json:"idempotency_key"`
		Job jsontext.Value `json:"job"`
	}
	cancelWire struct {
		anyWire
		Job       string       `json:"job"`
		Partition *integer.Int `json:"partition"`
	}
)

// decodeFrame reads a client's frame. Beside an error the frame has its ref, if
// one could be read.
func decodeFrame(raw []byte) (clientFrame, error) {
	var w anyWire
	if jsontext.Value(bytes.TrimLeft(raw, " \t\r\n")).Kind() != '{' {
		return clientFrame{}, frameFault(api.DecodeJSON(raw, &w))
	}
	if err := json.Unmarshal(raw, &w); err != nil { // other members are looked at by op
		return clientFrame{}, frameFault(api.JSONFault(raw, err))
	}
	f := clientFrame{op: w.Op, ref: w.Ref, sub: w.Sub, credit: -1}
	if n := len(f.ref); n > maxName {
		f.ref, f.sub = "", ""
		return f, fault.Param("ref", "ref has %d bytes: %d at most", n, maxName)
	}
	if n := len(f.sub); n > maxName {
		f.sub = ""
		return f, fault.Param("sub", "sub has %d bytes: %d at most", n, maxName)
	}
	return f, f.fill(raw)
}

// frameFault speaks of a frame where HTTP would speak of a body.
func frameFault(err error) error {
	if err == nil {
		return nil
	}
	f := *fault.From(err)
	f.Message = strings.Replace(f.Message, "the body", "the frame", 1)
	return &f
}

// fill reads what the op needs.
func (f *clientFrame) fill(raw []byte) error {
	switch f.op {
	case opSubscribe:
		return f.subscribe(raw)
	case opUnsubscribe:
		if err := decodeOp(raw, &anyWire{}); err != nil {
			return err
		}
		return need("sub", f.sub)
	case opCredit:
		var w creditWire
		if err := decodeOp(raw, &w); err != nil {
			return err
		}
		if w.N == nil || *w.N < 1 || *w.N > maxCredit {
			return fault.Param("n", "n must be a number of events, 1 to %d", int64(maxCredit))
		}
		f.credit = int64(*w.N)
		return need("sub", f.sub)
	case opSubmit:
		var w submitWire
		if err := decodeOp(raw, &w); err != nil {
			return err
		}
		if w.Job == nil {
			return fault.Param("job", "job is missing: it must be an object as POST /v1/jobs takes it")
		}
		if w.Key != nil && *w.Key == "" {
			return fault.Param("idempotency_key", "idempotency_key is empty: leave it out, or give 1 to 255 visible ASCII characters")
		}
		if f.body = w.Job; w.Key != nil {
			f.key = *w.Key
		}
		return nil
	case opCancel:
		var w cancelWire
		if err := decodeOp(raw, &w); err != nil {
			return err
		}
		f.job = job.Canonical(w.Job)
		if err := f.place(w.Partition); err != nil {
			return err
		}
		return need("job", f.job)
	case opPing:
		return decodeOp(raw, &anyWire{})
	case "":
		return fault.Param("op", "op is missing: it must be subscribe, unsubscribe, credit, submit, cancel or ping")
	default:
		return fault.Param("op", "op: %.40q is not known: it must be subscribe, unsubscribe, credit, submit, cancel or ping", f.op)
	}
}

func decodeOp(raw []byte, v any) error { return frameFault(api.DecodeJSON(raw, v)) }

func need(name, value string) error {
	if value == "" {
		return fault.Param(name, "%s is missing", name)
	}
	return nil
}

func (f *clientFrame) subscribe(raw []byte) error {
	var w subscribeWire
	if err := decodeOp(raw, &w); err != nil {
		return err
	}
	f.job, f.conversation, f.batch, f.topic = job.Canonical(w.Job), w.Conversation, w.Batch, w.Topic
	f.cursor, f.snapshot = w.Cursor, w.Snapshot
	if err := f.place(w.Partition); err != nil {
		return err
	}
	if err := need("sub", f.sub); err != nil {
		return err
	}
	named := 0
	for _, v := range []string{f.job, f.conversation, f.batch, f.topic} {
		if v != "" {
			named++
		}
	}
	if named != 1 {
		return fault.New(fault.InvalidRequest, "the frame names %d things to subscribe to: it must name one, by job, conversation, batch or topic", named)
	}
	if f.conversation != "" && !event.ValidID(f.conversation) {
		return fault.Param("conversation", "conversation: %.140q is no id", f.conversation)
	}
	if w.Credit != nil {
		if *w.Credit < 1 || *w.Credit > maxCredit {
			return fault.Param("credit", "credit must be a number of events, 1 to %d; leave it out for all", int64(maxCredit))
		}
		f.credit = int64(*w.Credit)
	}
	if f.snapshot && (f.cursor != "" || f.topic != "") {
		return fault.Param("snapshot", "snapshot goes with a job or a conversation, and without a cursor")
	}
	return f.offset(w.Offset)
}

// place takes a partition's number, which may be any of those that Kafka has.
func (f *clientFrame) place(p *integer.Int) error {
	if p == nil {
		return nil
	}
	if *p < 0 || *p > math.MaxInt32 {
		return fault.Param("partition", "there is no partition %d: they are numbered from 0", *p)
	}
	n := int32(*p)
	f.partition = &n
	return nil
}

// offset reads where in a topic to begin: a number, or a word.
func (f *clientFrame) offset(raw jsontext.Value) error {
	switch {
	case f.topic == "" && raw != nil && raw.Kind() != 'n':
		return fault.Param("offset", "offset goes with topic and partition")
	case f.topic == "":
		return nil
	case f.topic != "tokens":
		return fault.Param("topic", "topic: %.80q cannot be subscribed to: it must be tokens", f.topic)
	case f.partition == nil:
		return fault.Param("partition", "partition is missing: a topic is subscribed to by partition")
	}
	switch raw.Kind() {
	case 'n', jsontext.KindInvalid:
	case '0':
		n, ok := integer.Parse(raw)
		if !ok || n < 0 {
			return fault.Param("offset", "offset: %.40s is no offset: it must be a whole number from 0", raw)
		}
		f.from = strconv.FormatInt(n, 10)
	case '"':
		text, err := jsontext.AppendUnquote(nil, raw)
		if f.from = string(text); err != nil || f.from != "earliest" && f.from != "latest" {
			return fault.Param("offset", "offset: %.40s is none: it must be a number, \"earliest\" or \"latest\"", raw)
		}
	default:
		return fault.Param("offset", "offset is a JSON %s: it must be a number, \"earliest\" or \"latest\"", api.KindName(raw.Kind()))
	}
	if f.from != "" && f.cursor != "" {
		return fault.Param("offset", "a subscription begins at an offset or behind a cursor, and not at both")
	}
	return nil
}
