// Package kafka is Penstock's only way to the log: producers, groups, tails,
// scans and administration, behind types that show nothing of the client.
//
// What it promises. A produce ends in an acknowledgement, in ErrRefused (surely
// not in the log) or in ErrUnknownOutcome (may be in it); the last two are never
// mixed up. A reader never moves by itself: truncation, a recreated topic and an
// offset that retention took are told (ErrTruncated, ErrRecreated,
// ErrOutOfRange), as is a batch that cannot be decoded (ErrCorrupt), and that
// partition stops until it is told where to go on.
// Every buffer has a bound in the configuration beside it.
//
// How it is built. One shared client serves administration and short fetches.
// Each Producer has a client of its own, and each Group one for its membership
// alone. Records are read by one engine (reader) for groups and tails: per
// broker two lanes of raw Fetch requests on connections of their own, so that a
// partition that comes in while a long poll is parked is fetched at once on the
// other lane. One that finds both lanes parked breaks the second one's fetch
// off, ten milliseconds after that began at the earliest, and costs it its
// connection: about a millisecond. So the long poll's length (FetchMaxWait) is
// in nobody's time to first record. Each lane has a fetch session at its broker:
// a request names the partitions that changed since the last one, and the answer
// those that have something new. Tails of one Cluster that follow the same
// partitions fetch and unpack them once, where they stand at the log's end (share).
//
// Who owns what. A Producer and the Cluster may be used from many goroutines. A
// Group's or a Tail's Poll has one caller; its other methods may be called from
// anywhere.
package kafka
