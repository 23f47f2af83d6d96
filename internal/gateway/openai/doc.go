// Package openai is the shapes of the OpenAI API: it reads requests, and writes
// what a job said as the chunks of a stream or as a whole answer. The strictest
// client decides what a shape is: the official SDKs for Python, Node.js and Go,
// the Vercel AI SDK, and vLLM's benchmark.
//
// The package is pure: no goroutine, no clock, no input or output. A request's
// body is looked at and never changed: what is not known here is the provider's
// matter.
package openai
