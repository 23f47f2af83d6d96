package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// file writes a configuration file.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "penstock.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// settingOf gives one row of `penstock config`.
func settingOf(t *testing.T, o outcome, name string) configRow {
	t.Helper()
	o.want(t, exitDone)
	for line := range strings.Lines(o.stdout) {
		var row configRow
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		if row.Setting == name {
			return row
		}
	}
	t.Fatalf("there is no setting %s in %s", name, o.stdout)
	return configRow{}
}

func TestFlagsGoBeforeEnvironmentBeforeFileBeforeDefaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setting         string
		args            []string
		variable, value string
		file            string
		want, from      string
	}{
		"default":          {setting: "listen", want: "127.0.0.1:8080", from: "default"},
		"file":             {setting: "listen", file: "listen: a:1", want: "a:1", from: "file"},
		"env over file":    {setting: "listen", file: "listen: a:1", variable: "PENSTOCK_LISTEN", value: "b:2", want: "b:2", from: "env"},
		"flag over env":    {setting: "listen", file: "listen: a:1", variable: "PENSTOCK_LISTEN", value: "b:2", args: []string{"--listen", "c:3"}, want: "c:3", from: "flag"},
		"flag over file":   {setting: "listen", file: "listen: a:1", args: []string{"--listen", "c:3"}, want: "c:3", from: "flag"},
		"an empty env":     {setting: "listen", file: "listen: a:1", variable: "PENSTOCK_LISTEN", want: "a:1", from: "file"},
		"null in the file": {setting: "listen", file: "listen:", want: "127.0.0.1:8080", from: "default"},
		"a list":           {setting: "kafka", file: "kafka: [a:1, b:2]", want: "a:1,b:2", from: "file"},
		"a list in env":    {setting: "kafka", variable: "PENSTOCK_KAFKA", value: "a:1,b:2", want: "a:1,b:2", from: "env"},
		"lanes":            {setting: "lanes", file: "lanes: [batch]", want: "batch", from: "file"},
		"a map":            {setting: "models", file: "models: {slow: sim/x, fast: sim}", want: "fast=sim;slow=sim/x", from: "file"},
		"a map in env":     {setting: "models", variable: "PENSTOCK_MODELS", value: "fast=sim", want: "fast=sim", from: "env"},
		"a map of times":   {setting: "max-wait", file: "max-wait: {batch: 2h, standard: 90s}", want: "batch=2h0m0s;standard=1m30s", from: "file"},
		"a map of numbers": {setting: "max-outstanding", file: "max-outstanding: {batch: 7}", want: "batch=7", from: "file"},
		"a map by lane":    {setting: "reserved", file: "reserved: {batch: 3}", want: "batch=3", from: "file"},
		"a switch":         {setting: "sim", file: "sim: true", want: "true", from: "file"},
		"a switch in env":  {setting: "sim", variable: "PENSTOCK_SIM", value: "true", want: "true", from: "env"},
		"a number":         {setting: "max-in-flight", file: "max-in-flight: 7", want: "7", from: "file"},
		"a duration":       {setting: "grace", variable: "PENSTOCK_GRACE", value: "1m", want: "1m0s", from: "env"},
		"a global":         {setting: "log-level", file: "log-level: debug", want: "debug", from: "file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"config", "-o", "jsonl"}, c.args...)
			if c.file != "" {
				args = append(args, "--config", file(t, c.file))
			}
			o := call{env: map[string]string{c.variable: c.value}}.run(t, args...)
			if got := settingOf(t, o, c.setting); got.Value != c.want || got.From != c.from {
				t.Errorf("%+v, want %s from %s", got, c.want, c.from)
			}
		})
	}
}

func TestTheFileItselfCanBeNamedByEnvironment(t *testing.T) {
	t.Parallel()
	inEnv, inFlag := file(t, "listen: a:1"), file(t, "listen: b:2")
	c := call{env: map[string]string{"PENSTOCK_CONFIG": inEnv}}
	o := c.run(t, "config", "-o", "jsonl")
	if got := settingOf(t, o, "listen"); got.Value != "a:1" {
		t.Errorf("by environment: %+v", got)
	}
	if got := settingOf(t, o, "config"); got.Value != inEnv || got.From != "env" {
		t.Errorf("the file: %+v", got)
	}
	if got := settingOf(t, c.run(t, "config", "-o", "jsonl", "--config", inFlag), "listen"); got.Value != "b:2" {
		t.Errorf("the flag goes before: %+v", got)
	}
}

func TestWrongUseExitsWith2AndSaysWhy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		file string
		want string
	}{
		"an unknown flag":      {args: []string{"job", "list", "--bogus"}, want: "unknown flag --bogus"},
		"an unknown command":   {args: []string{"jbo"}, want: "jbo"},
		"a missing argument":   {args: []string{"job", "get"}, want: "<job>"},
		"no value of the enum": {args: []string{"job", "list", "-o", "xml"}, want: "must be one of"},
		"no lane":              {args: []string{"run", "--lanes", "fast"}, want: "fast"},
		"no role":              {args: []string{"run", "--roles", "cook", "--postgres", "postgres://u@h/d"}, want: `"cook" is no role`},
		"no database":          {args: []string{"run"}, want: "no database is configured"},
		"no database either":   {args: []string{"migrate"}, want: "PENSTOCK_POSTGRES"},
		"no server":            {args: []string{"job", "list", "--server", "here"}, want: "must be a URL"},
		"a file that is away":  {args: []string{"config", "--config", "/none.yaml"}, want: "penstock: read the configuration file: open /none.yaml"},
		"an unknown setting":   {args: []string{"config"}, file: "lissen: x", want: `"lissen" is no setting: they are api-key, data,`},
		"no YAML":              {args: []string{"config"}, file: "a: [", want: "is not the YAML of settings"},
		"nothing to submit":    {args: []string{"job", "submit"}, want: "nothing to submit"},
		"no model":             {args: []string{"job", "submit", "hi"}, want: "needs a model"},
		"a file and a prompt":  {args: []string{"job", "submit", "-f", "-", "hi"}, want: "leave --model"},
		"wait and follow":      {args: []string{"job", "submit", "-m", "sim", "hi", "--wait", "--follow"}, want: "can't be used together"},
		"no concurrency":       {args: []string{"job", "submit", "-f", "-", "--concurrency", "0"}, want: "--concurrency"},
		"a file to submit":     {args: []string{"job", "submit", "-f", "/none"}, want: "/none"},
		"no time, Kafka away":  {args: []string{"dead", "list", "--since", "yesterday", "--kafka", "127.0.0.1:1"}, want: "--since"},
		"none to redrive from": {args: []string{"dead", "redrive", "--all", "--since", "yesterday", "--kafka", "127.0.0.1:1"}, want: "--since"},
		"no offset":            {args: []string{"topic", "tail", "tokens", "--offset", "soon", "--kafka", "127.0.0.1:1"}, want: "--offset"},
		"a home to keep data":  {args: []string{"dev"}, want: "--data DIR"},
		"no such address":      {args: []string{"dev", "--kafka", "x", "--postgres", "postgres://u@h/d"}, want: `"x" is no broker`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := c.args
			if c.file != "" {
				args = append(args, "--config", file(t, c.file))
			}
			o := run(t, args...).want(t, exitUsage)
			if !strings.Contains(o.stderr, c.want) || !strings.HasPrefix(o.stderr, "penstock: ") || o.stdout != "" {
				t.Errorf("it said %q and %q, want %q", o.stdout, o.stderr, c.want)
			}
		})
	}
}

func TestConfigIsPrintedWithItsSourcesAndWithoutSecrets(t *testing.T) {
	t.Parallel()
	c := call{env: map[string]string{"PENSTOCK_POSTGRES": "postgres://me:secret@db:5432/penstock?sslmode=disable", "PENSTOCK_API_KEY": "secret", "PENSTOCK_UPSTREAM_KEY": "secret"}}
	o := c.run(t, "config", "--sim", "--upstream", "http://me:secret@models:8000/v1", "--roles", "processors,gateway", "--models", "fast=sim").want(t, exitDone)
	if strings.Contains(o.stdout, "secret") {
		t.Errorf("it tells a secret: %s", o.stdout)
	}
	golden(t, "config", o.stdout)
}

func TestMaskHidesPasswordsAndKeys(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                              "",
		"key-123":                       "********",
		"postgres://h/d":                "postgres://h/d",
		"postgres://u@h/d":              "postgres://u@h/d",
		"postgres://u:p@h/d":            "postgres://u:********@h/d",
		"postgres://h/d?password=p&a=b": "postgres://h/d?a=b&password=********",
		"host=h password=p user=u":      "host=h password=******** user=u",
		"host=h PASSWORD = 'p q'":       "host=h PASSWORD = ********",
	} {
		if got := mask(value); got != want {
			t.Errorf("mask(%q) = %q, want %q", value, got, want)
		}
	}
}

func TestHelpNamesTheVariablesAndTheDefaults(t *testing.T) {
	t.Parallel()
	o := run(t).want(t, exitDone)
	for _, want := range []string{"dev", "job", "$PENSTOCK_CONFIG", "$PENSTOCK_LOG_LEVEL"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("the help does not say %s: %s", want, o.stdout)
		}
	}
	o = run(t, "run", "--help").want(t, exitDone)
	for _, want := range []string{"--kafka=HOST:PORT,... ", "(default 127.0.0.1:9092, $PENSTOCK_KAFKA).", "--roles=ROLE,... ", "(default interactive,standard,batch, $PENSTOCK_LANES)."} {
		if !strings.Contains(strings.Join(strings.Fields(o.stdout), " "), want) {
			t.Errorf("the help does not say %s: %s", want, o.stdout)
		}
	}
	if o := run(t, "version").want(t, exitDone); !strings.HasPrefix(o.stdout, "penstock ") {
		t.Errorf("version: %q", o.stdout)
	}
}
