package api

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/penstock-io/penstock/internal/fault"
)

// Query reads a request's query. A part that cannot be read is refused, where
// URL.Query would leave it out and say nothing.
func Query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fault.Wrap(err, fault.InvalidRequest, "the query cannot be read: its values must be percent-encoded")
	}
	return q, nil
}

// Single gives a parameter that may stand once; ok is false where it is absent.
func Single(q url.Values, name string) (value string, ok bool, err error) {
	values, ok := q[name]
	if len(values) > 1 {
		return "", false, fault.Param(name, "%s stands %d times: it may stand once", name, len(values))
	}
	if !ok {
		return "", false, nil
	}
	return values[0], true, nil
}

// Digits reads a whole number from 0 of a query or a path: digits alone, so that
// each number is written in one way. "+1" and "01" are none.
func Digits(text string) (n int64, ok bool) {
	if text == "" || len(text) > 1 && text[0] == '0' {
		return 0, false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// PartitionParam reads ?partition=, by which a client says where the job of an
// outside producer lies; nil where it is absent. There are as many partitions.
func PartitionParam(q url.Values, partitions int32) (*int32, error) {
	text, ok, err := Single(q, "partition")
	if err != nil || !ok {
		return nil, err
	}
	n, ok := Digits(text)
	if !ok || n >= int64(partitions) {
		return nil, fault.Param("partition", "partition: %.40q is none: it must be 0 to %d, in digits", text, partitions-1)
	}
	p := int32(n) //nolint:gosec // below partitions
	return &p, nil
}
