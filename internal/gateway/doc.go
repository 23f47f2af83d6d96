// Package gateway lets any number of watchers read the token topic from any
// position: a job's events, a conversation's or a whole partition's, over SSE or
// a WebSocket.
//
// The Hub has one tail for the process. A partition is followed while somebody
// needs it, and for a while longer. Its recent records lie in immutable
// segments, scanned once, under one byte budget for all partitions; a watcher is
// a cursor into them. A segment knows which of its records are of which job, so
// watchers are woken only when there is something for them (bell), and what
// several watchers of a job get is made once for all (shared). A watcher whose
// position is older than the segments is read from Kafka at its own pace, a
// bounded piece at a time, until it meets them. The records' bytes are handed on
// as they are.
//
// What it promises: of the events that the fence lets through, a watcher gets
// each once, in order, from where it asked; where the log has lost some, it is
// told so in-band.
//
// Who owns what: Gateway.Run owns the tail's goroutine and waits for all others
// that the package starts, which look for jobs that no event was seen of yet, at
// most one a watcher. An SSE watcher runs in its request's goroutine; a WebSocket
// has goroutines of its own, which socket tells of, and Run waits for them too. What
// is written to WebSockets, and to SSE streams that were quiet once, is written by the
// crew's few goroutines, as far as the system takes it at once (pump).
package gateway
