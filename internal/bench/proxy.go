//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// proxyEnv makes this program one of the contestants: listen address, URL of Bedrock,
// and whether to sign, with blanks between.
const proxyEnv = "WAYBILL_BENCH_PROXY"

// serveProxy is httputil.ReverseProxy as a careful engineer sets it up: connections are
// kept, buffers are kept, nothing is compressed. Where it signs it does so with the SDK's
// signer, which needs the hash of the body, and so the body.
func serveProxy(listen, upstream string, sign bool) error {
	to, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConns: 16384, MaxIdleConnsPerHost: 16384, IdleConnTimeout: 2 * time.Minute}
	proxy := &httputil.ReverseProxy{BufferPool: new(bufferPool), Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = "" }}
	if sign {
		proxy.Transport = &signing{next: transport, signer: v4.NewSigner(),
			by: aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}}
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Otherwise the server closes the request's body with the first byte of the answer,
		// which the transport takes for a failure where it has not yet seen the body's end:
		// a stream that begins at once is then cut.
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/1.1 has it
		proxy.ServeHTTP(w, r)
	})
	return (&http.Server{Addr: listen, Handler: handler, ReadHeaderTimeout: time.Minute}).ListenAndServe()
}

type bufferPool struct{ p sync.Pool }

func (b *bufferPool) Get() []byte {
	if v, ok := b.p.Get().(*[]byte); ok {
		return *v
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(buf []byte) { b.p.Put(&buf) }

type signing struct {
	next   http.RoundTripper
	signer *v4.Signer
	by     aws.Credentials
}

func (s *signing) RoundTrip(r *http.Request) (*http.Response, error) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return nil, err
	}
	for _, name := range []string{"Authorization", "X-Forwarded-For", "X-Waybill-Tags"} {
		delete(r.Header, name)
	}
	sum := sha256.Sum256(body)
	if err := s.signer.SignHTTP(context.Background(), s.by, r, hex.EncodeToString(sum[:]), "bedrock", "us-east-1", time.Now()); err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return s.next.RoundTrip(r)
}
