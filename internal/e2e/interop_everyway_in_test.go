//go:build interop

package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/penstock-io/penstock/internal/job"
	"github.com/penstock-io/penstock/internal/testenv"
)

// enterEveryWay submits one job by every way in.
func (d *deployment) enterEveryWay(gateway *process) []*entry {
	d.t.Helper()
	return []*entry{
		d.byHTTP(gateway), d.bySocket(gateway), d.byKcat(), d.byJava(),
		d.byPython(gateway), d.byNode(gateway), d.byGo(gateway),
	}
}

func (d *deployment) byHTTP(gateway *process) *entry {
	d.t.Helper()
	resp, err := http.Post(gateway.url+"/v1/jobs", "application/json", strings.NewReader(`{"body":`+hi+`}`))
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var r job.Resource
	if err := json.UnmarshalRead(resp.Body, &r); err != nil || resp.StatusCode != http.StatusAccepted {
		d.t.Fatalf("%s, %v", resp.Status, err)
	}
	return &entry{way: "POST /v1/jobs", job: r.ID}
}

// bySocket is told the events too.
func (d *deployment) bySocket(gateway *process) *entry {
	d.t.Helper()
	s := dialSocket(d.t, gateway.url)
	s.send(`{"op":"submit","ref":"1","sub":"a","job":{"lane":"interactive","body":` + hi + `}}`)
	e := &entry{way: "WebSocket submit"}
	for {
		switch f := s.next(); f.Op {
		case "accepted":
			e.job = f.ID
		case "events":
			for _, record := range f.Events {
				e.events = append(e.events, string(record))
			}
		case "end":
			e.told = e.text()
			return e
		}
	}
}

func (d *deployment) byKcat() *entry {
	d.t.Helper()
	testenv.Program(d.t, "kcat", "kcat")
	const id = "kcat-hi"
	output(d.t, id+"\t"+fmt.Sprintf(`{"job":%q,"data":{"body":%s}}`, id, hi)+"\n",
		"kcat", "-P", "-b", d.setting("KAFKA"), "-t", d.setting("PREFIX")+"requests.interactive", "-K", "\t")
	return &entry{way: "kcat", job: id}
}

func (d *deployment) byJava() *entry {
	d.t.Helper()
	testenv.Program(d.t, "javac", "openjdk-17-jdk-headless", "default-jdk-headless")
	const id = "java-hi"
	output(d.t, "", "java", "-cp", testenv.KafkaClasses(d.t), "../../docs/examples/Submit.java",
		d.setting("KAFKA"), d.setting("PREFIX")+"requests.standard", id)
	return &entry{way: "Java producer", job: id}
}

func (d *deployment) byPython(gateway *process) *entry {
	d.t.Helper()
	python := testenv.Python(d.t, requirement(d.t))
	return chatted(d.t, "OpenAI Python", output(d.t, "", python, filepath.Join("testdata", "openai", "one.py"), gateway.url))
}

func (d *deployment) byNode(gateway *process) *entry {
	d.t.Helper()
	dir := d.t.TempDir()
	copyTo(d.t, dir, "package.json", "one.mjs")
	install(d.t, dir, "npm", "install", "--no-audit", "--no-fund", "--silent")
	return chatted(d.t, "OpenAI Node.js", output(d.t, "", "node", filepath.Join(dir, "one.mjs"), gateway.url))
}

func (d *deployment) byGo(gateway *process) *entry {
	d.t.Helper()
	client := openai.NewClient(option.WithBaseURL(gateway.url+"/v1"), option.WithAPIKey("anything"), option.WithMaxRetries(0))
	acc := stream(d.t, d.t.Context(), &client, openai.ChatCompletionNewParams{
		Model: "sim", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")},
	})
	return chatted(d.t, "OpenAI Go", acc.ID+"\n"+acc.Choices[0].Message.Content)
}

// chatted is a chat of which a client printed the id and the text.
func chatted(t *testing.T, way, printed string) *entry {
	t.Helper()
	id, text, ok := strings.Cut(printed, "\n")
	if !ok || !strings.HasPrefix(id, job.ChatPrefix) || text == "" {
		t.Fatalf("%s: it printed %q", way, printed)
	}
	return &entry{way: way, job: job.Canonical(id), told: text}
}

// requirement is the line of requirements.txt that is no comment.
func requirement(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "openai", "requirements.txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(lines[len(lines)-1])
}
