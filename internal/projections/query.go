package projections

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/penstock-io/penstock/internal/api"
	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
	"github.com/penstock-io/penstock/internal/job"
)

const (
	// MaxWait bounds ?wait=.
	MaxWait = 60 * time.Second
	// maxValues bounds how often a filter may be repeated.
	maxValues = 50
)

// queryOf reads a query's parameters, and refuses those that are not among the
// known ones.
func queryOf(r *http.Request, known ...string) (url.Values, error) {
	q, err := api.Query(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if !slices.Contains(known, name) {
			return nil, fault.Param(name, "the parameter %.80q is not known here: it may be %s", name, strings.Join(known, ", "))
		}
	}
	return q, nil
}

// filterOf reads the query of a list.
func filterOf(r *http.Request) (Filter, error) {
	q, err := queryOf(r, "status", "lane", "batch", "conversation", "created_after", "limit", "after", "order")
	if err != nil {
		return Filter{}, err
	}
	for name, values := range q {
		if len(values) > maxValues {
			return Filter{}, fault.Param(name, "%s stands %d times: %d at most", name, len(values), maxValues)
		}
	}
	var f Filter
	for _, v := range q["status"] {
		if !slices.Contains(job.Statuses(), job.Status(v)) {
			return f, fault.Param("status", "status: %.80q is none: it must be one of %s", v, join(job.Statuses()))
		}
		f.Status = append(f.Status, job.Status(v))
	}
	for _, v := range q["lane"] {
		lane, err := event.ParseLane(v)
		if err != nil {
			return f, fault.Param("lane", "lane: %.80q is none: it must be interactive, standard or batch", v)
		}
		f.Lane = append(f.Lane, lane)
	}
	for _, ids := range [...]struct {
		name string
		to   *[]string
	}{{"batch", &f.Batch}, {"conversation", &f.Conversation}} {
		for _, v := range q[ids.name] {
			if !event.ValidID(v) {
				return f, fault.Param(ids.name, "%s: %.140q is no id: it must be 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-', beginning with a letter or digit", ids.name, v)
			}
			*ids.to = append(*ids.to, v)
		}
	}
	return f, pageOf(q, &f)
}

func join[T ~string](values []T) string {
	var b strings.Builder
	for i, v := range values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(v))
	}
	return b.String()
}

// pageOf reads what says which page of the list is meant.
func pageOf(q url.Values, f *Filter) error {
	v, ok, err := api.Single(q, "created_after")
	if err != nil {
		return err
	}
	if ok {
		if f.CreatedAfter, err = time.Parse(time.RFC3339Nano, v); err != nil || f.CreatedAfter.Year() < firstYear || f.CreatedAfter.Year() > lastYear {
			return fault.Param("created_after", `created_after: %.60q is no time: it must be an RFC 3339 time such as "2026-11-22T15:04:05Z"; a '+' is written %%2B`, v)
		}
	}
	if v, ok, err = api.Single(q, "limit"); err != nil {
		return err
	}
	if ok {
		n, whole := api.Digits(v)
		if !whole || n < 1 || n > MaxLimit {
			return limitFault(v)
		}
		f.Limit = int(n)
	}
	if v, ok, err = api.Single(q, "after"); err != nil {
		return err
	}
	if ok {
		if !event.ValidID(v) {
			return fault.Param("after", "after: %.140q is no job's id: it must be the last_id of the page before", v)
		}
		f.After = v
	}
	if v, ok, err = api.Single(q, "order"); err != nil {
		return err
	}
	if ok && v != "asc" && v != "desc" {
		return fault.Param("order", "order: %.40q is none: it must be asc, oldest first, or desc", v)
	}
	f.Ascending = v == "asc"
	return nil
}

// waitOf reads ?wait=, a time with its unit; 0 where absent.
func waitOf(q url.Values) (time.Duration, error) {
	v, ok, err := api.Single(q, "wait")
	if err != nil || !ok {
		return 0, err
	}
	wait, err := time.ParseDuration(v)
	if err != nil || wait < 0 || wait > MaxWait || strings.Trim(v, "0123456789+") == "" {
		return 0, fault.Param("wait", "wait: %.40q is none: it must be a time up to %s with its unit, such as 30s", v, MaxWait)
	}
	return wait, nil
}
