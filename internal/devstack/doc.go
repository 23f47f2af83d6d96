// Package devstack holds the two services that `penstock dev` and the tests
// bring along: a private PostgreSQL and an embedded Kafka broker.
//
// Both listen on 127.0.0.1 on a port chosen by the system, both keep what they
// were told over a SIGKILL of this process, and both guard their directory with
// a lock file, so that two processes on one directory are told apart and not
// let loose on the same bytes.
//
// PostgreSQL is an ordinary child process, run from binaries that are fetched
// once (see fetchBinaries). It refuses to run as root; where this process is
// root, the server runs as the account that owns the data, for new data as
// "postgres" where that account exists and else as "nobody". Data that this
// account could not reach, below a home directory of mode 0700 for instance,
// are kept under /var/lib/penstock, with a symbolic link where the caller
// wanted them. The child dies with its parent: on Linux by the parent-death
// signal, elsewhere the next start ends what was left behind.
//
// Goroutines: one per Postgres, which starts the server and waits for its end;
// those of kfake, which end in Broker.Close.
package devstack
