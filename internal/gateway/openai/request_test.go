package openai

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/fault"
)

const messages = `"messages":[{"role":"user","content":"hi"}]`

func TestAChatRequestIsReadAndItsBodyStaysAsItCame(t *testing.T) {
	const body = ` {"model":"sim", ` + messages + `,"n":2,"max_tokens":null,"max_completion_tokens":5,"stream":true,
 "stream_options":{"include_usage":true,"include_obfuscation":false},"odd":{"a":[1.10]},"tools":[{"type":"function"}],
 "modalities":["text"],"functions":null,"service_tier":"flex","temperature":0.5}` + "\n"
	r, err := ReadChat([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != "sim" || r.Lane != event.Batch || !r.Stream || !r.IncludeUsage || string(r.Body) != strings.TrimSpace(body) {
		t.Errorf("it was read as %+v", r)
	}
	r, err = ReadChat([]byte(`{"model":"sim",` + messages + `,"stream":null,"stream_options":null,"service_tier":null,"n":null,"tools":null}`))
	if err != nil || r.Stream || r.IncludeUsage || r.Lane != event.Interactive {
		t.Errorf("with nulls it was read as %+v, %v", r, err)
	}
}

func TestWholeNumbersAreTakenInWhateverFormTheyAreWritten(t *testing.T) {
	for _, n := range []string{"1", "1.0", "1e0", "10E-1", "100.0e-2", "1.2e1"} {
		if _, err := ReadChat([]byte(`{"model":"sim",` + messages + `,"n":` + n + `,"max_tokens":` + n + `,"max_completion_tokens":` + n + `}`)); err != nil {
			t.Errorf("a chat with %s: %v", n, err)
		}
		if _, err := ReadEmbeddings([]byte(`{"model":"sim","input":"x","dimensions":` + n + `}`)); err != nil {
			t.Errorf("embeddings with %s: %v", n, err)
		}
	}
}

func TestServiceTiersAreLanes(t *testing.T) {
	for tier, want := range map[string]event.Lane{
		"auto": event.Interactive, "default": event.Interactive, "priority": event.Interactive, "fast": event.Interactive,
		"flex": event.Batch, "of another year": event.Interactive,
	} {
		r, err := ReadChat([]byte(`{"model":"sim",` + messages + `,"service_tier":"` + tier + `"}`))
		if err != nil || r.Lane != want {
			t.Errorf("%s is %s, %v; want %s", tier, r.Lane, err, want)
		}
		e, err := ReadEmbeddings([]byte(`{"model":"sim","input":"x","service_tier":"` + tier + `"}`))
		if err != nil || e.Lane != want {
			t.Errorf("embeddings: %s is %s, %v; want %s", tier, e.Lane, err, want)
		}
	}
}

func TestABadChatRequestSaysWhichFieldAndWhatWouldBeRight(t *testing.T) {
	with := func(rest string) string { return `{"model":"sim",` + messages + `,` + rest + `}` }
	for body, want := range map[string]string{
		``:                                     "invalid_json||the body is not JSON at line 1, column 1: it is empty",
		"{\n ":                                 "invalid_json||the body is not JSON at line 2, column 2: it ends too early",
		"{\"model\":\"sim\",\n\"messages\":x}": "invalid_json||the body is not JSON at line 2, column 12: ",
		` null`:                                "invalid_request||the body is a JSON null: it must be an object",
		`[]`:                                   "invalid_request||the body is a JSON array: it must be an object",
		`{"model":"sim","model":"a",` + messages + `}`: "invalid_json|model|",
		`{}`:                                                       "invalid_request|model|model: it is missing",
		`{"model":"",` + messages + `}`:                            "invalid_request|model|model: it is missing",
		`{"model":7,` + messages + `}`:                             "invalid_request|model|model is a JSON number: it must be a string",
		`{"model":"sim"}`:                                          "invalid_request|messages|messages: it is missing or empty",
		`{"model":"sim","messages":[]}`:                            "invalid_request|messages|messages: it is missing or empty",
		`{"model":"sim","messages":{}}`:                            "invalid_request|messages|messages is a JSON object: it must be an array",
		`{"model":"sim","messages":["hi"]}`:                        "invalid_request|messages.0|messages.0 is a JSON string: it must be an object",
		`{"model":"sim","messages":[{"role":"user"},{}]}`:          "invalid_request|messages.1.role|messages.1.role: it is missing",
		`{"model":"sim","messages":[{"role":1}]}`:                  "invalid_request|messages.0.role|messages.0.role is a JSON number: it must be a string",
		with(`"n":0`):                                              "invalid_request|n|n: 0: it must be a whole number from 1 to 128",
		with(`"n":129`):                                            "invalid_request|n|n: 129: ",
		with(`"n":1.5`):                                            "invalid_request|n|n: 1.5: ",
		with(`"n":1.29e2`):                                         "invalid_request|n|n: 1.29e2: it must be a whole number from 1 to 128",
		with(`"max_tokens":1e400`):                                 "invalid_request|max_tokens|max_tokens: 1e400: it must be a whole number from 1 to 2147483647",
		with(`"n":"2"`):                                            `invalid_request|n|n: "2": `,
		with(`"max_tokens":0`):                                     "invalid_request|max_tokens|max_tokens: 0: ",
		with(`"max_completion_tokens":-1`):                         "invalid_request|max_completion_tokens|max_completion_tokens: -1: ",
		with(`"stream":"yes"`):                                     "invalid_request|stream|stream is a JSON string: it must be true or false",
		with(`"stream_options":{"include_usage":true}`):            "invalid_request|stream_options|stream_options: it is for streams alone",
		with(`"stream":true,"stream_options":[]`):                  "invalid_request|stream_options|stream_options is a JSON array: it must be an object",
		with(`"stream":true,"stream_options":{"include_usage":1}`): "invalid_request|stream_options.include_usage|",
		with(`"service_tier":1`):                                   "invalid_request|service_tier|service_tier is a JSON number: it must be a string",
		with(`"modalities":["text","audio"]`):                      `invalid_request|modalities|modalities: "audio" is not served`,
		with(`"functions":[]`):                                     "invalid_request|functions|functions: they are not served: use tools",
		with(`"tools":[{"type":"function"},{"type":"custom"}]`):    "invalid_request|tools.1.type|tools.1.type: custom tools are not served",
		with(`"tools":[null]`):                                     "invalid_request|tools.0|tools.0: it is null",
	} {
		_, err := ReadChat([]byte(body))
		same(t, body, err, want)
	}
}

func TestABadEmbeddingsRequestSaysWhichFieldAndWhatWouldBeRight(t *testing.T) {
	for body, want := range map[string]string{
		`{"model":"m","input":"x","encoding_format":"base64","dimensions":8,"user":"u"}`: "",
		`{"model":"m","input":["x","y"],"encoding_format":null,"dimensions":null}`:       "",
		`{"model":"m","input":[[1,2],[3]]}`:                                              "",
		`{`:                                                                              "invalid_json||",
		`{"input":"x"}`:                                                                  "invalid_request|model|model: it is missing",
		`{"model":"m"}`:                                                                  "invalid_request|input|input: it is missing",
		`{"model":"m","input":null}`:                                                     "invalid_request|input|input: it is missing",
		`{"model":"m","input":""}`:                                                       "invalid_request|input|input: it is empty",
		"{\"model\":\"m\",\"input\":[ \n]}":                                              "invalid_request|input|input: it is an empty array",
		`{"model":"m","input":7}`:                                                        "invalid_request|input|input: a JSON number: it must be a text",
		`{"model":"m","input":[1,2.0,3e1]}`:                                              "",
		`{"model":"m","input":["x",null]}`:                                               "invalid_request|input|input.1: a JSON null: it must be what the first is, a JSON string",
		`{"model":"m","input":[ null]}`:                                                  "invalid_request|input|input.0: a JSON null: it must be a text or a token",
		`{"model":"m","input":[[1],"x"]}`:                                                "invalid_request|input|input.1: a JSON string: ",
		`{"model":"m","input":[1,2.5]}`:                                                  "invalid_request|input|input.1: 2.5: a token must be a whole number from 0 to 2147483647",
		`{"model":"m","input":[-1]}`:                                                     "invalid_request|input|input.0: -1: a token",
		`{"model":"m","input":[1,2147483648]}`:                                           "invalid_request|input|input.1: 2147483648: a token",
		`{"model":"m","input":[` + strings.Repeat(`"x",`, 2047) + `"x"]}`:                "",
		`{"model":"m","input":[` + strings.Repeat(`"x",`, 2048) + `"x"]}`:                "invalid_request|input|input: it has more than 2048 inputs",
		`{"model":"m","input":[` + strings.Repeat(`1,`, 5000) + `1]}`:                    "",
		`{"model":"m","input":"x","encoding_format":"hex"}`:                              `invalid_request|encoding_format|encoding_format: "hex" is none`,
		`{"model":"m","input":"x","dimensions":0}`:                                       "invalid_request|dimensions|dimensions: 0: ",
	} {
		_, err := ReadEmbeddings([]byte(body))
		same(t, body, err, want)
	}
}

// same checks an error's code, field and the beginning of its sentence.
func same(t *testing.T, body string, err error, want string) {
	t.Helper()
	got := ""
	if f, ok := errors.AsType[*fault.Error](err); ok {
		got = string(f.Code) + "|" + f.Param + "|" + f.Message
	} else if err != nil {
		t.Fatalf("%s: %v is no fault", body, err)
	}
	if !strings.HasPrefix(got, want) || want == "" && got != "" {
		t.Errorf("%s\n got %s\nwant %s", body, got, want)
	}
}

// FuzzRead: whatever comes, the answer is a request whose body is JSON, or a
// fault that a client can be answered with.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"model":"sim",` + messages + `}`, `{"model":"sim",` + messages + `,"n":1e0,"stream":true,"stream_options":{}}`, `{"model":"m","input":[ ]}`,
		`{"model":"m","input":["a"],"encoding_format":"float"}`, `null`, ``, `[`, "\xef\xbb\xbf{}", `{"model":"\ud800"}`, "\u00a0{}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		chat, chatErr := ReadChat(body)
		emb, embErr := ReadEmbeddings(body)
		for _, c := range []struct {
			model string
			body  jsontext.Value
			err   error
		}{{chat.Model, chat.Body, chatErr}, {emb.Model, emb.Body, embErr}} {
			if c.err == nil {
				if c.model == "" || !c.body.IsValid() || c.body.Kind() != '{' || !strings.Contains(string(body), string(c.body)) {
					t.Errorf("%q was let in as %q", body, c.body)
				}
				continue
			}
			fe, ok := errors.AsType[*fault.Error](c.err)
			if !ok || fault.KindOf(fe.Code).Status != 400 || fe.Message == "" {
				t.Errorf("%q: %v", body, c.err)
			}
		}
	})
}
