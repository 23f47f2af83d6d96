package fault

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// declared reads the codes from the source, so that one without its line in
// the table is seen.
func declared(t *testing.T) map[Code]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[Code]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Code" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes[Code(value)] = true
		}
		return true
	})
	if len(codes) < 10 {
		t.Fatalf("found only %d codes in the source", len(codes))
	}
	return codes
}

func TestEveryCodeHasOneLineInTheTable(t *testing.T) {
	got := map[Code]bool{}
	for _, kind := range Table() {
		if got[kind.Code] {
			t.Errorf("%s stands in the table twice", kind.Code)
		}
		got[kind.Code] = true
	}
	if diff := cmp.Diff(declared(t), got); diff != "" {
		t.Errorf("codes declared and codes in the table (-declared +table)\n%s", diff)
	}
}

func TestTheTablesLinesAgreeWithThemselves(t *testing.T) {
	for _, kind := range Table() {
		if kind.Meaning == "" || kind.Status < 400 || kind.Status > 599 {
			t.Errorf("%+v: every code has a meaning and an error's status", kind)
		}
		want := "invalid_request_error"
		switch {
		case kind.Status == http.StatusTooManyRequests:
			want = "rate_limit_error"
		case kind.Status >= 500:
			want = "server_error"
		}
		if kind.Type != want {
			t.Errorf("%s: type %s with status %d, want %s", kind.Code, kind.Type, kind.Status, want)
		}
		if kind.Retry && want == "invalid_request_error" {
			t.Errorf("%s: the same invalid request cannot succeed later", kind.Code)
		}
		if kind.Code != Code(strings.ToLower(string(kind.Code))) || strings.ContainsAny(string(kind.Code), " -") {
			t.Errorf("%q is no snake_case code", kind.Code)
		}
	}
}

func TestWhatATableReaderDoesHarmsNobody(t *testing.T) {
	Table()[0].Status = 1
	if Table()[0].Status == 1 {
		t.Error("the table was changed")
	}
}

func TestKindOfAnUnknownCodeIsOurDefect(t *testing.T) {
	if got := KindOf("no_such_code"); got != KindOf(Internal) || got.Status != 500 {
		t.Errorf("it is %+v", got)
	}
	if got := KindOf(Overloaded); got.Code != Overloaded || got.Status != 429 {
		t.Errorf("overloaded is %+v", got)
	}
}

func TestConstructorsFillTheirFields(t *testing.T) {
	for _, c := range []struct {
		got  *Error
		want Error
		text string
	}{
		{
			New(NotFound, "there is no job %q", "x"),
			Error{Code: NotFound, Message: `there is no job "x"`},
			`not_found: there is no job "x"`,
		},
		{
			Param("lane", "lane is %d", 4),
			Error{Code: InvalidRequest, Param: "lane", Message: "lane is 4"},
			"invalid_request: lane is 4",
		},
		{
			Wrap(io.EOF, Unavailable, "Kafka is %s", "away"),
			Error{Code: Unavailable, Message: "Kafka is away", Err: io.EOF},
			"unavailable: Kafka is away: EOF",
		},
	} {
		if *c.got != c.want {
			t.Errorf("got %+v, want %+v", *c.got, c.want)
		}
		if c.got.Error() != c.text {
			t.Errorf("it reads %q, want %q", c.got.Error(), c.text)
		}
	}
}

func TestTheCauseIsFoundInTheChain(t *testing.T) {
	if !errors.Is(Wrap(io.EOF, Unavailable, "away"), io.EOF) {
		t.Error("the cause is lost")
	}
	if errors.Unwrap(New(Internal, "x")) != nil {
		t.Error("a cause out of nothing")
	}
}

func TestRetryableFollowsTheTable(t *testing.T) {
	for _, kind := range Table() {
		if New(kind.Code, "x").Retryable() != kind.Retry {
			t.Errorf("%s: retryable is not what the table says", kind.Code)
		}
	}
	if New("no_such_code", "x").Retryable() {
		t.Error("an unknown code is retryable")
	}
}

func TestFromFindsTheFaultOrMakesAnInternalOne(t *testing.T) {
	inner := New(TooLarge, "over 1 MiB")
	if got := From(fmt.Errorf("reading: %w", inner)); got != inner {
		t.Errorf("it found %+v", got)
	}
	got := From(io.ErrClosedPipe)
	if got.Code != Internal || !errors.Is(got, io.ErrClosedPipe) {
		t.Errorf("it made %+v", got)
	}
	if strings.Contains(got.Message, io.ErrClosedPipe.Error()) {
		t.Errorf("the message shows the cause: %q", got.Message)
	}
}
