package cli

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"

	"github.com/penstock-io/penstock/internal/telemetry"
)

// Where a value is from.
const (
	fromFlag    = "flag"
	fromEnv     = "env"
	fromFile    = "file"
	fromDefault = "default"
)

// settingTag marks the flags that can be set by environment and file as well.
const settingTag = "setting"

// configFlag names the flag of the file itself, which environment can set.
const configFlag = "config"

// settings resolves the flags that are not on the command line, and remembers
// where each is from. kong would take the environment of the process, and would
// let a file go before it.
type settings struct {
	env    func(string) (string, bool)
	path   string // of the file; "" for none
	loaded bool
	file   map[string]any
	source map[string]string // by flag; one on the command line is not in it
}

func newSettings(env func(string) (string, bool)) *settings {
	s := &settings{env: env, source: map[string]string{}}
	s.path, _ = s.lookup(envName(configFlag))
	return s
}

// lookup takes an empty variable for one that is not set.
func (s *settings) lookup(name string) (string, bool) {
	if s.env == nil {
		return "", false
	}
	v, ok := s.env(name)
	return v, ok && v != ""
}

// envName is the variable of a flag.
func envName(flag string) string {
	return "PENSTOCK_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// configFile is the flag --config.
type configFile string

// BeforeResolve is called where the flag is on the command line.
func (configFile) BeforeResolve(c *kong.Context, trace *kong.Path, s *settings) error {
	path, _ := c.FlagValue(trace.Flag).(configFile)
	s.path = string(path)
	return nil
}

// Validate implements kong.Resolver.
func (*settings) Validate(*kong.Application) error { return nil }

// fileError is a configuration file that is of no use. kong would blame a flag.
type fileError struct{ error }

func (e fileError) Unwrap() error { return e.error }

// Resolve implements kong.Resolver.
func (s *settings) Resolve(c *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if err := s.load(c); err != nil {
		return nil, fileError{err}
	}
	setting := flag.Tag.Has(settingTag)
	if !setting && flag.Name != configFlag {
		return nil, nil
	}
	if v, ok := s.lookup(envName(flag.Name)); ok {
		s.source[flag.Name] = fromEnv
		return v, nil
	}
	if v, ok := s.file[flag.Name]; ok && setting && v != nil {
		s.source[flag.Name] = fromFile
		return plain(v), nil
	}
	s.source[flag.Name] = fromDefault
	return nil, nil
}

// plain writes a YAML value as it would stand on a command line.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, key+"="+strings.ReplaceAll(fmt.Sprint(v[key]), ";", `\;`))
		}
		return strings.Join(parts, ";")
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			parts[i] = fmt.Sprint(e)
		}
		return strings.Join(parts, ",")
	default:
		return fmt.Sprint(v)
	}
}

// load reads the file, once, and refuses keys that are no setting's.
func (s *settings) load(c *kong.Context) error {
	if s.loaded {
		return nil
	}
	s.loaded = true
	if s.path == "" {
		return nil
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("read the configuration file: %w", err)
	}
	if err := yaml.Unmarshal(text, &s.file); err != nil {
		return fmt.Errorf("%s is not the YAML of settings: %w", s.path, err)
	}
	known := settingNames(c.Model)
	for key := range s.file {
		if !slices.Contains(known, key) {
			return fmt.Errorf("%s: %q is no setting: they are %s", s.path, key, strings.Join(known, ", "))
		}
	}
	return nil
}

// settingNames lists all settings of all commands, sorted.
func settingNames(app *kong.Application) []string {
	var names []string
	_ = kong.Visit(app, func(v kong.Visitable, next kong.Next) error { // the visitor gives no error
		if f, ok := v.(*kong.Flag); ok && f.Tag.Has(settingTag) {
			names = append(names, f.Name)
		}
		return next(nil)
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// from tells where a flag's value is from.
func (s *settings) from(flag string) string {
	if source, ok := s.source[flag]; ok {
		return source
	}
	return fromFlag
}

// helpOf is a flag's help, with its default where a placeholder stands in place of
// that, and the variable of a setting.
func helpOf(v *kong.Value) string {
	if v.Flag == nil {
		return v.Help
	}
	var more []string
	if v.Flag.PlaceHolder != "" && v.Default != "" {
		more = append(more, "default "+v.Default)
	}
	if v.Tag.Has(settingTag) || v.Name == configFlag {
		more = append(more, "$"+envName(v.Name))
	}
	if more == nil {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " (" + strings.Join(more, ", ") + ")."
}

// begin sets the level from which on is logged where none was asked for.
func (c *Common) begin(level string, set *settings) {
	if set.from("log-level") == fromDefault {
		c.LogLevel = level
	}
}

// logger makes a command's logger, which writes to stderr.
func (c *Common) logger(sys *System) *slog.Logger {
	level, err := telemetry.ParseLevel(c.LogLevel)
	if err != nil {
		level = slog.LevelInfo // kong let none but the known ones through
	}
	return telemetry.NewLogger(sys.Stderr, telemetry.Config{
		Level: level, Format: telemetry.Format(c.LogFormat), Terminal: terminal(sys.Stderr),
	})
}
