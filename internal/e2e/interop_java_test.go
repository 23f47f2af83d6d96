//go:build interop

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/testenv"
)

// TestInteropJavaProducer submits jobs with the sample of the docs, on Kafka's
// own producer.
func TestInteropJavaProducer(t *testing.T) {
	t.Parallel()
	testenv.Program(t, "javac", "openjdk-17-jdk-headless", "default-jdk-headless")
	d := deploy(t)
	gateway := d.start("ingest,gateway")
	d.start("processors")
	argv := []string{
		"java", "-cp", testenv.KafkaClasses(t), "../../docs/examples/Submit.java",
		d.setting("KAFKA"), d.setting("PREFIX") + "requests.standard",
	}
	for i := range 12 {
		argv = append(argv, fmt.Sprintf("java-%d", i))
	}
	var jobs []foreign
	for line := range strings.Lines(output(t, "", argv...)) {
		var (
			f      foreign
			offset int64
		)
		if _, err := fmt.Sscan(line, &f.id, &f.partition, &offset); err != nil {
			continue // a word of the logging library
		}
		jobs = append(jobs, f)
	}
	if len(jobs) != 12 {
		t.Fatalf("%d jobs were acknowledged, of 12", len(jobs))
	}
	if n := elsewhere(jobs, 4); n != 0 {
		t.Errorf("%d jobs lie elsewhere than our murmur2 of their ids says", n)
	}
	d.follow(gateway, jobs)
}
