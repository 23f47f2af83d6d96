package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/penstock-io/penstock/internal/app"
)

// The providers whose servers need not be named: a key in the environment, by
// the name that their own SDKs look for, makes them available. Their address may
// be given in the SDKs' variable, too.
const (
	openaiName    = "openai"
	openaiURL     = "https://api.openai.com/v1"
	anthropicName = "anthropic"
	anthropicURL  = "https://api.anthropic.com"
)

// modelServers are the servers of models that a process calls: those that are
// named, and those whose key the environment holds. Keys are taken from the
// environment alone, so that neither a file nor a list of processes shows them.
func modelServers(named map[string]string, env func(string) (string, bool)) ([]app.ModelServer, error) {
	get := func(name string) string {
		if env == nil {
			return ""
		}
		v, _ := env(name)
		return v
	}
	urls := maps.Clone(named)
	if urls == nil {
		urls = map[string]string{}
	}
	if urls[anthropicName] != "" {
		return nil, fmt.Errorf("providers: %s does not speak OpenAI's API: its key is set with %s, and another address with %s",
			anthropicName, keyVariable(anthropicName), urlVariable(anthropicName))
	}
	for name, url := range map[string]string{openaiName: openaiURL, anthropicName: anthropicURL} {
		if urls[name] != "" || get(keyVariable(name)) == "" {
			continue
		}
		if other := get(urlVariable(name)); other != "" {
			url = other
		}
		urls[name] = url
	}
	var servers []app.ModelServer
	for _, name := range slices.Sorted(maps.Keys(urls)) {
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return nil, fmt.Errorf("providers: %q is no name: it must be of a-z, 0-9, '-', '_' and '.'", name)
		}
		servers = append(servers, app.ModelServer{Name: name, URL: urls[name], Key: get(keyVariable(name))})
	}
	return servers, nil
}

// keyVariable is where a provider's key is looked for, such as OPENAI_API_KEY.
func keyVariable(provider string) string { return variable(provider) + "_API_KEY" }

// urlVariable is where the SDKs of the known providers look for their address.
func urlVariable(provider string) string { return variable(provider) + "_BASE_URL" }

func variable(provider string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(provider))
}

// serverRows are the settings of model servers that the environment holds.
func serverRows(named map[string]string, env func(string) (string, bool)) ([]configRow, error) {
	servers, err := modelServers(named, env)
	if err != nil {
		return nil, err
	}
	var rows []configRow
	for _, s := range servers {
		if s.Key != "" {
			rows = append(rows, configRow{keyVariable(s.Name), hidden, fromEnv})
		}
		if named[s.Name] == "" {
			if v, ok := env(urlVariable(s.Name)); ok && v != "" {
				rows = append(rows, configRow{urlVariable(s.Name), mask(v), fromEnv})
			}
		}
	}
	return rows, nil
}
