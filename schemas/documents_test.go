package schemas_test

import (
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/schemas"
)

// library is every file of the package, as parsed, by URL.
func library(tb testing.TB) map[string]any {
	tb.Helper()
	docs := map[string]any{}
	names := append(schemas.Names(), "openapi.yaml", "asyncapi.yaml")
	for _, name := range names {
		raw, err := fs.ReadFile(schemas.FS(), name)
		if err != nil {
			tb.Fatal(err)
		}
		if strings.HasSuffix(name, ".yaml") {
			if raw, err = yaml.YAMLToJSON(raw); err != nil {
				tb.Fatalf("%s: %v", name, err)
			}
		}
		doc, err := schemas.Parse(raw)
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		docs[schemas.BaseURL+name] = doc
	}
	return docs
}

// resolve follows a reference that stands in the document of that URL.
func resolve(docs map[string]any, base, ref string) (any, error) {
	b, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	u, err := b.Parse(ref)
	if err != nil {
		return nil, err
	}
	fragment := u.Fragment
	u.Fragment = ""
	node, ok := docs[u.String()]
	if !ok {
		return nil, fmt.Errorf("there is no %s", u)
	}
	for _, name := range strings.Split(fragment, "/")[1:] {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		members, ok := node.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%q is not in an object", name)
		}
		if node, ok = members[name]; !ok {
			return nil, fmt.Errorf("there is no %q", name)
		}
	}
	return node, nil
}

// walk calls visit for every object below node, with its JSON pointer.
func walk(node any, pointer string, visit func(pointer string, object map[string]any)) {
	switch n := node.(type) {
	case map[string]any:
		visit(pointer, n)
		for _, k := range slices.Sorted(maps.Keys(n)) {
			walk(n[k], pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(k), visit)
		}
	case []any:
		for i, v := range n {
			walk(v, pointer+"/"+strconv.Itoa(i), visit)
		}
	}
}

func TestEveryReferenceResolves(t *testing.T) {
	docs, refs := library(t), 0
	for base, doc := range docs {
		walk(doc, "", func(pointer string, object map[string]any) {
			ref, ok := object["$ref"].(string)
			if !ok {
				return
			}
			refs++
			if _, err := resolve(docs, base, ref); err != nil {
				t.Errorf("%s#%s: %s: %v", base, pointer, ref, err)
			}
		})
	}
	if refs < 200 {
		t.Errorf("only %d references were seen", refs)
	}
}

// compiler knows every file.
func compiler(t *testing.T, docs map[string]any) *jsonschema.Compiler {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	for u, doc := range docs {
		if err := c.AddResource(u, doc); err != nil {
			t.Fatalf("%s: %v", u, err)
		}
	}
	return c
}

func TestEverySchemaInTheDocumentsCompilesAndItsExamplesAreValid(t *testing.T) {
	docs := library(t)
	c := compiler(t, docs)
	compiled, checked := 0, 0
	for _, name := range []string{"openapi.yaml", "asyncapi.yaml"} {
		base := schemas.BaseURL + name
		walk(docs[base], "", func(pointer string, object map[string]any) {
			for _, key := range []string{"schema", "payload", "headers"} {
				_, ok := object[key].(map[string]any)
				if !ok || key == "headers" && !strings.Contains(pointer, "messageTraits") {
					continue
				}
				s, err := c.Compile(base + "#" + escape(pointer) + "/" + key)
				if err != nil {
					t.Errorf("%s#%s: %v", name, pointer, err)
					continue
				}
				compiled++
				for title, example := range examplesOf(object) {
					checked++
					if err := s.Validate(example); err != nil {
						t.Errorf("%s#%s: example %s: %v", name, pointer, title, err)
					}
				}
			}
		})
	}
	all, _ := docs[schemas.BaseURL+"openapi.yaml"].(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any)
	for name := range all {
		if _, err := c.Compile(schemas.BaseURL + "openapi.yaml#/components/schemas/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if compiled < 50 || checked < 8 {
		t.Errorf("only %d schemas and %d examples were seen", compiled, checked)
	}
}

// escape makes a pointer fit for a URL's fragment.
func escape(pointer string) string { return (&url.URL{Path: pointer}).EscapedPath() }

func examplesOf(object map[string]any) map[string]any {
	found := map[string]any{}
	if e, ok := object["example"]; ok {
		found["example"] = e
	}
	examples, _ := object["examples"].(map[string]any)
	for title, e := range examples {
		found[title] = e.(map[string]any)["value"]
	}
	return found
}

func TestTheAsyncAPINamesEveryTypeOnce(t *testing.T) {
	docs := library(t)
	messages, err := resolve(docs, schemas.BaseURL+"asyncapi.yaml", "#/components/messages")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{"events/common.v1.json": true}
	for key, m := range messages.(map[string]any) {
		message := m.(map[string]any)
		name, _ := message["name"].(string)
		ref, _ := message["payload"].(map[string]any)["$ref"].(string)
		frame := strings.HasSuffix(name, " frame")
		if frame && !strings.HasPrefix(ref, "ws/") {
			t.Errorf("%s: its payload is %s", key, ref)
		}
		if name != "dead" && !frame && ref != schemas.Event(name, event.Version) {
			t.Errorf("%s: its name is %s, its payload %s", key, name, ref)
		}
		seen[ref] = true
	}
	for _, name := range schemas.Names() {
		if !strings.HasPrefix(name, "http/") && !seen[name] {
			t.Errorf("no message has the payload %s", name)
		}
	}
}

func TestEveryMessageIsOnAChannel(t *testing.T) {
	docs := library(t)
	root := docs[schemas.BaseURL+"asyncapi.yaml"].(map[string]any)
	used := map[string]bool{}
	walk(root["channels"], "", func(_ string, object map[string]any) {
		if ref, ok := object["$ref"].(string); ok {
			used[strings.TrimPrefix(ref, "#/components/messages/")] = true
		}
	})
	for key := range root["components"].(map[string]any)["messages"].(map[string]any) {
		if !used[key] {
			t.Errorf("%s is on no channel", key)
		}
	}
}

func TestTheOpenAPIHasEveryPath(t *testing.T) {
	docs := library(t)
	paths := docs[schemas.BaseURL+"openapi.yaml"].(map[string]any)["paths"].(map[string]any)
	want := []string{
		"/health", "/livez", "/metrics", "/readyz", "/v1/chat/completions", "/v1/embeddings", "/v1/jobs", "/v1/jobs/{id}",
		"/v1/jobs/{id}/cancel", "/v1/jobs/{id}/events", "/v1/jobs/{id}/retry", "/v1/load", "/v1/models", "/v1/models/{model}",
		"/v1/topics/tokens/partitions/{p}/events", "/v1/ws",
	}
	if got := slices.Sorted(maps.Keys(paths)); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
