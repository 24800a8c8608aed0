package main

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/internal/gateway"
)

// writePair writes a certificate and its key, which is also its own authority.
func writePair(t *testing.T, dir string, serial int64) *ecdsa.PrivateKey {
	t.Helper()
	made, key := certificate(t, serial, nil, nil, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	})
	writePEM(t, filepath.Join(dir, "server.pem"), "CERTIFICATE", made.Raw)
	writeKey(t, dir, key)
	return key
}

func writeKey(t *testing.T, dir string, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "server.key"), "EC PRIVATE KEY", der)
}

// Certificates are renewed under a gateway that runs: a reload shows the new one to new
// connections, and one that does not go with its key changes nothing.
func TestCertificatesAreReloaded(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	file := filepath.Join(dir, "waybilld.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(text, "tls: {certificate: server.pem, key: server.key, clientCA: server.pem}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	first := writePair(t, dir, 1)
	c, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	who := new(whoCalls)
	if err := who.change(t.Context(), c.callers); err != nil {
		t.Fatal(err)
	}
	defer who.Close()
	g := &gateway.Gateway{Callers: who}
	g.Reload(&c.gateway)
	secure := new(listenerTLS)
	secure.now.Store(c.tls)
	r := newReloader(file, c, g, who, secure, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	var watched []string
	r.watch = func(files []string) { watched = files }
	// shown is the serial number of the certificate that a new connection sees, and what
	// protocol it speaks.
	shown := func() (int64, string) {
		t.Helper()
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		server := tls.Server(there, secure.config())
		failed := make(chan error, 1)
		go func() { failed <- server.HandshakeContext(t.Context()) }()
		client := tls.Client(here, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // it is looked at below
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		go client.Read(make([]byte, 1)) // the tickets
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		state := client.ConnectionState()
		return state.PeerCertificates[0].SerialNumber.Int64(), state.NegotiatedProtocol
	}
	if n, protocol := shown(); n != 1 || protocol != "h2" {
		t.Errorf("certificate %d over %q", n, protocol)
	}
	second := writePair(t, dir, 2)
	writeKey(t, dir, first) // half of a renewal
	r.reload(t.Context())
	if n, _ := shown(); n != 1 {
		t.Errorf("certificate %d, whose key is not there, is shown", n)
	}
	writeKey(t, dir, second)
	r.reload(t.Context())
	if n, _ := shown(); n != 2 {
		t.Errorf("certificate %d is shown after a reload, want 2", n)
	}
	for _, name := range []string{"server.pem", "server.key", "policy.yaml", "waybilld.yaml"} {
		if !slices.Contains(watched, filepath.Join(dir, name)) {
			t.Errorf("%s is not watched: %v", name, watched)
		}
	}
	// A bad file that the configuration has newly named is watched: it may be put right.
	if err := os.WriteFile(filepath.Join(dir, "new.yaml"), []byte("tags: {kyes: {}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "policy: policy.yaml", "policy: new.yaml", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload(t.Context())
	for _, name := range []string{"new.yaml", "policy.yaml"} {
		if !slices.Contains(watched, filepath.Join(dir, name)) {
			t.Errorf("%s is not watched after it was refused: %v", name, watched)
		}
	}
}
