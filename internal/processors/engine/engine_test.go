package engine

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/processors/offsets"
)

// only returns the effects of one kind.
func only[F Effect](effects []Effect) (out []F) {
	for _, f := range effects {
		if f, ok := f.(F); ok {
			out = append(out, f)
		}
	}
	return out
}

func asked(lp LP, from, n int) Requests {
	in := Requests{LP: lp}
	for i := from; i < from+n; i++ {
		in.Requests = append(in.Requests, &Request{
			Offset: int64(i), Bytes: 10, Head: event.Head{Tenant: "t", Job: "j" + strconv.Itoa(i)},
		})
	}
	return in
}

// finish ends a request that was started, from its end to its fact.
func finish(e *Engine, now time.Time, lp LP, offset int64) []Effect {
	l := e.lanes[lp]
	in := Ended{LP: lp, Gen: l.gen, Tenant: "t", Offset: offset, Type: event.JobCompleted, Found: true, Attempt: 1, At: now}
	effects := append([]Effect(nil), e.Step(now, in)...)
	return append(effects, e.Step(now, FactWritten{LP: lp, Gen: l.gen, Offset: offset})...)
}

func TestLanesShareTheCallsByWeightAndNoneStarves(t *testing.T) {
	e, lps, now := owned(t, 3, Config{MaxInFlight: 13, Reserved: none})
	running := map[LP][]int64{}
	count := map[event.Lane]int{}
	note := func(effects []Effect) {
		for _, s := range only[Start](effects) {
			running[s.LP] = append(running[s.LP], s.Request.Offset)
			count[s.Lane]++
		}
	}
	// The least urgent lane has taken all slots before the others have work.
	for _, lp := range slices.Backward(lps) {
		note(e.Step(*now, asked(lp, 0, 600)))
	}
	if count[event.Batch] != 13 {
		t.Fatalf("an idle engine gives a lane all that it asks for, not %d", count[event.Batch])
	}
	for turn := range 390 { // whichever ends, its slot goes to who is furthest behind
		for i := range lps {
			lp := lps[(turn+i)%len(lps)]
			if len(running[lp]) > 0 {
				o := running[lp][0]
				running[lp] = running[lp][1:]
				note(finish(e, *now, lp, o))
				break
			}
		}
		if e.inFlight != 13 {
			t.Fatalf("%d calls of 13", e.inFlight)
		}
	}
	got := [3]int{len(running[lps[0]]), len(running[lps[1]]), len(running[lps[2]])}
	if diff := cmp.Diff([3]int{8, 4, 1}, got); diff != "" {
		t.Errorf("slots by lane: %s", diff)
	}
}

func TestPartitionsOfALaneTakeTurns(t *testing.T) {
	e, lps, now := owned(t, 6, Config{MaxInFlight: 4})
	e.Step(*now, asked(lps[0], 0, 50))
	e.Step(*now, asked(lps[3], 0, 50)) // the same lane of another partition
	started := map[LP]int{}
	for i := range int64(20) {
		for _, lp := range []LP{lps[0], lps[3]} {
			if l := e.lanes[lp]; l.entries[i] != nil && l.entries[i].started {
				for _, s := range only[Start](finish(e, *now, lp, i)) {
					started[s.LP]++
				}
			}
		}
	}
	if a, b := started[lps[0]], started[lps[3]]; a-b > 8 || b-a > 8 || a == 0 || b == 0 {
		t.Errorf("%d and %d were started of two partitions with the same to do", a, b)
	}
}

func TestAFullWindowPausesAndRoomResumes(t *testing.T) {
	for name, cfg := range map[string]Config{
		"requests": {MaxWindow: 4, MaxInFlight: 2},
		"bytes":    {MaxWindowBytes: 40, MaxInFlight: 2},
	} {
		t.Run(name, func(t *testing.T) {
			e, lps, now := owned(t, 1, cfg)
			lp := lps[0]
			if got := only[Pause](e.Step(*now, asked(lp, 0, 4))); len(got) != 0 {
				t.Error("a window that is just full was paused")
			}
			if got := only[Pause](e.Step(*now, asked(lp, 4, 3))); len(got) != 1 || e.Stats().Paused != 1 {
				t.Errorf("%v: a window with more to come was not paused", got)
			}
			resumed := 0
			for i := range int64(7) {
				if n := len(e.lanes[lp].entries); n > 4 {
					t.Errorf("%d in the window", n)
				}
				resumed += len(only[Resumed](finish(e, *now, lp, i)))
			}
			if resumed != 1 || e.Stats().Paused != 0 {
				t.Errorf("resumed %d times", resumed)
			}
		})
	}
}

func TestARequestLargerThanTheWindowRunsAlone(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxWindowBytes: 5})
	e.Step(*now, asked(lps[0], 0, 2))
	if l := e.lanes[lps[0]]; len(l.entries) != 1 || e.inFlight != 1 {
		t.Fatalf("%d in the window", len(l.entries))
	}
	if got := only[Start](finish(e, *now, lps[0], 0)); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestAStuckRequestHoldsNoMoreThanTheSpan(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxWindow: 5000, MaxInFlight: 10_000})
	lp := lps[0]
	next := 0
	for range 30 {
		e.Step(*now, asked(lp, next, 1000))
		next += 1000
		for o, en := range e.lanes[lp].entries {
			if o > 0 && en.started {
				finish(e, *now, lp, o)
			}
		}
	}
	l := e.lanes[lp]
	if l.tracker.Watermark() != 0 || l.tracker.Span() > offsets.MaxSpan || !l.paused {
		t.Errorf("%v, paused %v", l.tracker, l.paused)
	}
	if c := l.commit(); c.Metadata == "" || len(c.Metadata) > offsets.MaxMetadata {
		t.Errorf("the commit has %d bytes of metadata", len(c.Metadata))
	}
	finish(e, *now, lp, 0)
	if l.tracker.Watermark() < offsets.MaxSpan/2 || l.paused && len(l.entries) == 0 {
		t.Errorf("it did not go on: %v", l.tracker)
	}
}

func TestAHoleWiderThanTheSpanIsPassed(t *testing.T) {
	e, lps, now := owned(t, 1, Config{})
	in := asked(lps[0], 5*offsets.MaxSpan, 1)
	if got := only[Start](e.Step(*now, in)); len(got) != 1 {
		t.Fatal("a request behind a wide hole was not started")
	}
	finish(e, *now, lps[0], 5*offsets.MaxSpan)
	if w := e.lanes[lps[0]].tracker.Watermark(); w != 5*offsets.MaxSpan+1 {
		t.Errorf("watermark %d", w)
	}
}

func TestEndedJobsAreRememberedUpToABound(t *testing.T) {
	e, lps, now := owned(t, 1, Config{Recent: 3})
	lp := lps[0]
	for i := range 10 {
		e.Step(*now, asked(lp, i, 1))
		finish(e, *now, lp, int64(i))
	}
	if n := len(e.lanes[lp].recent.values); n != 3 {
		t.Errorf("%d are remembered", n)
	}
	again := asked(lp, 9, 1)
	again.Requests[0].Offset = 10 // the newest, once more
	if got := only[Start](e.Step(*now, again)); len(got) != 0 || e.lanes[lp].tracker.Watermark() != 11 {
		t.Errorf("a job that has ended was started again: %v", got)
	}
	again = asked(lp, 0, 1)
	again.Requests[0].Offset = 11 // the oldest: forgotten
	if got := only[Start](e.Step(*now, again)); len(got) != 1 {
		t.Error("a job that was forgotten was not started")
	}
}

func TestALapseStopsStartsUntilANewClaimIsReadBack(t *testing.T) {
	e, lps, now := owned(t, 1, Config{})
	lp := lps[0]
	gen := e.lanes[lp].gen
	*now = now.Add(time.Second)
	if got := only[Start](e.Step(*now, asked(lp, 0, 1))); len(got) != 0 {
		t.Fatal("started without a lease")
	}
	effects := e.Step(*now, LeaseRenewed{Sent: *now, Member: "m"})
	if len(only[Start](effects)) != 0 || len(only[FindEnd](effects)) != 1 {
		t.Fatalf("%v", effects)
	}
	claims := only[AppendClaim](e.Step(*now, Located{LP: lp, Gen: gen, End: 1}))
	if len(claims) != 1 || claims[0].Epoch != 2 || claims[0].Gen != gen {
		t.Fatalf("%v", claims)
	}
	effects = e.Step(*now, Tokens{Partition: 0, From: 1, Next: 2, Seen: []Seen{claimSeen(lp, 1, 2, "me")}})
	if o := only[Open](effects); len(o) != 1 || o[0].Epoch != 2 || len(only[Start](effects)) != 1 {
		t.Fatalf("%v", effects)
	}
	// The first claim again, late: it opens nothing.
	effects = e.Step(*now, Tokens{Partition: 0, From: 2, Next: 3, Seen: []Seen{claimSeen(lp, 2, 1, "me")}})
	if len(only[Open](effects)) != 0 || e.lanes[lp].epoch != 2 {
		t.Errorf("%v", effects)
	}
}

func TestAReleasedPulseSparesTheWaitOnlyWhereItIsTheNewestEpoch(t *testing.T) {
	lp := LP{event.Standard, 0}
	for _, tc := range []struct {
		name   string
		pulses []PulseSeen
		log    []Seen
		waits  bool
	}{
		{"nobody known", nil, nil, true},
		{"released", []PulseSeen{{LP: lp, Epoch: 4, Released: true}}, nil, false},
		{"alive", []PulseSeen{{LP: lp, Epoch: 4, Released: false}}, nil, true},
		{"released, then another", []PulseSeen{{LP: lp, Epoch: 4, Released: true}, {LP: lp, Epoch: 5, Released: false}}, nil, true},
		{"an older one released", []PulseSeen{{LP: lp, Epoch: 5, Released: false}, {LP: lp, Epoch: 4, Released: true}}, nil, true},
		{"the log knows a newer one", []PulseSeen{{LP: lp, Epoch: 4, Released: true}}, []Seen{claimSeen(lp, 0, 5, "other")}, true},
		{"the log knows the same", []PulseSeen{{LP: lp, Epoch: 4, Released: true}}, []Seen{claimSeen(lp, 0, 4, "other")}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, now := New(Config{Owner: "me"}), time.UnixMilli(1_700_000_000_000)
			e.Step(now, LeaseRenewed{Sent: now, Member: "m"})
			for _, p := range tc.pulses {
				e.Step(now, p)
			}
			e.Step(now, Assigned{LP: lp, Life: 1, Member: "m"})
			gen, end := e.lanes[lp].gen, int64(len(tc.log))
			var claimed bool
			for range 3 {
				effects := append([]Effect(nil), e.Step(now, Located{LP: lp, Gen: gen, End: end})...)
				effects = append(effects, e.Step(now, Tokens{Partition: 0, Next: end, Seen: tc.log})...)
				effects = append(effects, e.Step(now, Tick{})...)
				claimed = claimed || len(only[AppendClaim](effects)) > 0
			}
			if claimed == tc.waits {
				t.Fatalf("claimed at once: %v", claimed)
			}
			for range 40 { // two leases, with heartbeats
				now = now.Add(50 * time.Millisecond)
				effects := append([]Effect(nil), e.Step(now, LeaseRenewed{Sent: now, Member: "m"})...)
				effects = append(effects, e.Step(now, Located{LP: lp, Gen: gen, End: end})...)
				claimed = claimed || len(only[AppendClaim](effects)) > 0
			}
			if !claimed {
				t.Error("it was never claimed")
			}
		})
	}
}

func TestARequestOlderThanTheLogEndsAsExpired(t *testing.T) {
	lp := LP{event.Standard, 0}
	now := time.UnixMilli(1_700_000_000_000)
	id, err := job.Mint(now, "", 1, randomBytes{newWorld(seedOf(1), scenario{}).random})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		start        int64
		age          time.Duration
		repeat, want bool
	}{
		{0, time.Hour, false, false}, // nothing is gone from the log
		{7, time.Hour, false, true},
		{7, -time.Hour, false, false},
		{7, time.Hour, true, true},
	} {
		e := New(Config{Owner: "me"})
		e.Step(now, LeaseRenewed{Sent: now, Member: "m"})
		e.Step(now, PulseSeen{LP: lp, Released: true})
		e.Step(now, Assigned{LP: lp, Life: 1, Member: "m"})
		if tc.start > 0 {
			e.Step(now, TokensGone{Partition: 0, Earliest: tc.start})
		}
		e.Step(now, Located{LP: lp, Gen: 1, End: tc.start, LogStart: tc.start, Oldest: now})
		e.Step(now, Tokens{From: tc.start, Next: tc.start + 1, Seen: []Seen{claimSeen(lp, tc.start, 1, "me")}})
		r := &Request{Head: event.Head{Tenant: "t", Job: id}, Time: now.Add(-tc.age)}
		r.Data.Repeat = tc.repeat
		got := only[Start](e.Step(now, Requests{LP: lp, Requests: []*Request{r}}))
		if len(got) != 1 || got[0].Expired != tc.want {
			t.Errorf("%+v: %+v", tc, got)
		}
	}
}

func TestMetadataThatIsLostOrGarbageCostsTimeAlone(t *testing.T) {
	lp := LP{event.Standard, 0}
	good, err := offsets.Metadata{Bound: 40, Epoch: 3, Done: []offsets.Range{{From: 12, To: 14}}}.Encode(10)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "garbage", good[:len(good)-2], good + "A", good} {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			e, now := New(Config{Owner: "me"}), time.UnixMilli(1_700_000_000_000)
			from := int64(0)
			if text == good {
				from = 40
			}
			got := only[Follow](e.Step(now, Assigned{LP: lp, Life: 1, Member: "m", Next: 10, Metadata: text}))
			if diff := cmp.Diff([]Follow{{Partition: 0, From: from}}, got); diff != "" {
				t.Error(diff)
			}
			if w := e.lanes[lp].tracker.Watermark(); w != 10 {
				t.Errorf("watermark %d", w)
			}
		})
	}
}

// A committed bound behind the log's end is of what the log has lost. The lane is
// taken all the same, from what there is.
func TestABoundBehindTheLogsEndIsForgotten(t *testing.T) {
	text, err := offsets.Metadata{Bound: 1000, Epoch: 3, Done: []offsets.Range{{From: 12, To: 14}}}.Encode(10)
	if err != nil {
		t.Fatal(err)
	}
	lp := LP{event.Standard, 0}
	for name, learn := range map[string]func(e *Engine, now time.Time) []Effect{
		"asked where it ends": func(e *Engine, now time.Time) []Effect {
			return e.Step(now, Located{LP: lp, Gen: e.lanes[lp].gen, End: 3})
		},
		"told that it is not there": func(e *Engine, now time.Time) []Effect {
			return e.Step(now, TokensCut{Partition: 0})
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, now := New(Config{Owner: "me", Lease: time.Second, PulseLease: time.Hour}), time.UnixMilli(1_700_000_000_000)
			e.Step(now, LeaseRenewed{Sent: now, Member: "m"})
			e.Step(now, PulseSeen{LP: lp, Epoch: 3, Released: true})
			e.Step(now, Assigned{LP: lp, Life: 1, Member: "m", Next: 10, Metadata: text})
			got := learn(e, now)
			if diff := cmp.Diff([]Follow{{Partition: 0, From: 0}}, only[Follow](got)); diff != "" {
				t.Error(diff)
			}
			if seeks := only[Seek](got); len(seeks) != 1 || seeks[0].Next != 10 {
				t.Errorf("%v", seeks)
			}
			e.Step(now, Tokens{Partition: 0, From: 0, Next: 3, Seen: []Seen{claimSeen(lp, 2, 1, "other")}})
			now = now.Add(2 * time.Second)
			var claims []AppendClaim
			for _, in := range []Input{
				LeaseRenewed{Sent: now, Member: "m"},
				Located{LP: lp, Gen: e.lanes[lp].gen, End: 3, RequestsEnd: 20},
				LeaseRenewed{Sent: now, Member: "m"},
			} {
				claims = append(claims, only[AppendClaim](e.Step(now, in))...)
			}
			if len(claims) != 1 || claims[0].Epoch <= 3 {
				t.Fatalf("%+v, and there was an epoch 3", claims)
			}
			epoch := claims[0].Epoch
			e.Step(now, Cancels{Partition: 0})
			e.Step(now, Tokens{Partition: 0, From: 3, Next: 4, Seen: []Seen{claimSeen(lp, 3, epoch, "me")}})
			if l := e.lanes[lp]; l.epoch != epoch || !slices.Equal(l.tracker.Above(), []offsets.Range{{From: 12, To: 14}}) {
				t.Errorf("owned in epoch %d, done above: %v", l.epoch, l.tracker.Above())
			}
		})
	}
}

func TestRequestsThatLostTheirEndAreTakenInFromTheirBeginning(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxInFlight: 10})
	lp := lps[0]
	e.Step(*now, asked(lp, 0, 5))
	for i := range int64(5) {
		finish(e, *now, lp, i)
	}
	got := e.Step(*now, RequestsCut{LP: lp, Earliest: 2})
	if seeks := only[Seek](got); len(seeks) != 1 || seeks[0].Next != 2 {
		t.Errorf("%v", seeks)
	}
	if diff := cmp.Diff([]Follow{{Partition: 0, From: 0}}, only[Follow](got)); diff != "" {
		t.Error(diff) // what has ended is to be found
	}
	if shut := only[Shut](got); len(shut) != 1 || e.lanes[lp].tracker.Watermark() != 2 {
		t.Errorf("%v, watermark %d", shut, e.lanes[lp].tracker.Watermark())
	}
}

func TestLanesOfAPartitionShareOneReadingFromTheFurthestBehind(t *testing.T) {
	e, now := New(Config{Owner: "me"}), time.UnixMilli(1_700_000_000_000)
	at := func(bound int64) string {
		text, err := offsets.Metadata{Bound: bound}.Encode(0)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	e.Step(now, Assigned{LP: LP{event.Standard, 0}, Life: 1, Member: "m", Metadata: at(50)})
	for _, bound := range []int64{100, 20} {
		got := only[Follow](e.Step(now, Assigned{LP: LP{event.Batch, 0}, Life: 2, Member: "m", Metadata: at(bound)}))
		if diff := cmp.Diff([]Follow{{0, min(bound, 50)}}, got); diff != "" {
			t.Error(diff)
		}
	}
	// The reading stopped at an offset that both lanes have behind them.
	if got := only[Follow](e.Step(now, TokensGone{Partition: 0, Earliest: 5})); len(got) != 1 || got[0].From != 20 {
		t.Errorf("%v", got)
	}
	if got := only[Unfollow](e.Step(now, Lost{LP{event.Batch, 0}})); len(got) != 0 {
		t.Error("a partition that another lane reads was let go")
	}
	if got := only[Unfollow](e.Step(now, Lost{LP{event.Standard, 0}})); len(got) != 1 {
		t.Error("a partition that nobody needs is read on")
	}
}

func TestAnIdleLaneStillCommitsItsBoundNowAndThen(t *testing.T) {
	e, lps, now := owned(t, 1, Config{})
	var got []Commit
	for range 220 {
		*now = now.Add(100 * time.Millisecond)
		got = append(got, only[Commit](e.Step(*now, LeaseRenewed{Sent: *now, Member: "m"}))...)
		got = append(got, only[Commit](e.Step(*now, Tick{}))...)
	}
	if len(got) < 2 || len(got) > 4 {
		t.Fatalf("%d commits in 22 s", len(got))
	}
	if m := metadata(got[len(got)-1]); m.Bound != 1 || m.Epoch != 1 {
		t.Errorf("%+v of %v", m, lps)
	}
}

func TestADrainStartsNothingAndEndsWhatRuns(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxInFlight: 1})
	e.Step(*now, asked(lps[0], 0, 3))
	e.Step(*now, Drain{})
	if e.Idle() {
		t.Error("idle with a call in flight")
	}
	if got := only[Start](finish(e, *now, lps[0], 0)); len(got) != 0 || !e.Idle() {
		t.Errorf("%v, idle %v", got, e.Idle())
	}
	r := only[Release](e.Step(*now, Revoked{lps[0]}))
	if len(r) != 1 || r[0].Commit == nil || r[0].Commit.Next != 1 || !r[0].Pulse.Data.Released {
		t.Errorf("%+v", r)
	}
	if r := only[Release](e.Step(*now, Revoked{lps[0]})); len(r) != 1 || r[0].Commit != nil {
		t.Errorf("a LP that was never ours: %+v", r)
	}
}

func TestThePulseTellsWhatWaitsForACallFromWhatWaitsForItsOwn(t *testing.T) {
	e, lps, now := owned(t, 1, Config{MaxInFlight: 2, MaxWindow: 6})
	in := asked(lps[0], 0, 9)
	for _, i := range []int{0, 1, 2} { // one after the other
		in.Requests[i].Head.Conversation = "c"
	}
	e.Step(*now, in)
	l := e.lanes[lps[0]]
	// Two run (0 and 3), two wait for the first of their conversation, two are
	// ready, and three found no room in the window.
	got := e.pulseOf(l).Data
	if got.Consumed != 9 || got.InFlight != 9 || got.Running != 2 || got.Waiting != 5 {
		t.Errorf("%+v", got)
	}
	finish(e, *now, lps[0], 3)
	if got = e.pulseOf(l).Data; got.InFlight != 8 || got.Running != 2 || got.Waiting != 4 {
		t.Errorf("after one is done: %+v", got)
	}
}
