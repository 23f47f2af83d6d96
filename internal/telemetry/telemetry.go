// Package telemetry sets logging and tracing up. What is logged, and the metrics,
// belong to the packages that have something to say; there is no global logger
// and no global tracer.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Format is how log lines are written.
type Format string

// The formats.
const (
	Auto Format = "auto" // Text on a terminal, else JSON
	Text Format = "text"
	JSON Format = "json"
)

// Config says how to log.
type Config struct {
	Level    slog.Level // the zero value is info
	Format   Format     // "" is Auto
	Terminal bool       // whether a person reads along
}

// ParseLevel reads the name of a level: debug, info, warn or error, in any case.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("%q is no log level: it must be debug, info, warn or error", name)
	}
}

// NewLogger makes a logger that writes to w, a line a Write. A line whose context
// has a span names its trace.
func NewLogger(w io.Writer, cfg Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.Level}
	if cfg.Format == Text || cfg.Format != JSON && cfg.Terminal {
		return slog.New(traced{slog.NewTextHandler(w, opts)})
	}
	return slog.New(traced{slog.NewJSONHandler(w, opts)})
}
