package telemetry_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/telemetry"
)

func TestNewLoggerWritesTextToATerminalAndJSONElsewhere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  telemetry.Config
		json bool
	}{
		"a terminal":         {telemetry.Config{Terminal: true}, false},
		"elsewhere":          {telemetry.Config{}, true},
		"auto elsewhere":     {telemetry.Config{Format: telemetry.Auto}, true},
		"json on a terminal": {telemetry.Config{Format: telemetry.JSON, Terminal: true}, true},
		"text elsewhere":     {telemetry.Config{Format: telemetry.Text}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			telemetry.NewLogger(&out, c.cfg).Info("hello", "answer", 42)
			if got := strings.HasPrefix(out.String(), "{"); got != c.json {
				t.Errorf("JSON is %v, want %v: %s", got, c.json, out.String())
			}
			if !strings.Contains(out.String(), "hello") || !strings.Contains(out.String(), "42") {
				t.Errorf("the line lacks what was logged: %s", out.String())
			}
		})
	}
}

func TestNewLoggerLeavesOutWhatIsBelowItsLevel(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := telemetry.NewLogger(&out, telemetry.Config{Level: slog.LevelWarn})
	log.Info("quiet")
	log.Warn("loud")
	if s := out.String(); strings.Contains(s, "quiet") || !strings.Contains(s, "loud") {
		t.Errorf("at level warn it wrote %q", s)
	}
}

func TestParseLevelKnowsFourNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]slog.Level{"debug": slog.LevelDebug, "Info": slog.LevelInfo, "WARN": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := telemetry.ParseLevel(name); err != nil || got != want {
			t.Errorf("ParseLevel(%q) = %v, %v; want %v", name, got, err, want)
		}
	}
	if _, err := telemetry.ParseLevel("loud"); err == nil || !strings.Contains(err.Error(), "debug, info, warn or error") {
		t.Errorf("ParseLevel of no level: %v, want what would be right", err)
	}
}
