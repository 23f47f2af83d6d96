package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Security says how a process and the brokers come to trust each other. The zero
// value is plain TCP, without a name.
type Security struct {
	TLS  bool   // speak TLS, 1.2 or newer
	CA   string // file of PEM certificates that vouch for the brokers, in place of the system's
	Cert string // file of the process's own certificate in PEM, for brokers that ask for one
	Key  string // file of its key in PEM

	SASL     string // mechanism: one of Mechanisms; "" for none
	User     string
	Password string
}

// Mechanisms returns the SASL mechanisms that are spoken: PLAIN (RFC 4616, and
// KIP-43 for Kafka), and SCRAM with SHA-256 and SHA-512 (RFC 5802, KIP-84).
func Mechanisms() []string { return []string{"plain", "scram-sha-256", "scram-sha-512"} }

// Validate says what of it cannot be.
func (s *Security) Validate() error {
	var errs []error
	if !s.TLS && (s.CA != "" || s.Cert != "" || s.Key != "") {
		errs = append(errs, errors.New("certificates are named, and TLS is off: switch it on, or leave them out"))
	}
	if (s.Cert == "") != (s.Key == "") {
		errs = append(errs, errors.New("a certificate and its key go together: name both files or neither"))
	}
	if s.SASL == "" && (s.User != "" || s.Password != "") {
		errs = append(errs, fmt.Errorf("a user or password is given without a SASL mechanism: it must be one of %s", strings.Join(Mechanisms(), ", ")))
	}
	if s.SASL != "" {
		if _, err := s.mechanism(); err != nil {
			errs = append(errs, err)
		} else if s.User == "" || s.Password == "" {
			errs = append(errs, fmt.Errorf("SASL %s needs a user and a password", s.SASL))
		}
	}
	return errors.Join(errs...)
}

func (s *Security) mechanism() (sasl.Mechanism, error) {
	switch s.SASL {
	case "plain":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	default:
		return nil, fmt.Errorf("%q is no SASL mechanism that is spoken here: it must be one of %s", s.SASL, strings.Join(Mechanisms(), ", "))
	}
}

// apply returns what a client says of itself, and dial as it is over TLS.
func (s *Security) apply(dial dialer) ([]kgo.Opt, dialer, error) {
	if err := s.Validate(); err != nil {
		return nil, nil, err
	}
	var opts []kgo.Opt
	if s.SASL != "" {
		m, err := s.mechanism()
		if err != nil {
			return nil, nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	if !s.TLS {
		return opts, dial, nil
	}
	cfg, err := s.tls()
	if err != nil {
		return nil, nil, err
	}
	return opts, overTLS(dial, cfg), nil
}

func (s *Security) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("read the certificates that vouch for the brokers: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate: it must be a file in PEM, that begins with -----BEGIN CERTIFICATE-----", s.CA)
		}
	}
	if s.Cert == "" {
		return cfg, nil
	}
	read := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			return nil, fmt.Errorf("read the process's certificate %s and key %s: %w", s.Cert, s.Key, err)
		}
		return &pair, nil
	}
	if _, err := read(); err != nil {
		return nil, err
	}
	// Read at every connection, so that a certificate that is renewed in place is
	// taken up without a restart.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return read() }
	return cfg, nil
}

// dialer opens a connection.
type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

func overTLS(dial dialer, cfg *tls.Config) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("%q is no broker: it must be host:port: %w", addr, err)
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		mine := cfg.Clone()
		mine.ServerName = host
		shaken := tls.Client(conn, mine)
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if err := shaken.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("agree on TLS with %s: %w", addr, err)
		}
		return shaken, nil
	}
}
