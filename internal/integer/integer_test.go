package integer_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/integer"
)

func TestAWholeNumberIsReadInWhateverFormItIsWritten(t *testing.T) {
	for raw, want := range map[string]int64{
		"0": 0, "-0": 0, "0.0": 0, "-0.00e7": 0, "0e99999999999999999999": 0, "0.0E-99999999999999999999": 0,
		"7": 7, "-7": -7, "1.0": 1, "82977.0": 82977, "-3.000": -3, "1e2": 100, "1E+2": 100, "100e-2": 1, "1.5e1": 15, "0.001e3": 1,
		"12.50e1": 125, "-1.50e1": -15, "10e-1": 1, "12345678901234567.80e1": 123456789012345678, "1000000000000000000000e-21": 1, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
		"9.223372036854775807e18": math.MaxInt64, "-9.223372036854775808E18": math.MinInt64,
	} {
		if n, ok := integer.Parse(jsontext.Value(raw)); !ok || n != want {
			t.Errorf("%s: %d, %v; want %d", raw, n, ok, want)
		}
	}
}

func TestWhatIsNoWholeNumberIsNone(t *testing.T) {
	for _, raw := range []string{
		"", " ", "1.5", "1e-1", "-0.1", "1.05e1", "1e19", "9223372036854775808", "9.3e18", "-9223372036854775809", "1e999999999", "1e2000000", "-1e-9",
		"1e99999999999999999999", "1e-99999999999999999999", "1e-999999999", "null", "true", `"1"`, "[1]", "{}", "+1", "01", "0x1", "1_0", ".5",
		"1.", "1e", "--1", "1 2", "NaN", "Infinity", strings.Repeat("9", 1<<16),
	} {
		if n, ok := integer.Parse(jsontext.Value(raw)); ok {
			t.Errorf("%.40s is taken for %d", raw, n)
		}
	}
}

func TestAnIntDecodesAsAnyIntegerDoes(t *testing.T) {
	var v struct {
		A, C *integer.Int
		B    integer.Int
	}
	if err := json.Unmarshal([]byte(`{"A":1e3,"B":2.0,"C":null}`), &v); err != nil || *v.A != 1000 || v.B != 2 || v.C != nil {
		t.Errorf("%+v, %v", v, err)
	}
	for _, raw := range []string{"1.5", "1e400", `"1"`, "true", "[]"} {
		err := json.Unmarshal([]byte(`{"B":`+raw+`}`), &v)
		wrong, ok := errors.AsType[*json.SemanticError](err)
		if !ok || wrong.JSONPointer != "/B" || wrong.JSONKind != jsontext.Value(raw).Kind() || wrong.JSONKind == '0' && string(wrong.JSONValue) != raw {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"B":`), &v); err == nil {
		t.Error("a body that breaks off is read")
	}
}
