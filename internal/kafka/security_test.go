package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/penstock-io/penstock/internal/event"
	"github.com/penstock-io/penstock/internal/kafka"
	"github.com/penstock-io/penstock/internal/testenv"
	"github.com/penstock-io/penstock/internal/topics"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.newKey()
	a.write("ca.pem", "CERTIFICATE", a.sign(a.cert, a.key))
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate for 127.0.0.1, and returns the files of it and its key.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	k := a.newKey()
	der := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, k)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", pkcs8)
}

// parsed is the authority's certificate as it was signed.
func (a *authority) parsed() *x509.Certificate {
	a.t.Helper()
	text, err := os.ReadFile(a.ca())
	if err != nil {
		a.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

// secured starts a broker that speaks nothing but TLS, asks for a certificate of
// its own authority, and lets in who says the right password.
func secured(t *testing.T, a *authority) string {
	t.Helper()
	cert, key := a.issue("broker")
	var both []byte
	for _, file := range []string{key, cert} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	store := filepath.Join(a.dir, "store.pem")
	if err := os.WriteFile(store, both, 0o600); err != nil {
		t.Fatal(err)
	}
	const jaas = "org.apache.kafka.common.security."
	k, err := testenv.StartKafka(t.Context(), testenv.KafkaOptions{Properties: map[string]string{
		"listener.security.protocol.map":                         "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_SSL",
		"sasl.enabled.mechanisms":                                "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"sasl.mechanism.inter.broker.protocol":                   "PLAIN",
		"listener.name.plaintext.plain.sasl.jaas.config":         jaas + `plain.PlainLoginModule required username="broker" password="b" user_broker="b" user_penstock="right";`,
		"listener.name.plaintext.scram-sha-256.sasl.jaas.config": jaas + "scram.ScramLoginModule required;",
		"listener.name.plaintext.scram-sha-512.sasl.jaas.config": jaas + "scram.ScramLoginModule required;",
		"ssl.keystore.type":                                      "PEM",
		"ssl.keystore.location":                                  store,
		"ssl.truststore.type":                                    "PEM",
		"ssl.truststore.location":                                a.ca(),
		// A listener that speaks SASL asks for certificates only by its own name's setting.
		"listener.name.plaintext.ssl.client.auth": "required",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Stop() })
	return k.Addr()
}

// enlist makes users that speak SCRAM, in the brokers' own store of them.
func (a *authority) enlist(addr string, s kafka.Security) {
	a.t.Helper()
	t := a.t
	pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.parsed())
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr),
		kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}}),
		kgo.SASL(plain.Auth{User: s.User, Pass: s.Password}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, u := range []kadm.UpsertSCRAM{
		{User: "penstock", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "right256"},
		{User: "penstock", Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "right512"},
	} { // one user a request
		done, err := kadm.NewClient(cl).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{u})
		if err == nil {
			err = done.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestASecuredKafkaIsSpokenTo writes and reads by every mechanism over TLS, with
// a certificate of the process's own, and says what is wrong where it is refused.
func TestASecuredKafkaIsSpokenTo(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "tests")
	addr := secured(t, a)
	cert, key := a.issue("penstock")
	right := kafka.Security{TLS: true, CA: a.ca(), Cert: cert, Key: key, SASL: "plain", User: "penstock", Password: "right"}
	a.enlist(addr, right)
	open := func(s kafka.Security) (*kafka.Cluster, error) {
		return kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}, Security: s, ConnectTimeout: 20 * time.Second})
	}
	for mechanism, password := range map[string]string{"plain": "right", "scram-sha-256": "right256", "scram-sha-512": "right512"} {
		s := right
		s.SASL, s.Password = mechanism, password
		c, err := open(s)
		if err != nil {
			t.Errorf("%s: %v", mechanism, err)
			continue
		}
		roundTrip(t, c, "secured."+mechanism)
		c.Close()
	}

	other := newAuthority(t, "others")
	theirs, theirKey := other.issue("penstock")
	for name, tc := range map[string]struct {
		change func(*kafka.Security)
		said   string
	}{
		"a wrong password":            {func(s *kafka.Security) { s.Password = "wrong" }, "SASL_AUTHENTICATION_FAILED"},
		"an authority of others":      {func(s *kafka.Security) { s.CA = other.ca() }, "certificate"},
		"the system's authorities":    {func(s *kafka.Security) { s.CA = "" }, "certificate"},
		"a certificate of others":     {func(s *kafka.Security) { s.Cert, s.Key = theirs, theirKey }, "tls:"},
		"a file that is none":         {func(s *kafka.Security) { s.CA = key }, "holds no certificate"},
		"a file that is not there":    {func(s *kafka.Security) { s.CA = "nowhere.pem" }, "nowhere.pem"},
		"a key of another":            {func(s *kafka.Security) { s.Key = theirKey }, "private key"},
		"a mechanism nobody speaks":   {func(s *kafka.Security) { s.SASL = "gssapi" }, "scram-sha-512"},
		"a mechanism without a user":  {func(s *kafka.Security) { s.User = "" }, "needs a user"},
		"a certificate without a key": {func(s *kafka.Security) { s.Key = "" }, "go together"},
		"a user without a mechanism":  {func(s *kafka.Security) { s.SASL = "" }, "without a SASL mechanism"},
		"certificates without TLS":    {func(s *kafka.Security) { s.TLS = false }, "TLS is off"},
	} {
		s := right
		tc.change(&s)
		began := time.Now()
		c, err := open(s)
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.said) || errors.Is(err, kafka.ErrUnavailable) {
			t.Errorf("%s: %v after %s", name, err, time.Since(began))
		}
	}
	// Who speaks plain TCP to it cannot be told from a broker that is not up yet:
	// it is asked until the time is over.
	_, err := kafka.Open(t.Context(), kafka.Config{Brokers: []string{addr}, ConnectTimeout: 2 * time.Second})
	if !errors.Is(err, kafka.ErrUnavailable) {
		t.Errorf("plain TCP: %v", err)
	}
}

func roundTrip(t *testing.T, c *kafka.Cluster, topic string) {
	t.Helper()
	if err := c.Apply(t.Context(), []topics.Change{{Kind: topics.Create, Topic: topics.Topic{Name: topic, Partitions: 1, Replication: 1}}}); err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer(kafka.ProducerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := p.Append(ctx, event.Record{Topic: topic, Value: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	for recs, err := range c.Scan(t.Context(), kafka.TopicPartition{Topic: topic}, 0, 1) {
		if err != nil || len(recs) != 1 || string(recs[0].Value) != "hello" {
			t.Fatalf("%v, %v", recs, err)
		}
	}
}
