package clients

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	_ "github.com/waybill-dev/waybill/internal/gateway" // so that go test runs anew when the gateway has changed
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/journal"
)

const (
	gatewayUser = "arn:aws:iam::111122223333:user/gateway"
	directUser  = "arn:aws:iam::111122223333:user/direct"
	role        = "arn:aws:iam::111122223333:role/bedrock"
)

// Every call needs a purpose, which each client sends in its own way. The team comes
// with the key.
const tagPolicy = `version: 1
session: {name: '{user}'}
tags:
  keys:
    team:    {required: true, values: [search], carriers: [session, request]}
    user:    {from: caller.subject, carriers: [session, request]}
    purpose: {required: true, values: [tests], carriers: [session, request]}
`

// A stand is a fake AWS, and waybilld as it ships before it.
type stand struct {
	world    *fakeaws.World
	aws      string // URL of the fake
	gateway  string // URL of waybilld
	dir      string // waybilld's folder
	keys     *identity.Keys
	sealer   *identity.Sealer
	callers  map[string]proof // of each client, by its name
	ca       string           // file with the authority of every listener here
	roots    *x509.CertPool
	waybilld *exec.Cmd
	ended    chan struct{} // closed once all that waybilld had to say is in log
	log      bytes.Buffer  // what waybilld says; to be read after ended
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{dir: t.TempDir()}
	s.world = fakeaws.NewWorld(fakeaws.Config{
		Regions: []string{"us-east-1"},
		Users: []fakeaws.User{{ARN: gatewayUser, AccessKeyID: "AKIDEXAMPLEGATEWAY", SecretAccessKey: "secret"},
			{ARN: directUser, AccessKeyID: direct.id, SecretAccessKey: direct.secret, BearerToken: direct.bearer}},
		Roles: []fakeaws.Role{{ARN: role, Trusted: []string{gatewayUser}}},
		Fault: func(r *http.Request) *fakeaws.Fault {
			if r.Header.Get(faultHeader) == "" {
				return nil
			}
			return &fakeaws.Fault{Status: 429, ErrorType: "ThrottlingException"}
		}})
	aws := httptest.NewServer(marked(s.world.Handler()))
	t.Cleanup(aws.Close)
	s.aws = aws.URL
	s.startGateway(t)
	return s
}

const faultHeader = "X-Test-Throttle"

// marked marks the calls whose prompt asks for a fault: the fake sees headers only.
func marked(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Header.Del(faultHeader)
		if bytes.Contains(body, []byte("this call is to be throttled")) {
			r.Header.Set(faultHeader, "yes")
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	})
}

// startGateway builds waybilld as it ships and starts it with TLS, as callers find it.
func (s *stand) startGateway(t *testing.T) {
	t.Helper()
	sources, err := filepath.Glob("../../cmd/waybilld/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("the sources of waybilld: %v", err)
	}
	for _, source := range sources { // read, so that go test runs anew when they have changed
		if _, err := os.ReadFile(source); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(s.dir, "waybilld")
	build := exec.Command("go", "build", "-o", program, "../../cmd/waybilld")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	sealing := identity.NewSealingKey()
	if s.sealer, err = identity.NewSealer(sealing); err != nil {
		t.Fatal(err)
	}
	certificate, key := s.certificate(t)
	for name, text := range map[string]string{"policy.yaml": tagPolicy, "certificate.pem": certificate, "key.pem": key, "waybilld.yaml": fmt.Sprintf(`listen: 127.0.0.1:0
admin: 127.0.0.1:0
tls: {certificate: certificate.pem, key: key.pem}
region: us-east-1
policy: policy.yaml
callers: {keys: keys.jsonl, signing: {sealingKeys: ['%[2]s']}}
credentials: {accessKeyId: AKIDEXAMPLEGATEWAY, secretAccessKey: secret}
upstream: {bedrock-runtime: '%[1]s', bedrock-mantle: '%[1]s', sts: '%[1]s'}
roles: [{assume: '%[3]s'}]
journal: {dir: journal}
`, s.aws, sealing, role)} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.ca = filepath.Join(s.dir, "certificate.pem")
	if s.keys, err = identity.OpenKeys(filepath.Join(s.dir, "keys.jsonl")); err != nil {
		t.Fatal(err)
	}
	s.callers = make(map[string]proof)
	for _, c := range clients { // before the start: waybilld looks for new keys every two seconds
		s.callers[c.name] = s.caller(t, c.name)
	}
	s.waybilld = exec.Command(program, "--config", filepath.Join(s.dir, "waybilld.yaml"))
	stderr, err := s.waybilld.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.waybilld.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.waybilld.Process.Kill() })
	s.ended = make(chan struct{})
	lines := bufio.NewScanner(io.TeeReader(stderr, &s.log))
	for lines.Scan() {
		var l struct{ Listen string }
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Listen != "" {
			s.gateway = "https://" + l.Listen
			go func() {
				io.Copy(&s.log, stderr)
				close(s.ended)
			}()
			return
		}
	}
	t.Fatalf("waybilld did not start:\n%s", s.log.String())
}

// certificate is what httptest serves with: good for loopback, and its own authority.
func (s *stand) certificate(t *testing.T) (certificate, key string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	s.roots = x509.NewCertPool()
	s.roots.AddCert(server.Certificate())
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// stop ends waybilld as an operator does, and reads its journal.
func (s *stand) stop(t *testing.T) []waybill.Invocation {
	t.Helper()
	if err := s.waybilld.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	if err := s.waybilld.Wait(); err != nil {
		t.Fatalf("waybilld ended with %v:\n%s", err, s.log.String())
	}
	segments, err := journal.Segments(filepath.Join(s.dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	var closed []waybill.Invocation
	for _, segment := range segments {
		f, err := os.Open(segment.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := journal.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", segment.Path, err)
			}
			if e.Kind == waybill.Closed {
				closed = append(closed, e.Invocation)
			}
		}
	}
	return closed
}

// A proof is what a client shows of itself: a bearer token, or a key to sign with.
type proof struct {
	bearer     string
	id, secret string
	tagged     string // a bearer token whose owner has a purpose, for clients that cannot say one
}

// direct is what AWS itself takes.
var direct = proof{bearer: "ABSK" + "example-of-a-direct-key", id: "AKIDEXAMPLEDIRECT", secret: "secret", tagged: "ABSK" + "example-of-a-direct-key"}

// caller registers somebody with the gateway.
func (s *stand) caller(t *testing.T, subject string) proof {
	t.Helper()
	var p proof
	var err error
	team := waybill.Tag{Key: "team", Value: "search"}
	if p.bearer, _, err = s.keys.Create(identity.Key{Subject: subject, Tags: waybill.NewTags(team)}); err != nil {
		t.Fatal(err)
	}
	if p.tagged, _, err = s.keys.Create(identity.Key{Subject: subject, Tags: waybill.NewTags(team, waybill.Tag{Key: "purpose", Value: "tests"})}); err != nil {
		t.Fatal(err)
	}
	secret, _, err := s.keys.CreateSigning(identity.Key{Subject: subject, Tags: waybill.NewTags(team)}, s.sealer)
	if err != nil {
		t.Fatal(err)
	}
	p.id, p.secret = secret.AccessKeyID, secret.SecretAccessKey
	return p
}

// An exchange is one request and the answer to it, as the client saw it.
type exchange struct {
	request string // method and path
	status  int
	header  http.Header
	body    bytes.Buffer
	whole   bool
}

// withoutID is the body without the id of the call, which errors in Anthropic's shape
// repeat.
func (e *exchange) withoutID() []byte {
	id := e.header.Get("X-Amzn-Requestid")
	if id == "" {
		return e.body.Bytes()
	}
	return bytes.ReplaceAll(e.body.Bytes(), []byte(id), []byte("ID"))
}

// A front stands before AWS or before the gateway, and keeps what goes to the client.
type front struct {
	url string

	calls sync.WaitGroup
	mu    sync.Mutex // guards seen
	seen  []*exchange
}

// newFront serves TLS, since the SDK for Go sends bearer tokens over nothing else, and
// HTTP/2, since the SDK for JavaScript speaks nothing else to bedrock-runtime. What came
// over HTTP/2 goes on over HTTP/2 where the other side speaks it.
// A host that is given takes the place of the one that the client has called.
func (s *stand) newFront(t *testing.T, to, host string) *front {
	t.Helper()
	f := &front{}
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	way := make(map[int]*http.Transport) // by major version of HTTP
	for major := 1; major <= 2; major++ {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(major == 1 || target.Scheme == "http")
		protocols.SetHTTP2(major == 2)
		way[major] = &http.Transport{DisableCompression: true, Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: s.roots}}
		t.Cleanup(way[major].CloseIdleConnections)
	}
	proxy := &httputil.ReverseProxy{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return way[r.ProtoMajor].RoundTrip(r.WithContext(context.WithoutCancel(r.Context()))) // a client may leave at the end of a stream, and before that of the body
		}),
		Rewrite: func(r *httputil.ProxyRequest) { // the Host stays: it is signed
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			if host != "" {
				r.Out.Host = host
			}
		},
		FlushInterval: -1,
		ModifyResponse: func(a *http.Response) error {
			e := &exchange{request: a.Request.Method + " " + a.Request.URL.EscapedPath(), status: a.StatusCode, header: a.Header.Clone()}
			f.mu.Lock()
			f.seen = append(f.seen, e)
			f.mu.Unlock()
			a.Body = &kept{a.Body, e}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.calls.Add(1)
		defer f.calls.Done()
		body, err := io.ReadAll(r.Body) // whole: an answer that came before its end would leave the two sides waiting for one another
		if err != nil {
			return // the client has gone
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		proxy.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// kept keeps a body as it passes.
type kept struct {
	io.ReadCloser
	e *exchange
}

func (k *kept) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	k.e.body.Write(p[:n])
	k.e.whole = k.e.whole || err == io.EOF
	return n, err
}

// Close reads what the client has left.
func (k *kept) Close() error {
	_, err := io.Copy(io.Discard, k)
	return errors.Join(err, k.ReadCloser.Close())
}

// exchanges are what passed, once all of it has.
func (f *front) exchanges() []*exchange {
	f.calls.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// fill puts a front and a proof into the texts of a client's environment.
func fill(text string, f *front, p proof) string {
	return strings.NewReplacer("{url}", f.url, "{bearer}", p.bearer, "{id}", p.id, "{secret}", p.secret, "{tagged}", p.tagged).Replace(text)
}
