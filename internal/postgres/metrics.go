package postgres

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Register registers metrics of a pool, of which a process has one. A nil
// registerer keeps none.
func Register(reg prometheus.Registerer, pool *pgxpool.Pool) error {
	if reg == nil {
		return nil
	}
	gauge := func(name, help string, of func(*pgxpool.Stat) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_postgres_" + name, Help: help},
			func() float64 { return of(pool.Stat()) })
	}
	counter := func(name, help string, of func(*pgxpool.Stat) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "penstock_postgres_" + name, Help: help},
			func() float64 { return of(pool.Stat()) })
	}
	for _, c := range []prometheus.Collector{
		gauge("connections_max", "Connections that the pool may have.",
			func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) }),
		gauge("connections_open", "Connections that the pool has.",
			func(s *pgxpool.Stat) float64 { return float64(s.TotalConns()) }),
		gauge("connections_used", "Connections that are in use.",
			func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) }),
		counter("connections_opened_total", "Connections that were opened.",
			func(s *pgxpool.Stat) float64 { return float64(s.NewConnsCount()) }),
		counter("acquires_total", "Times that a connection was taken from the pool.",
			func(s *pgxpool.Stat) float64 { return float64(s.AcquireCount()) }),
		counter("acquire_waits_total", "Of those, times that none was free at once.",
			func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) }),
		counter("acquire_cancelled_total", "Times that the wait for a connection was given up.",
			func(s *pgxpool.Stat) float64 { return float64(s.CanceledAcquireCount()) }),
		counter("acquire_seconds_total", "Time spent taking connections.",
			func(s *pgxpool.Stat) float64 { return s.AcquireDuration().Seconds() }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register the database's metrics: %w", err)
		}
	}
	return nil
}
