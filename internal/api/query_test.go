package api

import (
	"math"
	"net/url"
	"testing"

	"github.com/penstock-io/penstock/internal/fault"
)

func TestANumberOfAQueryIsWrittenInOneWay(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "7": 7, "10": 10, "9223372036854775807": math.MaxInt64} {
		if n, ok := Digits(text); !ok || n != want {
			t.Errorf("%q: %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"", "+1", "-1", "-0", "01", "00", " 1", "1 ", "1.0", "1e2", "0x1", "1_0", "٣", "1\x00", "9223372036854775808"} {
		if n, ok := Digits(text); ok {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
}

func TestAPartitionIsOneThatThereIs(t *testing.T) {
	if p, err := PartitionParam(url.Values{"other": {"x"}}, 12); p != nil || err != nil {
		t.Errorf("absent: %v, %v", p, err)
	}
	if p, err := PartitionParam(url.Values{"partition": {"11"}}, 12); err != nil || *p != 11 {
		t.Errorf("the last: %v, %v", p, err)
	}
	for _, values := range [][]string{{""}, {"12"}, {"-1"}, {"+1"}, {"01"}, {"x"}, {"4294967296"}, {"1", "1"}} {
		_, err := PartitionParam(url.Values{"partition": values}, 12)
		if f := fault.From(err); err == nil || f.Code != fault.InvalidRequest || f.Param != "partition" {
			t.Errorf("%q: %v", values, err)
		}
	}
}
