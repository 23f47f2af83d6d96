package event

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestTraceparentIsW3Cs(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if !ValidTraceparent(good) {
		t.Error("a valid one was refused")
	}
	for _, bad := range []string{
		"", good + "0", "ff" + good[2:], strings.ToUpper(good), strings.Replace(good, "-", "_", 1),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	} {
		if ValidTraceparent(bad) {
			t.Errorf("%q was let through", bad)
		}
	}
}

func TestWhatARequestHasForATraceparentIsPassedOnOnlyWhereItIsOne(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, c := range []struct {
		headers []Header
		want    string
	}{
		{nil, ""},
		{[]Header{{"traceparent", []byte(good)}}, good},
		{[]Header{{"traceparent", []byte("00-1")}}, ""},
		{[]Header{{"traceparent", bytes.Repeat([]byte("0"), 55)}}, ""},
		{[]Header{{"traceparent", bytes.Repeat([]byte("k"), 1100<<10)}}, ""},
	} {
		r := Record{Headers: c.headers}
		if got := string(r.Traceparent()); got != c.want {
			t.Errorf("%.80q gave %.80q", c.headers, got)
		}
	}
}

// FuzzTraceparent holds the check to W3C Trace Context.
func FuzzTraceparent(f *testing.F) {
	rule := regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
	for _, s := range []string{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "", "\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := rule.MatchString(s) && s[:2] != "ff" && s[3:35] != strings.Repeat("0", 32) && s[36:52] != strings.Repeat("0", 16)
		if got := ValidTraceparent(s); got != want {
			t.Fatalf("%q: %t, want %t", s, got, want)
		}
	})
}
