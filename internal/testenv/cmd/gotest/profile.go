package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// profile is which blocks of statements were executed, by the block's place as
// a coverage profile writes it: "file.go:10.2,12.3". Only whether a block ran is
// kept, so profiles of any coverage mode can be joined.
type profile map[string]block

type block struct {
	statements int
	ran        bool
}

// readProfiles joins coverage profiles: what ran in one of them ran.
func readProfiles(paths ...string) (profile, error) {
	p := profile{}
	for _, name := range paths {
		file, err := os.Open(name) //nolint:gosec // Profiles of this run.
		if err != nil {
			return nil, fmt.Errorf("open a coverage profile: %w", err)
		}
		err = p.read(file)
		_ = file.Close() // Nothing was written to it.
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return p, nil
}

func (p profile) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "mode:") {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			return fmt.Errorf("%q: want a place, statements and a count", lines.Text())
		}
		statements, err := strconv.Atoi(fields[1])
		if err != nil {
			return fmt.Errorf("%q: want a number of statements: %w", lines.Text(), err)
		}
		before := p[fields[0]]
		p[fields[0]] = block{statements, before.ran || fields[2] != "0"}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read a coverage profile: %w", err)
	}
	return nil
}

// write saves the profile for go tool cover.
func (p profile) write(name string) error {
	var b bytes.Buffer
	b.WriteString("mode: set\n")
	for _, place := range slices.Sorted(maps.Keys(p)) {
		count := 0
		if p[place].ran {
			count = 1
		}
		fmt.Fprintf(&b, "%s %d %d\n", place, p[place].statements, count)
	}
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("save the coverage: %w", err)
	}
	return nil
}

// share is so many statements executed of so many.
type share struct{ ran, all int }

func (s *share) add(b block) {
	s.all += b.statements
	if b.ran {
		s.ran += b.statements
	}
}

// percent of nothing is 0: a run that measured nothing must not pass.
func (s *share) percent() float64 {
	return 100 * float64(s.ran) / float64(max(s.all, 1))
}

// percent is the share of all statements that ran.
func (p profile) percent() float64 {
	var total share
	for _, b := range p {
		total.add(b)
	}
	return total.percent()
}

// printPackages prints a line a package, the least covered first.
func (p profile) printPackages(w io.Writer) {
	packages := map[string]*share{}
	for place, b := range p {
		file, _, _ := strings.Cut(place, ":")
		name := path.Dir(file)
		if packages[name] == nil {
			packages[name] = &share{}
		}
		packages[name].add(b)
	}
	names := slices.SortedFunc(maps.Keys(packages), func(a, b string) int {
		return cmp.Or(cmp.Compare(packages[a].percent(), packages[b].percent()), cmp.Compare(a, b))
	})
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range names {
		s := packages[name]
		fmt.Fprintf(table, "%.1f%%\t%d of %d statements\t%s\n", s.percent(), s.ran, s.all, name)
	}
	_ = table.Flush() // To a terminal or a log.
}
