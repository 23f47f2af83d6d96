// Package projections folds requests and facts into tables in PostgreSQL, and
// answers what people ask about jobs from there.
//
// A Projector consumes the request topics and the jobs topic. Each batch of
// records becomes one transaction of set-based SQL, in which the checkpoints of
// the partitions that it moves are compared and set: so every record counts
// exactly once, however often it is delivered and whoever else believes to own
// the partition. One kind of record may be folded before its checkpoint passes
// it, and again after a crash: a request of a burst whose job has ended (holder).
// That changes nothing, by what is said of the fold below. A Store reads the
// tables; API serves it over HTTP, and asks the log where a row is not there yet.
//
// The fold of a job is a join of a semilattice: it gives the same row in
// whatever order its request and its facts come, and however often. That is so
// because each column's value is chosen by where its record lies in the log, by
// time, or by attempt, and never by when it was delivered.
//
// Projector.Run owns two goroutines, the loop and the one that measures lag, and
// the loop one for each transaction that is under way, two at most: each has its
// batch and its slot's sink, and the loop all else. All end before it returns. A
// Store and an API own none.
package projections
