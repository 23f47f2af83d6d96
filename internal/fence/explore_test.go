package fence_test

import (
	"os"
	"strings"
	"testing"
)

// The explorer searches every interleaving of owners, leases, appends and
// readers of one lane of one partition: owners may
// stall anywhere and go on later, a new one may be assigned at any time while
// the old one lives, appends may land late or be reported lost and land all the
// same, and Kafka accepts commits of a partition that was lost. Claims go
// through fence.Claimer, what counts through fence.Filter, progress through
// job.Progress, driven as the engine drives them.

// small are explored always; large take minutes, and are explored where
// PENSTOCK_EXPLORE is set.
func small() map[string]model {
	return map[string]model{
		"two owners":                         {owners: 2, jobs: 1, last: 1},
		"two owners, a delta":                {owners: 2, jobs: 1, last: 2},
		"two owners, step by step":           {owners: 2, jobs: 1, last: 1, fine: true},
		"a lease lapses and comes back":      {owners: 2, jobs: 1, last: 1, lapses: 1},
		"one owner whose lease lapses twice": {owners: 1, jobs: 2, last: 1, lapses: 2},
		"one owner, lapses and failures":     {owners: 1, jobs: 1, last: 1, lapses: 1, fails: 2},
		"an append of unknown outcome":       {owners: 2, jobs: 1, last: 1, fails: 1},
		"a process gets its partition back":  {owners: 2, jobs: 1, last: 1, fails: 1, rejoin: true},
		"an owner has let go":                {owners: 2, jobs: 1, last: 1, release: true},
		"two jobs":                           {owners: 2, jobs: 2, last: 1},
		"three owners":                       {owners: 3, jobs: 1, last: 1},
	}
}

func large() map[string]model {
	return map[string]model{
		"one owner, many failures":       {owners: 1, jobs: 1, last: 2, lapses: 2, fails: 2},
		"lapses and failures":            {owners: 2, jobs: 1, last: 1, lapses: 1, fails: 1},
		"step by step, with failures":    {owners: 2, jobs: 1, last: 1, fails: 1, fine: true},
		"step by step, with lapses":      {owners: 2, jobs: 1, last: 2, lapses: 1, fine: true},
		"an owner has let go, two jobs":  {owners: 2, jobs: 2, last: 1, release: true},
		"an owner has let go, failures":  {owners: 2, jobs: 1, last: 1, release: true, fails: 1},
		"three owners, a delta":          {owners: 3, jobs: 1, last: 2},
		"three owners, one has let go":   {owners: 3, jobs: 1, last: 1, release: true},
		"two jobs, a delta":              {owners: 2, jobs: 2, last: 2},
		"two jobs, lapses":               {owners: 2, jobs: 2, last: 1, lapses: 1},
		"two jobs, failures, and rejoin": {owners: 2, jobs: 2, last: 1, fails: 1, rejoin: true},
	}
}

func TestNoInterleavingBreaksAPromise(t *testing.T) {
	explore := func(t *testing.T, m model) {
		t.Helper()
		if bad := m.run(); bad != "" {
			t.Fatalf("after %d states: %s", len(m.seen), bad)
		}
		if m.full {
			t.Fatal("the log is too short for what is explored: raise maxLog")
		}
		t.Logf("%d states", len(m.seen))
	}
	for name, m := range small() {
		t.Run(name, func(t *testing.T) { explore(t, m) })
	}
	if os.Getenv("PENSTOCK_EXPLORE") == "" {
		return
	}
	for name, m := range large() {
		t.Run("large: "+name, func(t *testing.T) { explore(t, m) })
	}
}

func TestEveryRuleIsNeeded(t *testing.T) {
	for _, c := range []struct {
		m    model
		says string
	}{
		{model{off: ruleFence}, "a reader from the start sees seqs"},
		{model{off: ruleReadback}, "a fact without a terminal event"},
		{model{off: ruleRefact}, "committed without its terminal event or its fact"},
		{model{off: ruleLease}, "a reader from its creation"},
		{model{off: ruleWait}, "a reader from its creation"},
		{model{off: ruleClaimLease}, "a reader from its creation"},
		{model{off: ruleHold, lapses: 1}, "a reader from the start sees seqs"},
		// Where nobody was spared the wait, leases do what this rule does.
		{model{off: ruleVerify, release: true}, "a reader from"},
		{model{off: ruleCover, release: true}, "a reader from its creation"},
		{model{off: ruleStale, fails: 1}, "nobody goes on"},
	} {
		t.Run(string(c.m.off), func(t *testing.T) {
			m := c.m
			m.owners, m.jobs, m.last, m.room = 2, 1, 1, 7
			bad := m.run()
			t.Logf("after %d states: %s", len(m.seen), bad)
			if !strings.Contains(bad, c.says) {
				t.Errorf("want a violation: %s", c.says)
			}
		})
	}
}
