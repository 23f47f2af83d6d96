// Package check holds the files of deploy/ to what reads them: the compose file
// to the specification, the image's recipe to BuildKit's parser, the manifests to
// Kubernetes' own types, the dashboard and the alerts to PromQL's parser and to
// the metrics that Penstock has. What can be run without a container engine is
// run: the recipe's build, and every command of a manifest or of the compose file
// with its environment, its probes and its stop, on a real Kafka and PostgreSQL.
//
// It has tests alone, and is a module of its own, so that Penstock depends on
// none of these. Run it with `make deploy-check`.
package check
