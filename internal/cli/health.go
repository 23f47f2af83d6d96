package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/cli/client"
)

const (
	// healthPatience is longer than the server gives its parts.
	healthPatience = 5 * time.Second
	// maxHealth bounds a report that is held in memory, in bytes.
	maxHealth = 1 << 20
)

// HealthCmd asks one process how it is. It is what a container's health check
// runs, in an image that holds nothing but this program.
type HealthCmd struct{ ClientFlags }

// Run implements the command. A process that is not ready is a failure.
func (c *HealthCmd) Run(ctx context.Context, sys *System) error {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	raw, err := c.ask(ctx)
	if err != nil {
		return err
	}
	var report struct {
		Status string `json:"status"`
		Parts  map[string]struct {
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"parts"`
	}
	if err := json.Unmarshal(raw, &report); err != nil || report.Status == "" {
		return fmt.Errorf("%s answers, but not with a report of health: is it a Penstock?", c.Server)
	}
	if c.Output == asTable {
		rows := make([][]string, 0, len(report.Parts))
		for _, name := range slices.Sorted(maps.Keys(report.Parts)) {
			rows = append(rows, []string{name, report.Parts[name].Status, report.Parts[name].Message})
		}
		table(sys.Stdout, []string{"PART", "STATUS", ""}, rows)
	} else if err := writeJSON(sys.Stdout, c.Output, raw); err != nil {
		return err
	}
	if report.Status != "ok" {
		return errSilent
	}
	return nil
}

// ask gets the report; that something is wrong is an answer too.
func (c *HealthCmd) ask(ctx context.Context) (jsontext.Value, error) {
	base, err := url.Parse(c.Server)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, usagef("--server: %q is no address: it must be a URL such as %s", c.Server, defaultServer)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("readyz").String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Server, err)
	}
	// Neither proxies nor kept connections: it is one question to one process.
	direct := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := direct.Do(req)
	if err != nil {
		return nil, advise(fmt.Errorf("%w at %s: %w", client.ErrUnreachable, c.Server, err))
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Server, err)
	}
	return raw, nil
}
