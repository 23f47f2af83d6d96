package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/penstock-io/penstock/internal/kafka"
)

// Reachable looks whether anybody listens at the bootstrap addresses.
func Reachable(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), brokers []string) []Finding {
	const check = "kafka"
	var silent []string
	var last error
	for _, addr := range brokers {
		conn, err := dial(ctx, "tcp", strings.TrimSpace(addr))
		if err != nil {
			silent, last = append(silent, addr), err
			continue
		}
		_ = conn.Close() // it was only looked at
	}
	switch {
	case len(silent) == 0 && len(brokers) > 0:
		return []Finding{ok(check, "%s can be reached", strings.Join(brokers, ", "))}
	case len(silent) < len(brokers):
		return []Finding{{
			check, Warn, strings.Join(silent, ", ") + " cannot be reached; the other bootstrap addresses can", last.Error(),
			"start it, or take it out of --kafka: a process that starts may ask it first, and waits",
		}}
	default:
		why := "no address is configured"
		if last != nil {
			why = last.Error()
		}
		return []Finding{{
			check, Fail, "no broker can be reached at " + strings.Join(brokers, ", "), why,
			"see that Kafka runs, that --kafka (PENSTOCK_KAFKA) is its address as seen from this machine, and that no firewall is between",
		}}
	}
}

// noKafka is what is behind an address at which somebody listens and does not
// answer as Kafka does.
func noKafka(err error) Finding {
	if errors.Is(err, kafka.ErrDenied) {
		return Finding{
			"kafka", Fail, "Kafka does not accept who asks", err.Error(),
			"give the user, password and certificates that the brokers know: --kafka-tls, --kafka-ca, --kafka-cert, --kafka-key, --kafka-sasl, --kafka-user, PENSTOCK_KAFKA_PASSWORD",
		}
	}
	return Finding{
		"kafka", Fail, "somebody listens at the bootstrap addresses, and does not answer as a Kafka broker does", err.Error(),
		"see that the port is a broker's, and not the controller's or another program's, and that --kafka-tls and --kafka-sasl say what its listener speaks",
	}
}

// Brokers is what Listeners asks; *kafka.Cluster has it.
type Brokers interface {
	Brokers(ctx context.Context) ([]kafka.Broker, error)
}

// Listeners looks whether every broker answers at the address that the cluster
// gives for it, which is where clients go, and whether it is new enough.
func Listeners(ctx context.Context, c Brokers) []Finding {
	const check, age = "kafka.listeners", "kafka.version"
	all, err := c.Brokers(ctx)
	if err != nil {
		return []Finding{denied(check, "the brokers do not tell where they are", err)}
	}
	var silent, old, versions []string
	var last error
	for _, b := range all {
		switch {
		case b.Err != nil:
			silent, last = append(silent, fmt.Sprintf("%d at %s", b.ID, b.Addr)), b.Err
		case !b.TopicIDs:
			old = append(old, fmt.Sprintf("%d (%s)", b.ID, b.Version))
		default:
			versions = append(versions, b.Version)
		}
	}
	var list []Finding
	if len(silent) > 0 {
		f := Finding{
			check, Warn, "of " + count(len(all), "broker") + ", no answer from " + strings.Join(silent, ", "), last.Error(),
			"start it; if it runs, its advertised.listeners must be an address that this machine can reach",
		}
		if len(silent) == len(all) {
			f.Status = Fail
			f.Do = "set advertised.listeners of the brokers to addresses that every client can reach: what the bootstrap address answers is where all further connections go"
		}
		list = append(list, f)
	} else {
		list = append(list, ok(check, "%s, each answers where the cluster says it is", count(len(all), "broker")))
	}
	if len(old) > 0 {
		return append(list, Finding{
			age, Fail, "too old: broker " + strings.Join(old, ", "), "it knows no topic ids (KIP-516), by which a topic that was created anew is told from the old one",
			"upgrade to Kafka 2.8 or later; Penstock is tested with 4.3",
		})
	}
	if len(versions) > 0 {
		list = append(list, ok(age, "Kafka %s", versions[0]))
	}
	return list
}

// denied is a failed question, told apart where access rules forbid it.
func denied(check, what string, err error) Finding {
	f := Finding{check, Fail, what, err.Error(), "see that the brokers are well; their logs say more"}
	if errors.Is(err, kafka.ErrDenied) {
		f.Do = "grant this client's principal the right: Describe and Read on the prefix's topics and groups, Write on requests.* for ingest, on tokens, jobs, pulse and dead for processors, DescribeConfigs for this command"
	}
	return f
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
