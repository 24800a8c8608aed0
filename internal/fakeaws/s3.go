package fakeaws

import (
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// An S3 is an object store in memory. It does not check signatures.
type S3 struct {
	URL string
	// Slow makes every so-manieth request fail with 503 SlowDown; 0 means none.
	Slow    atomic.Int64
	count   atomic.Int64
	backend *s3mem.Backend
	server  *http.Server
}

// ServeS3 starts an object store on loopback with some buckets.
func ServeS3(buckets ...string) (*S3, error) {
	s := &S3{backend: s3mem.New()}
	for _, b := range buckets {
		if err := s.backend.CreateBucket(b); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	inner := gofakes3.New(s.backend).Server()
	s.URL = "http://" + l.Addr().String()
	s.server = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := s.Slow.Load(); n > 0 && s.count.Add(1)%n == 0 {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte(`<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)) // the client may have left
			return
		}
		inner.ServeHTTP(w, r)
	})}
	go func() { _ = s.server.Serve(l) }() // it ends with Close
	return s, nil
}

// Close stops the store.
func (s *S3) Close() error { return s.server.Close() }
