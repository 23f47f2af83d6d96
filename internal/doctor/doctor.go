// Package doctor says what is wrong with a deployment, why, and what to do. Each
// check is a function that looks at one thing and changes nothing: it writes no
// record and no row.
//
// Run goes from what all else needs to what needs all else; what cannot be
// looked at, since something before it is away, is left out. It starts no
// goroutine.
package doctor

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/topics"
)

// Status is how something is.
type Status string

// The statuses.
const (
	OK   Status = "ok"
	Warn Status = "warn" // it works, and may soon not
	Fail Status = "fail" // it does not work
)

// Finding is what a check found. Why and Do are "" where all is well.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	What   string `json:"what"`
	Why    string `json:"why,omitzero"`
	Do     string `json:"do,omitzero"`
}

// Model is a provider of models that can be asked whether it answers.
type Model struct {
	Name  string
	Check func(context.Context) error // nil where it cannot be asked
}

// Config says what to look at.
type Config struct {
	Brokers  []string
	Security kafka.Security
	Topics   topics.Options
	Postgres string // URL; "" where none is configured
	MaxConns int    // connections of a process to PostgreSQL; default 16
	Models   []Model

	Patience time.Duration // for Kafka and PostgreSQL to answer; default 5 s
	Watch    time.Duration // for how long lag is watched; default 3 s
	Now      func() time.Time
}

// Run looks at everything, and tells each finding as it is made.
func Run(ctx context.Context, cfg Config, tell func(Finding)) {
	if cfg.Patience <= 0 {
		cfg.Patience = 5 * time.Second
	}
	if cfg.Watch <= 0 {
		cfg.Watch = 3 * time.Second
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 16
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Topics.Prefix == "" {
		cfg.Topics.Prefix = topics.DefaultPrefix
	}
	d := &visit{cfg: cfg, tell: func(list ...Finding) {
		for _, f := range list {
			tell(f)
		}
	}}
	cluster := d.kafka(ctx)
	if cluster != nil {
		defer cluster.Close()
	}
	pool := d.postgres(ctx)
	if pool != nil {
		defer pool.Close()
	}
	if cluster != nil && pool != nil {
		d.both(ctx, cluster, pool)
	}
	d.tell(d.asked(ctx, func(ctx context.Context) []Finding { return Models(ctx, cfg.Models) })...)
}

// visit is one run.
type visit struct {
	cfg  Config
	tell func(...Finding)
}

// asked gives a check its time.
func (d *visit) asked(ctx context.Context, check func(context.Context) []Finding) []Finding {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Patience)
	defer cancel()
	return check(ctx)
}

// kafka looks at the brokers, the topics and the processors. It returns nil where
// nobody answers.
func (d *visit) kafka(ctx context.Context) *kafka.Cluster {
	reached := d.asked(ctx, func(ctx context.Context) []Finding {
		return Reachable(ctx, (&net.Dialer{}).DialContext, d.cfg.Brokers)
	})
	d.tell(reached...)
	if worst(reached) == Fail {
		return nil
	}
	cluster, err := kafka.Open(ctx, kafka.Config{Brokers: d.cfg.Brokers, Security: d.cfg.Security, ConnectTimeout: d.cfg.Patience})
	if err != nil {
		d.tell(noKafka(err))
		return nil
	}
	list := d.asked(ctx, func(ctx context.Context) []Finding { return Listeners(ctx, cluster) })
	d.tell(list...)
	if worst(list) == Fail {
		cluster.Close()
		return nil
	}
	want := topics.Catalogue(d.cfg.Topics)
	var have []topics.Described
	found := d.asked(ctx, func(ctx context.Context) (list []Finding) {
		have, list = Topics(ctx, cluster, want)
		return list
	})
	d.tell(found...)
	if len(have) < len(want) {
		return cluster
	}
	names := topics.Names{Prefix: d.cfg.Topics.Prefix}
	d.tell(d.asked(ctx, func(ctx context.Context) []Finding { return Copies(ctx, cluster, want) })...)
	d.tell(Processors(ctx, d.cfg, cluster, names)...)
	d.tell(d.asked(ctx, func(ctx context.Context) []Finding {
		return ProcessorClocks(ctx, cluster, names, d.cfg.Now)
	})...)
	return cluster
}

// worst is the gravest status of a list.
func worst(list []Finding) Status {
	status := OK
	for _, f := range list {
		switch f.Status {
		case Fail:
			return Fail
		case Warn:
			status = Warn
		case OK:
		}
	}
	return status
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Status: OK, What: fmt.Sprintf(format, args...)}
}

// lanes are the names of the request topics by lane.
func lanes(names topics.Names) map[event.Lane]string {
	all := map[event.Lane]string{}
	for _, lane := range event.Lanes() {
		all[lane] = names.Requests(lane)
	}
	return all
}
