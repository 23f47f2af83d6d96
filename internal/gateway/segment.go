package gateway

import (
	"sort"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fence"
)

// entry is one record of the token topic, its head scanned once for all readers.
type entry struct {
	offset      int64
	leaderEpoch int32
	view        event.View // the zero View for what is no event: the fence drops it
	raw         []byte
	// embeds tells whether raw is JSON in UTF-8, as it has to be within a frame
	// that is JSON itself: 0 while nobody has looked.
	embeds atomic.Int32
	// cursor is the place behind the record as the last reader wrote it: most
	// readers have seen the same epochs, so it is written once for all of them.
	cursor atomic.Pointer[placed]
	// Of a segment's entries: the newest epochs known behind it, and the next
	// entry of the same job and of the same conversation, -1 where there is none.
	epochs          *fence.Epochs
	ofJob, ofSpeech int32
}

// The answers of entry.embeds.
const (
	embedsYes = 1
	embedsNo  = 2
)

// embeddable tells whether the record can stand within JSON as it is. ScanHead
// has not looked into its data; whoever asks first does.
func (e *entry) embeddable() bool {
	answer := e.embeds.Load()
	if answer == 0 {
		answer = embedsNo
		if jsontext.Value(e.raw).IsValid() {
			answer = embedsYes
		}
		e.embeds.Store(answer)
	}
	return answer == embedsYes
}

// placed is a cursor's text, and the epochs that are in it.
type placed struct {
	epochs fence.Epochs
	text   string
}

// spot is a place in a partition, and what is known of all that lies before it.
type spot struct {
	next        int64 // the offset of the first record behind it
	leaderEpoch int32 // of the record before it; -1: not known
	epochs      fence.Epochs
}

// subject is what records are of: a job or a conversation. The zero subject is
// all records.
type subject struct {
	kind subjectKind
	id   string
}

type subjectKind uint8

const (
	ofAll subjectKind = iota
	ofJob
	ofConversation
)

// run is what a segment has of one subject: entries that are chained.
type run struct {
	first, last int32
	count       int
	bytes       int // of its records
	// watchers is how many were rung for it; set before any of them looks.
	watchers int
	shared   [formats]atomic.Pointer[shared]
}

// segment is what one poll brought of a partition, and an index of it by
// subject, made once: a watcher finds its own records without a look at the
// others', and is left asleep where there are none. It is never changed.
type segment struct {
	entries []entry
	runs    map[subject]*run
	before  spot      // where it begins
	behind  spot      // where it ends: it covers the offsets between the two
	bytes   int       // with what may be made of it for several watchers
	taken   time.Time // what it covers was in the log by then
	corrupt bool      // nothing of what it covers can be decoded
}

// segmentOverhead is about what a segment costs beside its entries, in bytes, and
// runOverhead what each of its runs does.
const (
	segmentOverhead = int(unsafe.Sizeof(segment{})) + 2*int(unsafe.Sizeof((*segment)(nil)))
	runOverhead     = int(unsafe.Sizeof(run{})) + 2*int(unsafe.Sizeof(subject{})) + 48
)

// newSegment makes a segment of what was read behind a spot.
func newSegment(before spot, entries []entry, bytes int, next int64, taken time.Time) *segment {
	s := &segment{entries: entries, before: before, behind: before, taken: taken, runs: map[subject]*run{}}
	s.behind.next = next
	known := &s.before.epochs
	for i := range entries {
		e := &entries[i]
		if v := &e.view; v.Lane != event.NoLane && (v.Type.Output() || v.Type == event.LaneClaimed) && v.Epoch > known[v.Lane] {
			more := *known
			more[v.Lane] = v.Epoch
			known = &more
		}
		e.epochs, e.ofJob, e.ofSpeech = known, -1, -1
		s.chain(int32(i), ofJob, e.view.Job)
		s.chain(int32(i), ofConversation, e.view.Conversation)
		s.behind.leaderEpoch = e.leaderEpoch
	}
	s.behind.epochs = *known
	s.bytes = bytes + segmentOverhead + len(s.runs)*runOverhead
	return s
}

// newHole makes a segment of a batch that cannot be decoded.
func newHole(before spot, next int64, taken time.Time) *segment {
	s := newSegment(before, nil, 0, next, taken)
	s.corrupt, s.behind.leaderEpoch = true, -1
	return s
}

// chain adds an entry to the run of its subject.
func (s *segment) chain(at int32, kind subjectKind, id []byte) {
	if len(id) == 0 {
		return
	}
	r := s.runs[subject{kind, string(id)}]
	if r == nil {
		s.runs[subject{kind, string(id)}] = &run{first: at, last: at, count: 1, bytes: len(s.entries[at].raw)}
		return
	}
	*s.entries[r.last].following(kind) = at
	r.last = at
	r.count++
	r.bytes += len(s.entries[at].raw)
}

// shareable is about what a run costs once it was made for several watchers, in
// bytes, in every wire format.
func (r *run) shareable() int {
	const around = 128 // an event: its cursor, and what frames it
	return formats * (int(unsafe.Sizeof(shared{})) + r.bytes + r.count*around)
}

// following is the next entry of the same subject.
func (e *entry) following(kind subjectKind) *int32 {
	if kind == ofConversation {
		return &e.ofSpeech
	}
	return &e.ofJob
}

// entryBytes is about what an entry costs beside its record, in bytes, with the cursor
// that is written for it once somebody has read it.
const (
	cursorBytes = 64 // of its text
	entryBytes  = int(unsafe.Sizeof(entry{})+unsafe.Sizeof(placed{})) + cursorBytes
)

// scan makes entries of records, passing over those below from.
func scan(records []event.Record, from int64) (entries []entry, bytes int) {
	for len(records) > 0 && records[0].Offset < from {
		records = records[1:]
	}
	if len(records) == 0 {
		return nil, 0
	}
	entries = make([]entry, len(records))
	for i := range records {
		rec, e := &records[i], &entries[i]
		e.offset, e.leaderEpoch, e.raw = rec.Offset, rec.LeaderEpoch, rec.Value
		if v, err := event.ScanHead(rec.Value); err == nil {
			e.view = v
		}
		bytes += len(rec.Value) + len(rec.Key)
	}
	return entries, bytes + len(entries)*entryBytes
}

// find returns the index of the first entry at offset or behind it.
func find(entries []entry, offset int64) int {
	return sort.Search(len(entries), func(i int) bool { return entries[i].offset >= offset })
}
