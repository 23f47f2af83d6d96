package check

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

const recipe = repository + "/deploy/Dockerfile"

// stages reads the recipe as BuildKit does. What its linter says is an error.
func stages() ([]instructions.Stage, error) {
	f, err := os.Open(recipe)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		return nil, err
	}
	warned := make([]string, 0, len(parsed.Warnings))
	for _, w := range parsed.Warnings {
		warned = append(warned, w.Short)
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, _ []parser.Range) {
		warned = append(warned, rule+": "+message)
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err == nil && len(warned) > 0 {
		err = fmt.Errorf("deploy/Dockerfile: %s", strings.Join(warned, "; "))
	}
	return stages, err
}

// of are the commands of one kind in a stage.
func of[T instructions.Command](s instructions.Stage) []T {
	var found []T
	for _, c := range s.Commands {
		if c, ok := c.(T); ok {
			found = append(found, c)
		}
	}
	return found
}

// buildImage does what the recipe's first stage does, with this machine's Go: the
// context without what .dockerignore keeps out, the files that are copied, the
// last command that is run.
func buildImage(dir string) (string, error) {
	stages, err := stages()
	if err != nil {
		return "", err
	}
	context, src, out := filepath.Join(dir, "context"), filepath.Join(dir, "src"), filepath.Join(dir, "penstock")
	ignore, err := os.Open(recipe + ".dockerignore")
	if err != nil {
		return "", err
	}
	defer ignore.Close()
	patterns, err := ignorefile.ReadAll(ignore)
	if err != nil {
		return "", err
	}
	match, err := patternmatcher.New(patterns)
	if err != nil {
		return "", err
	}
	if err := copyTree(repository, context, func(path string) (bool, error) {
		ignored, err := match.MatchesOrParentMatches(path)
		return !ignored, err
	}); err != nil {
		return "", err
	}
	for _, c := range of[*instructions.CopyCommand](stages[0]) {
		for _, source := range c.SourcePaths {
			from, err := os.Stat(filepath.Join(context, source))
			if err != nil {
				return "", fmt.Errorf("the recipe copies what the context has not: %w", err)
			}
			to := filepath.Join(src, c.DestPath)
			if !from.IsDir() {
				to = filepath.Join(to, filepath.Base(source))
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return "", err
			}
			if err := os.Rename(filepath.Join(context, source), to); err != nil {
				return "", err
			}
		}
	}
	runs := of[*instructions.RunCommand](stages[0])
	line := strings.ReplaceAll(runs[len(runs)-1].CmdLine[0], "/out/penstock", out)
	build := exec.Command("sh", "-c", line)
	build.Dir = src
	build.Env = append(os.Environ(), "VERSION="+stampedVersion, "TARGETOS="+runtime.GOOS, "TARGETARCH="+runtime.GOARCH, "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", line, err, said)
	}
	return out, nil
}

func TestTheImageIsOneStaticProgramThatKnowsItsVersion(t *testing.T) {
	t.Parallel()
	said, err := exec.Command(program(t), "version").Output()
	if err != nil || !strings.HasPrefix(string(said), "penstock "+stampedVersion+" ") {
		t.Errorf("penstock version: %s, %v", said, err)
	}
	if said, err := exec.Command("go", "version", "-m", program(t)).Output(); err != nil || !strings.Contains(string(said), "CGO_ENABLED=0") {
		t.Errorf("it is not built without C: %s, %v", said, err)
	}
	stages, err := stages()
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != 2 {
		t.Fatalf("it has %d stages", len(stages))
	}
	if env := of[*instructions.EnvCommand](stages[0]); len(env) != 1 || env[0].Env[0].String() != "CGO_ENABLED=0" {
		t.Errorf("the build has the environment %v, and is run here with CGO_ENABLED=0", env)
	}
	last := stages[1]
	if !strings.HasPrefix(last.BaseName, "gcr.io/distroless/static-") || !strings.HasSuffix(last.BaseName, ":nonroot") {
		t.Errorf("the image is based on %s", last.BaseName)
	}
	copies := of[*instructions.CopyCommand](last)
	entry := of[*instructions.EntrypointCommand](last)
	if len(copies) != 1 || len(entry) != 1 || entry[0].PrependShell || !slices.Equal(entry[0].CmdLine, []string{copies[0].DestPath}) {
		t.Errorf("it runs %v, and has %v: there is no shell to run anything else", entry, copies)
	}
	if users := of[*instructions.UserCommand](last); len(users) != 1 || users[0].User != "65532:65532" {
		t.Errorf("it runs as %v: Kubernetes can tell that it is not root by the number alone", users)
	}
}

func TestTheImageIsBuiltWithTheGoOfTheModule(t *testing.T) {
	t.Parallel()
	mod, err := os.ReadFile(repository + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	stages, err := stages()
	if err != nil || want == nil {
		t.Fatal(err)
	}
	if got := stages[0].BaseName; !strings.HasPrefix(got, "golang:"+string(want[1])+"-") {
		t.Errorf("the recipe builds with %s, and go.mod wants Go %s", got, want[1])
	}
}
