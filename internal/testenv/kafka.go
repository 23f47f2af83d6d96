package testenv

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// startTimeout bounds one start of a broker: about 3 s on an idle
	// machine, many times that on a busy one.
	startTimeout = 2 * time.Minute
	// stopTimeout is what a broker gets to end by itself.
	stopTimeout = 20 * time.Second
	// startAttempts bounds how often new ports are tried, since a port that
	// the system gave may be taken by someone else before Kafka binds it.
	startAttempts = 3
	// largestRecord, in bytes, leaves the topic of dead letters room to hold
	// any other topic's largest record.
	largestRecord = "16777216"
)

//go:embed log4j2.yaml
var log4jConfig []byte

// KafkaOptions says what broker StartKafka starts. The zero value is a good one.
type KafkaOptions struct {
	// Properties go over the defaults in server.properties.
	Properties map[string]string
	// Throughput leaves Java's optimising compiler on, for what is measured;
	// without it the broker starts faster and runs slower.
	Throughput bool
}

// KafkaServer is an Apache Kafka of its own, in KRaft mode, with its own data and
// ports. It dies with this process. Its methods are for one goroutine at a time.
type KafkaServer struct {
	addr    string // host:port for clients
	dir     string // data, configuration and log
	command []string
	running *process // nil once stopped or killed
}

// StartKafka starts Apache Kafka and returns once it serves. ctx bounds the
// start alone; the broker runs until Stop or Kill. What is missing of Java,
// Maven and Kafka itself is fetched first, or the error says what to install.
func StartKafka(ctx context.Context, opts KafkaOptions) (*KafkaServer, error) {
	return start(ctx, func(jars string) (*KafkaServer, error) { return startOnNewPorts(ctx, jars, opts) })
}

// start sees to what a start needs, and tries it again where a port was taken
// meanwhile.
func start[T any](ctx context.Context, attempt func(jars string) (T, error)) (T, error) {
	var none T
	// Debian 12 has Java 17; later ones have only their default, newer one.
	if err := requireProgram(ctx, "java", "openjdk-17-jre-headless", "default-jre-headless"); err != nil {
		return none, err
	}
	jars, err := kafkaJars(ctx)
	if err != nil {
		return none, err
	}
	var failures []error
	for range startAttempts {
		k, err := attempt(jars)
		if err == nil {
			return k, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil || !errors.Is(err, errExited) {
			break
		}
	}
	return none, errors.Join(failures...)
}

// startOnNewPorts makes one attempt at a fresh broker, and leaves nothing
// behind when it fails.
func startOnNewPorts(ctx context.Context, jars string, opts KafkaOptions) (_ *KafkaServer, err error) {
	sweep()
	dir, err := makeDataDir()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			discard(dir)
		}
	}()
	broker, err := lowPort(ctx)
	if err != nil {
		return nil, err
	}
	controller, err := lowPort(ctx)
	if err != nil {
		return nil, err
	}
	k := &KafkaServer{addr: broker, dir: dir}
	properties := serverProperties(dir, broker, controller, opts.Properties)
	if err := k.format(ctx, jars, clusterID(), properties); err != nil {
		return nil, err
	}
	k.command = javaCommand(dir, jars, "384m", opts.Throughput)
	if err := k.start(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// makeDataDir makes a directory for one node's data.
func makeDataDir() (string, error) {
	dir, err := os.MkdirTemp("", dataPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory for Kafka's data: %w", err)
	}
	return dir, nil
}

// The files of a node's configuration, in its directory.
const (
	propertiesFile = "server.properties"
	loggingFile    = "log4j2.yaml"
)

// format writes a node's configuration and makes its storage ready.
func (k *KafkaServer) format(ctx context.Context, jars, cluster string, properties []byte) error {
	file, logging := filepath.Join(k.dir, propertiesFile), filepath.Join(k.dir, loggingFile)
	err := errors.Join(os.WriteFile(file, properties, 0o600), os.WriteFile(logging, log4jConfig, 0o600))
	if err != nil {
		return fmt.Errorf("write Kafka's configuration: %w", err)
	}
	err = runQuietly(ctx,
		"java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.configurationFile="+logging,
		"-cp", filepath.Join(jars, "*"), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", file,
	)
	if err != nil {
		return fmt.Errorf("format Kafka's storage: %w", err)
	}
	return nil
}

// javaCommand runs the node that is configured in dir, with that much heap.
func javaCommand(dir, jars, heap string, throughput bool) []string {
	command := []string{
		"java", "-Xms192m", "-Xmx" + heap, "-XX:+UseSerialGC", "-Xss512k",
		"-Dkafka.logs.dir=" + dir, "-Dlog4j2.configurationFile=" + filepath.Join(dir, loggingFile), "-cp", filepath.Join(jars, "*"),
	}
	if !throughput {
		command = append(command, "-XX:TieredStopAtLevel=1")
	}
	return append(command, "kafka.Kafka", filepath.Join(dir, propertiesFile))
}

// Addr is the bootstrap address, host:port. It stays across Kill and Restart.
func (k *KafkaServer) Addr() string { return k.addr }

// Stop ends the broker and removes its data. A second Stop does nothing.
func (k *KafkaServer) Stop() error {
	// No need of a clean shutdown, which takes seconds: the data goes too.
	err := k.Kill()
	discard(k.dir)
	return err
}

// Kill ends the broker with SIGKILL, wherever it stands, and keeps its data for
// Restart.
func (k *KafkaServer) Kill() error {
	if k.running == nil {
		return nil
	}
	p := k.running
	k.running = nil
	return p.kill()
}

// Pause freezes the broker with SIGSTOP: connections stay open and nobody
// answers. It returns once that is so.
func (k *KafkaServer) Pause() error {
	if err := k.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return k.running.awaitStop()
}

// Resume lets a paused broker go on.
func (k *KafkaServer) Resume() error { return k.signal(syscall.SIGCONT) }

// Restart starts the broker again on the same address and data, after asking it
// to end if it runs. It returns once the broker serves.
func (k *KafkaServer) Restart(ctx context.Context) error {
	if p := k.running; p != nil {
		k.running = nil
		if err := errors.Join(p.signal(syscall.SIGCONT), p.terminate(stopTimeout)); err != nil {
			return err
		}
	}
	var failures []error
	for range startAttempts {
		err := k.start(ctx)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failures...)
}

func (k *KafkaServer) signal(sig syscall.Signal) error {
	if k.running == nil {
		return errors.New("this Kafka was stopped or killed: restart it first")
	}
	return k.running.signal(sig)
}

// errExited says that a broker ended before it served.
var errExited = errors.New("kafka ended while it started")

// start runs the broker and waits until it serves.
func (k *KafkaServer) start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	file, err := os.OpenFile(filepath.Join(k.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open Kafka's log: %w", err)
	}
	out := newWatchedLog(file, "Kafka Server started")
	// Its life is bounded by Kill, not by the context that bounds its start.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), k.command[0], k.command[1:]...) //nolint:gosec // The words are this file's.
	cmd.Dir, cmd.Stdout, cmd.Stderr = k.dir, out, out
	p, err := startProcess(cmd)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	go func() {
		<-p.done
		_ = file.Close() // A log of a test's broker; what was lost of it is no loss.
	}()
	select {
	case <-out.seen:
		k.running = p
		return nil
	case <-p.done:
		return fmt.Errorf("%w: %w; it said:\n%s", errExited, p.err, out.tail())
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("kafka did not serve in time: %w; it said:\n%s", ctx.Err(), out.tail()), p.kill())
	}
}

// dataPrefix begins the name of every broker's directory; the id of the process
// that owns it follows.
const dataPrefix = "penstock-kafka-"

// sweep removes the data of brokers whose processes were killed and could not
// do it. What cannot be removed is left for the next sweep.
func sweep() {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), dataPrefix+"*"))
	if err != nil {
		return // The temporary directory has a name that is no pattern.
	}
	for _, dir := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dataPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			discard(dir)
		}
	}
}

// serverProperties is the configuration of one node that is broker and
// controller in one.
func serverProperties(dir, broker, controller string, over map[string]string) []byte {
	properties := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        "1",
		"controller.quorum.voters":       "1@" + controller,
		"listeners":                      "PLAINTEXT://" + broker + ",CONTROLLER://" + controller,
		"advertised.listeners":           "PLAINTEXT://" + broker,
		"controller.listener.names":      "CONTROLLER",
		"listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"log.dirs":                       filepath.Join(dir, "data"),
		// Nothing is created by being asked for: a test names its topics.
		"auto.create.topics.enable": "false",
		"message.max.bytes":         largestRecord,
		"replica.fetch.max.bytes":   largestRecord,
		// One node and few cores.
		"num.network.threads":                              "2",
		"num.io.threads":                                   "2",
		"log.cleaner.dedupe.buffer.size":                   "16777216",
		"offsets.topic.num.partitions":                     "4",
		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.num.partitions":             "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.num.partitions":     "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		// Groups form at once, and a test need not wait 6 s for a dead member.
		"group.initial.rebalance.delay.ms": "0",
		"group.min.session.timeout.ms":     "1000",
		// A killed node may come back under its id once its session is over;
		// with the default of 9 s every such test would wait for that.
		"broker.session.timeout.ms":    "3000",
		"broker.heartbeat.interval.ms": "500",
	}
	maps.Copy(properties, over)
	return encodeProperties(properties)
}

// encodeProperties writes properties as a file of them, sorted.
func encodeProperties(properties map[string]string) []byte {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		b.WriteString(key + "=" + properties[key] + "\n")
	}
	return []byte(b.String())
}

// clusterID is a random id in the form that Kafka takes: 16 bytes in URL-safe
// base64. The first bits are clear, because the tool that reads it takes a
// leading "-" for an option.
func clusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // Never fails, as its documentation says.
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}
