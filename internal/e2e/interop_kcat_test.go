//go:build interop

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock-io/penstock/internal/testenv"
)

// TestInteropKcat submits jobs with librdkafka's own partitioners: CRC32 of the
// key, and any partition where there is none. They are nothing but an id and a
// body.
func TestInteropKcat(t *testing.T) {
	t.Parallel()
	testenv.Program(t, "kcat", "kcat")
	d := deploy(t)
	gateway := d.start("ingest,gateway")
	broker, prefix := d.setting("KAFKA"), d.setting("PREFIX")
	request := func(id string) string {
		return fmt.Sprintf(`{"job":%q,"data":{"body":{"model":"sim:tokens=5,ttft=0s,gap=0s","messages":[{"role":"user","content":"hi"}]}}}`, id)
	}
	var keyed, keyless strings.Builder
	for i := range 12 {
		id := fmt.Sprintf("kcat-keyed-%d", i)
		keyed.WriteString(id + "\t" + request(id) + "\n")
		keyless.WriteString(request(fmt.Sprintf("kcat-keyless-%d", i)) + "\n")
	}
	output(t, keyed.String(), "kcat", "-P", "-b", broker, "-t", prefix+"requests.interactive", "-K", "\t")
	output(t, keyless.String(), "kcat", "-P", "-b", broker, "-t", prefix+"requests.batch", "-z", "gzip")
	d.start("processors")

	var crc, random []foreign
	for _, lane := range []string{"interactive", "batch"} {
		lines := output(t, "", "kcat", "-C", "-b", broker, "-t", prefix+"requests."+lane, "-e", "-q", "-f", "%p %K %s\n")
		for line := range strings.Lines(lines) {
			partition, rest, _ := strings.Cut(line, " ")
			p, err := strconv.ParseInt(partition, 10, 32)
			if err != nil {
				t.Fatalf("kcat said %q", line)
			}
			_, id, _ := strings.Cut(rest, `{"job":"`)
			id, _, _ = strings.Cut(id, `"`)
			switch f := (foreign{id, int32(p)}); {
			case strings.HasPrefix(rest, "-1 "): // the length of a null key
				random = append(random, f)
			default:
				crc = append(crc, f)
			}
		}
	}
	if len(crc) != 12 || len(random) != 12 {
		t.Fatalf("%d jobs with a key and %d without, of 12 and 12", len(crc), len(random))
	}
	if n := elsewhere(crc, 4); n == 0 {
		t.Error("kcat put every job where murmur2 does: the test does not do what it says")
	} else {
		t.Logf("%d of %d keyed jobs lie elsewhere than murmur2 says, and %d of %d without a key", n, len(crc), elsewhere(random, 4), len(random))
	}
	d.follow(gateway, append(crc, random...))
}
