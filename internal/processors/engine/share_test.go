package engine

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
)

// none reserves nothing.
var none = [event.LaneCount]int{-1, -1, -1, -1}

// of gives requests to a tenant.
func of(tenant string, in Requests) Requests {
	for _, r := range in.Requests {
		r.Head.Tenant = tenant
	}
	return in
}

// endOf ends a call of a tenant.
func endOf(e *Engine, now time.Time, s Start) []Start {
	l := e.lanes[s.LP]
	in := Ended{LP: s.LP, Gen: s.Gen, Offset: s.Request.Offset, Tenant: s.Request.Head.Tenant, Type: event.JobCompleted, Found: true, Attempt: 1, At: now}
	got := only[Start](e.Step(now, in))
	return append(got, only[Start](e.Step(now, FactWritten{LP: s.LP, Gen: l.gen, Offset: s.Request.Offset}))...)
}

func TestAnUrgentRequestWaitsForNoSlotBehindASaturatedLane(t *testing.T) {
	for _, calls := range []int{1024, 64, 4, 2} {
		e, lps, now := owned(t, 3, Config{MaxInFlight: calls})
		urgent, batch := lps[0], lps[2]
		got := only[Start](e.Step(*now, asked(batch, 0, 1500)))
		if len(got) == calls || len(got) == 0 {
			t.Fatalf("of %d calls the least urgent lane has %d", calls, len(got))
		}
		if got := only[Start](e.Step(*now, asked(urgent, 0, 1))); len(got) != 1 {
			t.Errorf("of %d calls none was left for an urgent request", calls)
		}
	}
}

func TestReservesByDefault(t *testing.T) {
	for calls, want := range map[int][3]int{1: {}, 2: {1, 0, 0}, 3: {1, 1, 0}, 4: {1, 1, 1}, 100: {1, 1, 1}, 1024: {16, 8, 8}} {
		c := Config{MaxInFlight: calls}.withDefaults()
		got := [3]int(c.Reserved[event.Interactive:])
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("of %d calls: %s", calls, diff)
		}
	}
}

func TestAReserveIsForLanesThatAreHere(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxInFlight: 1024})
	if got := only[Start](e.Step(*now, asked(lps[0], 0, 1500))); len(got) != 1024 {
		t.Errorf("a process that works on one lane alone gives it %d of its 1,024 calls", len(got))
	}
	e, lps, now = owned(t, 3, Config{MaxInFlight: 1024})
	for _, lp := range lps {
		e.Step(*now, Lost{lps[1]})
		e.Step(*now, Lost{lps[2]})
		if got := only[Start](e.Step(*now, asked(lp, 0, 1500))); lp == lps[0] && len(got) != 1024 {
			t.Errorf("once the others are gone, it has %d", len(got))
		}
	}
}

func TestNoLaneStarvesAnotherHoweverFewTheCalls(t *testing.T) {
	for _, calls := range []int{1, 2, 3, 8} {
		e, lps, now := owned(t, 3, Config{MaxInFlight: calls, Reserved: none})
		var running []Start
		for _, lp := range lps {
			running = append(running, only[Start](e.Step(*now, asked(lp, 0, 1000)))...)
		}
		count, longest, last := map[event.Lane]int{}, map[event.Lane]time.Duration{}, map[event.Lane]time.Time{}
		begun := *now
		const each = 500 * time.Millisecond // a call, and less than a lease
		for range 1000 {
			*now = now.Add(each / time.Duration(calls))
			e.Step(*now, LeaseRenewed{Sent: *now, Member: "m"})
			s := running[0]
			running = running[1:]
			for _, next := range endOf(e, *now, s) {
				running = append(running, next)
				if last[next.Lane].IsZero() {
					last[next.Lane] = begun
				}
				longest[next.Lane] = max(longest[next.Lane], now.Sub(last[next.Lane]))
				last[next.Lane] = *now
				count[next.Lane]++
			}
		}
		const bound = 45 * time.Second // 8 calls, and 7 times Ageing
		for _, lane := range event.Lanes() {
			if count[lane] < 10 || longest[lane] > bound {
				t.Errorf("%d calls: %s got %d of 1,000, and waited %v", calls, lane, count[lane], longest[lane])
			}
		}
		if count[event.Interactive] < count[event.Standard] || count[event.Standard] < count[event.Batch] {
			t.Errorf("%d calls: the more urgent got less: %v", calls, count)
		}
	}
}

func TestTenantsTakeTurns(t *testing.T) {
	e, lps, now := owned(t, 6, Config{MaxInFlight: 2, Reserved: none})
	running := only[Start](e.Step(*now, of("many", asked(lps[0], 0, 300))))
	running = append(running, only[Start](e.Step(*now, of("many", asked(lps[3], 0, 300))))...)
	e.Step(*now, of("few", asked(lps[0], 300, 10)))
	e.Step(*now, of("other", asked(lps[3], 300, 10)))
	var order []string
	for range 30 {
		s := running[0]
		running = running[1:]
		for _, next := range endOf(e, *now, s) {
			running = append(running, next)
			order = append(order, next.Request.Head.Tenant)
		}
	}
	for _, who := range []string{"few", "other"} {
		if n := len(slices.DeleteFunc(slices.Clone(order), func(o string) bool { return o != who })); n != 10 {
			t.Errorf("%s got %d of the 30 calls behind 600 requests of another's: %s", who, n, strings.Join(order, " "))
		}
	}
}

// A tenant whose requests went with their LP may still stand in turns when it comes
// back by another: it is one all the same.
func TestATenantThatComesBackIsOne(t *testing.T) {
	e, lps, now := owned(t, 6, Config{MaxInFlight: 4, MaxPerTenant: 1, Reserved: none})
	gone, stays := lps[0], lps[3]
	next := 0
	ask := func(lp LP, tenant string) []Start {
		in := of(tenant, asked(lp, next, 1))
		next++
		return slices.Clone(only[Start](e.Step(*now, in)))
	}
	var running []Start
	for i := range 4 {
		running = append(running, ask(stays, "busy"+strconv.Itoa(i))...)
	}
	ask(gone, "a") // waits
	for i := range idleTenants + 16 {
		ask(stays, "waits"+strconv.Itoa(i))
	}
	e.Step(*now, Lost{gone})
	for range 5 {
		ask(stays, "a")
	}
	for len(running) > 0 { // those of a last, so that they are under way for long
		i := slices.IndexFunc(running, func(s Start) bool { return s.Request.Head.Tenant != "a" })
		s := running[max(i, 0)]
		running = append(slices.Delete(running, max(i, 0), max(i, 0)+1), endOf(e, *now, s)...)
		others := func(s Start) bool { return s.Request.Head.Tenant != "a" }
		if n := len(slices.DeleteFunc(slices.Clone(running), others)); n > 1 {
			t.Fatalf("it has %d calls, and may have one", n)
		}
	}
	if n := len(e.lanes[stays].entries); n != 0 {
		t.Errorf("%d requests never got a call", n)
	}
}

func TestATenantHasNoMoreCallsThanItsBound(t *testing.T) {
	e, lps, now := owned(t, 6, Config{MaxInFlight: 10, MaxPerTenant: 3, Reserved: none})
	var running []Start
	for _, lp := range lps {
		running = append(running, only[Start](e.Step(*now, of("one", asked(lp, 0, 20))))...)
	}
	if len(running) != 3 {
		t.Fatalf("%d calls of one tenant", len(running))
	}
	if w := e.pulseOf(e.lanes[lps[0]]).Data.Waiting; w != 0 {
		t.Errorf("%d are said to wait for a free call, and wait for their own tenant's", w)
	}
	if got := only[Start](e.Step(*now, of("two", asked(lps[0], 20, 5)))); len(got) != 3 {
		t.Errorf("another tenant got %d", len(got))
	}
	total := len(running)
	for len(running) > 0 {
		s := running[0]
		running = running[1:]
		for _, next := range endOf(e, *now, s) {
			if next.Request.Head.Tenant == "one" {
				running = append(running, next)
				total++
			}
		}
		if n := e.share.tenants["one"].calls; n > 3 {
			t.Fatalf("%d calls", n)
		}
	}
	if total != 120 {
		t.Errorf("%d of 120 were run: the rest found no turn again", total)
	}
}

func TestTenantsThatAreThroughAreForgotten(t *testing.T) {
	e, lps, now := owned(t, 3, Config{})
	for i := range 3000 {
		lp := lps[i%3]
		for _, s := range only[Start](e.Step(*now, of("tenant-"+string(rune('a'+i%26))+time.Duration(i).String(), asked(lp, i/3, 1)))) {
			endOf(e, *now, s)
		}
	}
	if n := len(e.share.tenants); n > idleTenants+3*idleReady {
		t.Errorf("%d tenants are remembered", n)
	}
	for _, lp := range lps {
		e.Step(*now, Lost{lp})
	}
	if n := len(e.share.tenants); n > idleTenants {
		t.Errorf("%d tenants are remembered of LPs that are gone", n)
	}
}

func TestBoundsThatCannotBeAreNamed(t *testing.T) {
	for want, c := range map[string]Config{
		"":                  {},
		"max-in-flight: -":  {MaxInFlight: -1},
		"max-per-tenant: -": {MaxPerTenant: -1},
		"max-window: -":     {MaxWindow: -5},
		"max-span: 20001":   {MaxSpan: 20_001},
		"reserved: 12 calls for all lanes together, of 8 in all": {MaxInFlight: 8, Reserved: [event.LaneCount]int{0, 4, 4, 4}},
	} {
		err := c.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
