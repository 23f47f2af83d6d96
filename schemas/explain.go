package schemas

import (
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Explain says, of what a schema's Validate returned, which field was wrong,
// such as "body.model" ("" for the value itself), and a sentence of what was
// wrong and what would be right. Where several are wrong it names one. Of any
// other error it returns the text.
func Explain(err error) (field, reason string) {
	verr, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return "", err.Error()
	}
	named := "it has"
	for len(verr.Causes) > 0 {
		verr = verr.Causes[0] // of several choices the first says most: null stands last in our schemas
		if _, ok := verr.ErrorKind.(*kind.PropertyNames); ok {
			field, named = place(verr.SchemaURL), "a name in it has"
		} else if len(verr.InstanceLocation) > 0 { // a wrong name in an object has no place of its own
			field, named = strings.Join(verr.InstanceLocation, "."), "it has"
		}
	}
	switch k := verr.ErrorKind.(type) {
	case *kind.Required:
		return join(field, k.Missing[0]), "it is missing"
	case *kind.AdditionalProperties:
		return join(field, k.Properties[0]), "there is no such field"
	case *kind.Type:
		return field, fmt.Sprintf("a JSON %s: it must be of type %s", k.Got, strings.Join(k.Want, " or "))
	case *kind.Enum:
		return field, "it must be one of " + list(k.Want)
	case *kind.Const:
		return field, "it must be " + list([]any{k.Want})
	case *kind.Format:
		return field, fmt.Sprintf("%.80q is no %s, such as 2026-11-22T15:04:05Z", k.Got, k.Want)
	case *kind.Pattern:
		return field, fmt.Sprintf("%.140q does not have the right form: %s", k.Got, k.Want)
	case *kind.MinLength:
		return field, "it must not be empty"
	case *kind.MaxLength:
		return field, fmt.Sprintf("%s %d characters: %d at most", named, k.Got, k.Want)
	case *kind.MaxProperties:
		return field, fmt.Sprintf("it has %d pairs: %d at most", k.Got, k.Want)
	default:
		return field, k.LocalizedString(message.NewPrinter(language.English))
	}
}

// place is the field that a schema's address leads to. It stands in for the
// location of an error about an object's names: jsonschema 6.0.3 hands that out
// in memory that it writes the next field's location to.
func place(schemaURL string) string {
	_, path, _ := strings.Cut(schemaURL, "#")
	var fields []string
	steps := strings.Split(path, "/")
	for i := 0; i+1 < len(steps); i++ {
		if steps[i] == "properties" {
			i++
			fields = append(fields, steps[i])
		}
	}
	return strings.Join(fields, ".")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// list writes the values that would be right; null and "" go without saying.
func list(values []any) string {
	var said []string
	for _, v := range values {
		if v != nil && v != "" {
			said = append(said, fmt.Sprint(v))
		}
	}
	return strings.Join(said, ", ")
}
