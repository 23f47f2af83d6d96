package anthropic

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/penstock-io/penstock/internal/llm"
)

// prefilled tells whether a model takes the beginning of its own answer. Models
// from 4.6 on refuse it with 400, so that a model that is not known is taken for
// one that does:
// https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-6.
func prefilled(model string) bool {
	for _, family := range [...]string{"claude-haiku-4-5", "claude-opus-4-5", "claude-sonnet-4-5"} {
		if rest, ok := strings.CutPrefix(model, family); ok && (rest == "" || rest[0] == '-') {
			return true
		}
	}
	return false
}

// CanContinue implements llm.Continuer. An answer that was not begun can always
// be: with its beginning. Else the model must take the beginning of its own
// answer, which no model does behind thinking, in a form that was asked for, or
// where a tool must be called; nor may it end in white space.
func (*Provider) CanContinue(req llm.Request, prefix llm.Prefix) bool {
	if req.Endpoint != "" && req.Endpoint != llm.ChatCompletions {
		return false
	}
	if prefix == (llm.Prefix{}) {
		return true
	}
	if prefix.Reasoning != "" || prefix.Content == "" || !prefilled(req.Model) {
		return false
	}
	if last, _ := utf8.DecodeLastRuneInString(prefix.Content); unicode.IsSpace(last) {
		return false
	}
	var c chat
	return decode(req.Body, &c, "") == nil &&
		!c.thinks() && c.ReasoningEffort == "" && !c.forced() && (c.ResponseFormat == nil || c.ResponseFormat.Type == "text")
}
