package processors

import "github.com/penstock-io/penstock/internal/event"

// maxDeltaBytes bounds the text of one delta event, so that it fits into a
// record of the token topic whatever escaping makes of it.
const maxDeltaBytes = 128 << 10

// escaped is how many bytes of JSON one byte of text takes at most.
const escaped = 6

// plain tells whether a delta is text alone, which can be joined with others.
func plain(d *event.Delta) bool {
	return d.ToolCalls == nil && d.Logprobs == nil && d.Embedding == nil && d.Refusal == ""
}

// text is how much text there is in a delta, and raw how much that is not text
// and cannot be cut, in bytes.
func text(d *event.Delta) int { return len(d.Content) + len(d.Reasoning) + len(d.Refusal) }

func raw(d *event.Delta) int { return len(d.ToolCalls) + len(d.Logprobs) + len(d.Embedding) }

// silent tells whether a delta says nothing.
func silent(d *event.Delta) bool { return d.Content == "" && d.Reasoning == "" && plain(d) }

// cut takes at most maxDeltaBytes off s, at a rune's border.
func cut(s string) (part, rest string) {
	if len(s) <= maxDeltaBytes {
		return s, ""
	}
	n := maxDeltaBytes
	for n > maxDeltaBytes-4 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n], s[n:]
}
