package llm

import "github.com/go-json-experiment/json/jsontext"

// Told makes a usage that a server told fit to be written on: a total where
// there is none, and details only where they are valid JSON objects.
func (u *Usage) Told() *Usage {
	if u.TotalTokens == 0 {
		u.TotalTokens = u.PromptTokens + u.CompletionTokens
	}
	u.PromptTokensDetails = object(u.PromptTokensDetails)
	u.CompletionTokensDetails = object(u.CompletionTokensDetails)
	return u
}

func object(v jsontext.Value) jsontext.Value {
	if v.Kind() != jsontext.KindBeginObject || !v.IsValid() {
		return nil
	}
	return v
}
