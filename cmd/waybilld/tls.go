package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/waybill-dev/waybill"
)

// readTLS reads what the listener shows its callers, and what it verifies theirs with.
// Without a certificate there is none.
func (c *config) readTLS() error {
	if c.certFile == "" || c.keyFile == "" {
		return nil
	}
	c.files = append(c.files, c.certFile, c.keyFile)
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil { // it repeats nothing of the key
		return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s and %s are not a certificate and its key: %v", c.certFile, c.keyFile, err), Hint: "tls.certificate and tls.key name PEM files"}
	}
	c.tls = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if c.clientCA == "" {
		return nil
	}
	c.files = append(c.files, c.clientCA)
	c.tls.ClientAuth = tls.VerifyClientCertIfGiven
	c.tls.ClientCAs, err = readPool(c.clientCA)
	return err
}

// readPool reads the authorities that client certificates are verified with.
func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the authorities of client certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s: there is no certificate in it", file), Hint: "tls.clientCA names a PEM file of authorities"}
	}
	return pool, nil
}

// A listenerTLS is the TLS of new connections. Certificates are renewed while connections
// last, so that a reload puts others.
type listenerTLS struct{ now atomic.Pointer[tls.Config] }

func (l *listenerTLS) config() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.now.Load(), nil }}
}
