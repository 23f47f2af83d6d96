package cli

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/penstock-io/penstock/internal/postgres"
)

// ConfigCmd prints the configuration in force.
type ConfigCmd struct {
	KafkaFlags
	PostgresFlags
	ProcessFlags
	RoleFlags
	Data string `setting:"" placeholder:"DIR" help:"Where dev keeps its data."`
	UpstreamFlags
	ClientFlags
}

// configRow is one setting.
type configRow struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	From    string `json:"from"`
}

// Run implements the command.
func (c *ConfigCmd) Run(sys *System, set *settings, parsed *kong.Context) error {
	var rows []configRow
	for _, flags := range parsed.Selected().AllFlags(false) {
		for _, flag := range flags {
			if !flag.Tag.Has(settingTag) && flag.Name != configFlag {
				continue
			}
			value := reflect.ValueOf(parsed.FlagValue(flag))
			shown := show(value)
			if flag.Tag.Has("secret") {
				shown = maskAll(value)
			}
			rows = append(rows, configRow{flag.Name, shown, set.from(flag.Name)})
		}
	}
	if set.path != "" {
		for i := range rows {
			if rows[i].Setting == configFlag {
				rows[i].Value = set.path
			}
		}
	}
	keys, err := serverRows(c.Providers, sys.Env)
	if err != nil {
		return usageError{err}
	}
	rows = append(rows, keys...)
	if c.Output != asTable {
		for _, row := range rows {
			if err := writeJSON(sys.Stdout, c.Output, row); err != nil {
				return err
			}
		}
		return nil
	}
	cells := make([][]string, len(rows))
	for i, row := range rows {
		cells[i] = []string{row.Setting, row.Value, row.From}
	}
	table(sys.Stdout, []string{"SETTING", "VALUE", "FROM"}, cells)
	return nil
}

// show writes a value as it would stand on a command line.
func show(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = show(v.Index(i))
		}
		return strings.Join(parts, ",")
	case reflect.Map:
		parts := make([]string, 0, v.Len())
		for _, key := range v.MapKeys() {
			parts = append(parts, show(key)+"="+show(v.MapIndex(key)))
		}
		slices.Sort(parts)
		return strings.Join(parts, ";")
	case reflect.Invalid:
		return ""
	default:
		return fmt.Sprint(v.Interface())
	}
}

// hidden stands for a secret.
const hidden = "********"

// mask hides a secret: of a URL its password, of a connection string its
// password, of anything else all.
func mask(value string) string {
	if value == "" {
		return ""
	}
	if u, err := url.Parse(value); err == nil && u.Scheme != "" && u.Host != "" {
		q := u.Query()
		if q.Has("password") {
			q.Set("password", hidden)
			u.RawQuery = q.Encode()
		}
		if _, ok := u.User.Password(); ok {
			u.User = url.UserPassword(u.User.Username(), hidden)
		}
		return strings.ReplaceAll(u.String(), url.QueryEscape(hidden), hidden)
	}
	if pairs := regexp.MustCompile(`(?i)(password\s*=\s*)('[^']*'|\S+)`); pairs.MatchString(value) {
		return pairs.ReplaceAllString(value, "${1}"+hidden)
	}
	return hidden
}

// maskAll writes a secret value as show does: of a map each entry is one.
func maskAll(v reflect.Value) string {
	if v.Kind() != reflect.Map {
		return mask(show(v))
	}
	parts := make([]string, 0, v.Len())
	for _, key := range v.MapKeys() {
		parts = append(parts, show(key)+"="+mask(show(v.MapIndex(key))))
	}
	slices.Sort(parts)
	return strings.Join(parts, ";")
}

// MigrateCmd brings the database's schema up to date.
type MigrateCmd struct{ PostgresFlags }

// Run implements the command.
func (c *MigrateCmd) Run(ctx context.Context, sys *System, common *Common) error {
	if c.Postgres == "" {
		return usagef("no database is configured: give its URL with --postgres or %s", envName("postgres"))
	}
	log := common.logger(sys)
	pool, err := postgres.Open(ctx, postgres.Config{URL: c.Postgres, Log: log})
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer pool.Close()
	versions, err := postgres.Migrate(ctx, pool, log)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if len(versions) == 0 {
		fmt.Fprintln(sys.Stdout, "The schema is up to date.")
	}
	for _, v := range versions {
		fmt.Fprintf(sys.Stdout, "Applied migration %d.\n", v)
	}
	return nil
}

// VersionCmd prints the build.
type VersionCmd struct{}

// Run implements the command.
func (*VersionCmd) Run(sys *System) error {
	fmt.Fprintf(sys.Stdout, "penstock %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// version is the release that the linker was told of (-X), where the build has
// no repository to take it from; deploy/Dockerfile does.
var version string

// buildVersion is the module's version, with the commit where that is known.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
