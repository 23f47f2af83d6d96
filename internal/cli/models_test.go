package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock-io/penstock/internal/app"
	"github.com/penstock-io/penstock/internal/testenv"
)

func TestKeysInTheEnvironmentMakeServersAvailable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		named, env map[string]string
		want       []app.ModelServer
		wrong      string
	}{
		"nothing": {},
		"keys": {
			env:  map[string]string{"OPENAI_API_KEY": "k1", "ANTHROPIC_API_KEY": "k2"},
			want: []app.ModelServer{{Name: "anthropic", URL: "https://api.anthropic.com", Key: "k2"}, {Name: "openai", URL: "https://api.openai.com/v1", Key: "k1"}},
		},
		"other addresses": {
			env:  map[string]string{"OPENAI_API_KEY": "k1", "OPENAI_BASE_URL": "http://a/v1", "ANTHROPIC_API_KEY": "k2", "ANTHROPIC_BASE_URL": "http://b"},
			want: []app.ModelServer{{Name: "anthropic", URL: "http://b", Key: "k2"}, {Name: "openai", URL: "http://a/v1", Key: "k1"}},
		},
		"an address alone is no server": {env: map[string]string{"OPENAI_BASE_URL": "http://a/v1", "OPENAI_API_KEY": ""}},
		"named ones": {
			named: map[string]string{"vllm": "http://h:8000/v1", "my-host.1": "http://i"}, env: map[string]string{"MY_HOST_1_API_KEY": "k3"},
			want: []app.ModelServer{{Name: "my-host.1", URL: "http://i", Key: "k3"}, {Name: "vllm", URL: "http://h:8000/v1"}},
		},
		"openai, named": {
			named: map[string]string{"openai": "http://proxy/v1"}, env: map[string]string{"OPENAI_API_KEY": "k1", "OPENAI_BASE_URL": "http://a/v1"},
			want: []app.ModelServer{{Name: "openai", URL: "http://proxy/v1", Key: "k1"}},
		},
		"anthropic, named": {named: map[string]string{"anthropic": "http://b"}, wrong: "ANTHROPIC_BASE_URL"},
		"a bad name":       {named: map[string]string{"a/b": "http://b"}, wrong: `"a/b" is no name`},
	} {
		got, err := modelServers(c.named, func(name string) (string, bool) { v, ok := c.env[name]; return v, ok })
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
		if (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigShowsServersAndNoSecretOfThem(t *testing.T) {
	t.Parallel()
	c := call{env: map[string]string{"OPENAI_API_KEY": "secret", "OPENAI_BASE_URL": "http://me:secret@a/v1", "VLLM_API_KEY": "secret"}}
	o := c.run(t, "config", "--providers", "vllm=http://me:secret@h:8000/v1;x=http://x").want(t, exitDone)
	if strings.Contains(o.stdout, "secret") {
		t.Errorf("it tells a secret: %s", o.stdout)
	}
	for _, want := range []string{"vllm=http://me:********@h:8000/v1;x=http://x", "OPENAI_API_KEY", "OPENAI_BASE_URL", "http://me:********@a/v1", "VLLM_API_KEY"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("%s is missing: %s", want, o.stdout)
		}
	}
	for _, args := range [][]string{{"config", "--providers", "anthropic=http://x"}, {"run", "--providers", "anthropic=http://x"}, {"dev", "--providers", "anthropic=http://x"}, {"run", "--providers", "x=nowhere", "--postgres", "postgres://x"}} {
		if o := run(t, args...).want(t, exitUsage); !strings.Contains(o.stderr, "providers: anthropic") && !strings.Contains(o.stderr, "x: the server's address must be") {
			t.Errorf("%s: %s", args, o.stderr)
		}
	}
}

func TestDevCallsTheServersThatAreNamed(t *testing.T) {
	t.Parallel()
	p := serving(t, "dev", "--listen", "127.0.0.1:0", "--partitions", "1", "--models", "fast=mine/gpt-x",
		"--kafka", embeddedBroker(t), "--postgres", testenv.Postgres(t), "--providers", "mine="+upstream(t))
	for _, model := range []string{"mine/gpt-x", "fast"} {
		if got := p.on(t, "job", "submit", "-m", model, "--follow", "hello").want(t, exitDone).stdout; !strings.Contains(got, "I am gpt-x, asked with") {
			t.Errorf("%s said %q", model, got)
		}
	}
	if o := p.on(t, "job", "submit", "-m", "gpt-x", "hello").want(t, exitFailed); !strings.Contains(o.stderr, "is not known") {
		t.Errorf("a bare name: %s", o.stderr)
	}
	if code := p.stop(); code != exitDone {
		t.Errorf("the stop: %d, %s", code, p.stderr.String())
	}
}
