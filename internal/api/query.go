package api

import (
	"net/url"
	"strconv"

	"github.com/penstock-io/penstock/internal/fault"
)

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
	values := q["partition"]
	switch len(values) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, fault.Param("partition", "partition stands %d times: it may stand once", len(values))
	}
	n, ok := Digits(values[0])
	if !ok || n >= int64(partitions) {
		return nil, fault.Param("partition", "partition: %.40q is none: it must be 0 to %d, in digits", values[0], partitions-1)
	}
	p := int32(n) //nolint:gosec // below partitions
	return &p, nil
}
