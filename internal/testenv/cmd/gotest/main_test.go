package main

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// module writes a module of one library, a command that uses it, and tests, and
// works in it.
func module(t *testing.T, files map[string]string) {
	t.Helper()
	all := map[string]string{
		"go.mod": "module example.com/toy\n\ngo 1.26\n",
		"lib/lib.go": `package lib

func Used() int { return 1 }

func Unused() int {
	a := 1
	b := 2
	c := 3
	return a + b + c
}
`,
		"lib/lib_test.go": `package lib

import "testing"

func TestUsed(t *testing.T) {
	if Used() != 1 {
		t.Error("not 1")
	}
}
`,
		// No test of its own: it counts all the same.
		"cmd/toy/main.go": `package main

import "example.com/toy/lib"

func main() { println(lib.Unused()) }
`,
	}
	maps.Copy(all, files)
	dir := t.TempDir()
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	// The toy's tests are not part of whatever run this is.
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOCOVERDIR", "")
}

// gotest runs the command and returns what it printed to standard output.
func gotest(ctx context.Context, t *testing.T, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := run(ctx, args, &stdout, &stderr)
	t.Logf("stdout:\n%sstderr:\n%serror: %v", stdout.String(), stderr.String(), err)
	return stdout.String(), err
}

func requireContains(t *testing.T, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("no %q in:\n%s", want, text)
	}
}

func TestCoverageCountsPackagesThatNoTestTouches(t *testing.T) {
	module(t, nil)
	// 1 of 6: the command's statement and four in Unused did not run.
	stdout, err := gotest(t.Context(), t, "-min", "16")
	if err != nil {
		t.Fatal(err)
	}
	requireContains(t, stdout, "ok  \texample.com/toy/lib")
	requireContains(t, stdout, "total statement coverage: 16.7%\n")

	stdout, err = gotest(t.Context(), t, "-report")
	if err != nil {
		t.Fatal(err)
	}
	requireContains(t, stdout, "0.0%   0 of 1 statements  example.com/toy/cmd/toy\n")
	requireContains(t, stdout, "20.0%  1 of 5 statements  example.com/toy/lib\n")
}

func TestCoverageBelowTheMinimumFails(t *testing.T) {
	module(t, nil)
	stdout, err := gotest(t.Context(), t)
	if err == nil || !strings.Contains(err.Error(), "statement coverage 16.67% is below 90.00%") {
		t.Errorf("got %v", err)
	}
	requireContains(t, stdout, "20.0%  1 of 5 statements  example.com/toy/lib\n")
}

func TestCoverageCountsProcessesThatTestsStart(t *testing.T) {
	module(t, map[string]string{"cmd/toy/main_test.go": `package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestProcess(t *testing.T) {
	program := filepath.Join(t.TempDir(), "toy")
	// No -covermode: another mode than the tests' must not matter.
	build := exec.Command("go", "build", "-cover", "-coverpkg=example.com/toy/...", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	toy := exec.Command(program)
	toy.Env = append(os.Environ(), "GOCOVERDIR="+os.Getenv("PENSTOCK_COVERDIR"))
	if err := toy.Run(); err != nil {
		t.Fatal(err)
	}
}
`})
	stdout, err := gotest(t.Context(), t)
	if err != nil {
		t.Error(err)
	}
	requireContains(t, stdout, "total statement coverage: 100.0%\n")
}

// Packages of the toy that say whether they are watched for races, and when.
func TestPackagesAreOrderedAndWatchedForRacesAsNamed(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	t.Setenv("TOY_LOG", log)
	says := func(name, race string) string {
		return `//go:build ` + race + `

package ` + name + `

import (
	"os"
	"testing"
)

func TestSays(t *testing.T) {
	f, err := os.OpenFile(os.Getenv("TOY_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("` + name + ` ` + race + `\n")
}
`
	}
	files := map[string]string{}
	for _, name := range []string{"a", "b", "pure"} {
		files[name+"/"+name+".go"] = "package " + name + "\n"
		files[name+"/race_test.go"] = says(name, "race")
		files[name+"/norace_test.go"] = says(name, "!race")
	}
	module(t, files)
	t.Setenv("GOFLAGS", "-p=1") // so that the order is seen
	stdout, err := gotest(t.Context(), t, "-min", "10", "-norace", "./pure", "-first", "./b,./pure")
	if err != nil {
		t.Fatal(err)
	}
	// What a pure one runs counts: without a statement of its own, the library's.
	requireContains(t, stdout, "total statement coverage: 16.7%\n")
	got, err := os.ReadFile(log)
	if want := "pure !race\nb race\na race\n"; err != nil || string(got) != want {
		t.Errorf("%v: they ran as\n%swant\n%s", err, got, want)
	}
	// Alone, and no more than is asked for.
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if _, err := gotest(t.Context(), t, "-min", "0", "-norace", "./pure", "-first", "./b", "./pure"); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(log); err != nil || string(got) != "pure !race\n" {
		t.Errorf("%v: they ran as\n%s", err, got)
	}
	if _, err := gotest(t.Context(), t, "-first", "./nowhere"); err == nil {
		t.Error("a package that is none was taken")
	}
}

func TestSkippedTestFailsTheRun(t *testing.T) {
	module(t, map[string]string{"lib/skip_test.go": `package lib

import "testing"

func TestWantsAService(t *testing.T) { t.Skip("no broker here") }
`})
	_, err := gotest(t.Context(), t, "-min", "0")
	if err == nil {
		t.Fatal("the run passed")
	}
	requireContains(t, err.Error(), "example.com/toy/lib TestWantsAService: skip_test.go:5: no broker here")
}

func TestFailureShowsThatTestsOutputAlone(t *testing.T) {
	module(t, map[string]string{"lib/fail_test.go": `package lib

import "testing"

func TestQuiet(t *testing.T) { t.Log("all is well") }
func TestFails(t *testing.T) { t.Log("before it"); t.Error("it broke") }
`})
	stdout, err := gotest(t.Context(), t, "-min", "0")
	if err == nil {
		t.Error("the run passed")
	}
	for _, want := range []string{"--- FAIL: TestFails", "before it", "it broke", "FAIL\texample.com/toy/lib", "total statement coverage: "} {
		requireContains(t, stdout, want)
	}
	if strings.Contains(stdout, "all is well") {
		t.Error("the passing test's output was printed")
	}
}

func TestPanicShowsItsTrace(t *testing.T) {
	module(t, map[string]string{"lib/panic_test.go": `package lib

import "testing"

func TestPanics(t *testing.T) { panic("out of cheese") }
`})
	stdout, err := gotest(t.Context(), t, "-min", "0")
	if err == nil {
		t.Error("the run passed")
	}
	requireContains(t, stdout, "out of cheese")
}

func TestCodeThatVetOrTheCompilerRefusesFails(t *testing.T) {
	module(t, map[string]string{"lib/broken.go": "package lib\n\nfunc f() int { return undefined }\n"})
	if _, err := gotest(t.Context(), t, "-min", "0"); err == nil {
		t.Error("the run passed")
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := gotest(t.Context(), t, "-no-such-flag"); err == nil {
		t.Error("an unknown flag was taken")
	}
	if _, err := gotest(t.Context(), t, "-report"); err == nil || !strings.Contains(err.Error(), "run the tests first") {
		t.Errorf("a report of nothing: %v", err)
	}
}

func TestDamagedProfileIsRefused(t *testing.T) {
	for _, text := range []string{"a.go:1.1,2.2 1", "a.go:1.1,2.2 many 1", strings.Repeat("x", 1<<20)} {
		name := filepath.Join(t.TempDir(), "profile")
		if err := os.WriteFile(name, []byte("mode: set\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readProfiles(name); err == nil {
			t.Errorf("%.40q was taken", text)
		}
	}
	if got := (profile{}).percent(); got != 0 {
		t.Errorf("nothing measured is %v%%, want 0", got)
	}
}

func TestPrinterPassesOnWhatItDoesNotKnow(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(&out)
	for _, piece := range []string{
		"go: warn", "ing\n", `{"Action":"output","Package":"p","Test":"T","Output":"cut`, ` off\n"}` + "\n", "no newline",
	} {
		if _, err := p.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if want := "go: warning\nno newline" + "\ncut off\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
