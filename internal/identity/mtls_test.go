package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
)

func uri(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// verified by the listener: what net/http hands on.
func withCert(chains ...[]*x509.Certificate) *http.Request {
	r := header()
	r.TLS = &tls.ConnectionState{VerifiedChains: chains}
	if len(chains) > 0 {
		r.TLS.PeerCertificates = chains[0]
	}
	return r
}

// Rules say which certificates are whom; what no rule fits is nobody.
func TestCertificateRules(t *testing.T) {
	root := newAuthority(t, "root", nil)
	other := newAuthority(t, "other", nil)
	rules := []CertificateRule{
		{URI: "spiffe://example.com/ns/*/sa/*", Tags: map[string]string{"team": "{1}", "service": "{1}/{2}"}},
		{URI: "spiffe://partner.example.com/**", Subject: "partner:{1}", Issuer: "partner"},
		{DNS: "*.svc.example.com", Subject: "{1}"},
		{CommonName: "robot-*", Unit: "search", Subject: "robot {1} of {ou}", CA: spkiOf(root.cert)},
		{Unit: "everybody"},
	}
	m, err := NewCertificates(rules)
	if err != nil {
		t.Fatal(err)
	}
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{m}})
	type template = x509.Certificate
	tests := []struct {
		name   string
		cert   *template
		by     *authority
		want   waybill.Principal
		reason Reason
	}{
		{"SPIFFE", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/search/sa/checkout")}}, root,
			waybill.Principal{Subject: "spiffe://example.com/ns/search/sa/checkout", Issuer: "spiffe://example.com", Method: "mtls",
				Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}, waybill.Tag{Key: "service", Value: "search/checkout"})}, ""},
		{"SPIFFE of another domain", &template{URIs: []*url.URL{uri(t, "spiffe://partner.example.com/a/b/c")}}, root,
			waybill.Principal{Subject: "partner:a/b/c", Issuer: "partner", Method: "mtls"}, ""},
		{"DNS", &template{DNSNames: []string{"Checkout.svc.example.com", "example.org"}}, root, waybill.Principal{Subject: "checkout", Issuer: "certificate", Method: "mtls"}, ""},
		{"CN and OU", &template{Subject: pkix.Name{CommonName: "robot-7", OrganizationalUnit: []string{"a", "search"}}}, root, waybill.Principal{Subject: "robot 7 of search", Issuer: "certificate", Method: "mtls"}, ""},
		{"OU", &template{Subject: pkix.Name{OrganizationalUnit: []string{"everybody"}}}, other, waybill.Principal{Subject: "everybody", Issuer: "certificate", Method: "mtls"}, ""},

		{"CN and OU of another authority", &template{Subject: pkix.Name{CommonName: "robot-7", OrganizationalUnit: []string{"search"}}}, other, waybill.Principal{}, ReasonNoRule},
		{"CN without OU", &template{Subject: pkix.Name{CommonName: "robot-7"}}, root, waybill.Principal{}, ReasonNoRule},
		{"nothing", &template{}, root, waybill.Principal{}, ReasonNoRule},
		{"a path that goes on", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/search/sa/checkout/x")}}, root, waybill.Principal{}, ReasonNoRule},
		{"a path that stops", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/search/sa/")}}, root, waybill.Principal{}, ReasonNoRule},
		{"another domain that ends like ours", &template{URIs: []*url.URL{uri(t, "spiffe://evil.com/spiffe://example.com/ns/a/sa/b")}}, root, waybill.Principal{}, ReasonNoRule},
		{"a host in place of a dot", &template{DNSNames: []string{"checkoutXsvc.example.com"}}, root, waybill.Principal{}, ReasonNoRule},
		{"a deeper host", &template{DNSNames: []string{"a.b.svc.example.com"}}, root, waybill.Principal{}, ReasonNoRule},
		{"a DNS name in CN", &template{Subject: pkix.Name{CommonName: "checkout.svc.example.com"}}, root, waybill.Principal{}, ReasonNoRule},
		{"two SPIFFE identities", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/a/sa/b"), uri(t, "spiffe://example.com/ns/a/sa/c")}}, root, waybill.Principal{}, ReasonDisagree},
		{"SPIFFE and another URI", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/a/sa/b"), uri(t, "https://example.com")}}, root, waybill.Principal{}, ReasonMalformed},
		{"SPIFFE with dots", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/../sa/b")}}, root, waybill.Principal{}, ReasonMalformed},
		{"SPIFFE with a blank", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/a%20b/sa/c")}}, root, waybill.Principal{}, ReasonMalformed},
		{"SPIFFE with a solidus in disguise", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/a%2Fb/sa/c")}}, root, waybill.Principal{}, ReasonMalformed},
		{"SPIFFE with a query", &template{URIs: []*url.URL{uri(t, "spiffe://partner.example.com/a?b")}}, root, waybill.Principal{}, ReasonMalformed},
		{"two hosts", &template{DNSNames: []string{"a.svc.example.com", "b.svc.example.com"}}, root, waybill.Principal{}, ReasonDisagree},
		{"a name that no log should show", &template{Subject: pkix.Name{CommonName: "robot-\x1b[2J", OrganizationalUnit: []string{"search"}}}, root, waybill.Principal{}, ReasonSubject},
		{"expired on a long connection", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/a/sa/b")}, NotAfter: time.Now().Add(-time.Minute)}, root, waybill.Principal{}, ReasonExpired},
		{"not yet valid", &template{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/a/sa/b")}, NotBefore: time.Now().Add(time.Minute)}, root, waybill.Principal{}, ReasonNotYet},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cert, _ := issue(t, tt.cert, tt.by)
			r := withCert([]*x509.Certificate{cert, tt.by.cert})
			r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i)
			got, err := chain.Authenticate(r)
			if tt.reason != "" {
				mustRefuse(t, got, err)
				if at := kept.last(); at.Reason != tt.reason {
					t.Errorf("recorded %+v, want %q", at, tt.reason)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(waybill.Tags.Equal)); err != nil || diff != "" {
				t.Errorf("%v %s", err, diff)
			}
			if at := kept.last(); at.Proof != "serial:"+cert.SerialNumber.Text(16) {
				t.Errorf("recorded %+v", at)
			}
		})
	}
	// A certificate that the listener did not verify proves nothing.
	cert, _ := issue(t, &x509.Certificate{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/a/sa/b")}}, root)
	r := withCert()
	r.TLS.PeerCertificates = []*x509.Certificate{cert}
	if p, err := chain.Authenticate(r); err == nil || kept.last().Reason != ReasonSignature {
		t.Errorf("%+v %v", p, err)
	}
}

// Mistakes in rules are told, with their number.
func TestMisconfiguredCertificateRules(t *testing.T) {
	for name, rule := range map[string]CertificateRule{
		"no pattern":              {Subject: "x"},
		"a star that is not":      {URI: "spiffe://example.com/*", Subject: "{2}"},
		"star zero":               {URI: "spiffe://example.com/*", Subject: "{0}"},
		"a field of no pattern":   {URI: "spiffe://example.com/*", Subject: "{cn}"},
		"a place that never ends": {URI: "spiffe://example.com/*", Subject: "{uri"},
		"a tag of nothing":        {URI: "spiffe://example.com/*", Tags: map[string]string{"team": "{team}"}},
		"no hash":                 {DNS: "a", CA: "abc"},
	} {
		if _, err := NewCertificates([]CertificateRule{{DNS: "fine"}, rule}); waybill.KindOf(err) != waybill.Misused || !strings.Contains(err.Error(), "rule 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewCertificates(nil); err == nil {
		t.Error("no rules are taken")
	}
}

// A certificate on the deny list, by its number or its key, is refused at the next call
// on a connection that is open already; an authority on it takes all with it.
func TestDeniedCertificates(t *testing.T) {
	root := newAuthority(t, "root", nil)
	middle := newAuthority(t, "middle", root)
	cross := newAuthority(t, "cross", nil)
	cert, _ := issue(t, &x509.Certificate{DNSNames: []string{"a.svc.example.com"}}, middle)
	m, err := NewCertificates([]CertificateRule{{DNS: "*.svc.example.com", Subject: "{1}"}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "denied.jsonl")
	write(t, path, "")
	denied, err := OpenDenyList(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	denied.now = func() time.Time { return now }
	chain, _ := newTestChain(t, ChainConfig{Methods: []Method{m}, Denied: denied})
	good := func(chains ...[]*x509.Certificate) bool {
		now = now.Add(2 * time.Second)
		_, err := chain.Authenticate(withCert(chains...))
		return err == nil
	}
	one := []*x509.Certificate{cert, middle.cert, root.cert}
	serial := cert.SerialNumber.Text(16)
	for _, tt := range []struct {
		line string
		good bool
	}{
		{`{"serial":"` + serial + `"}`, false},
		{`{"serial":"00:` + strings.ToUpper(serial) + `"}`, false},
		{`{"serial":"` + serial + `","issuer":"CN=middle"}`, false},
		{`{"serial":"` + serial + `","issuer":"CN=root"}`, true},
		{`{"serial":"` + serial + `0"}`, true},
		{`{"spki":"` + spkiOf(cert) + `"}`, false},
		{`{"spki":"` + strings.ToUpper(spkiOf(cert)) + `"}`, false},
		{`{"spki":"` + spkiOf(middle.cert) + `"}`, false},
		{`{"serial":"` + root.cert.SerialNumber.Text(16) + `"}`, false},
		{`{"spki":"` + strings.Repeat("0", 64) + `"}`, true},
		{`{"subject":"a"}`, false},
	} {
		write(t, path, tt.line)
		if got := good(one); got != tt.good {
			t.Errorf("%s: %v, want %v", tt.line, got, tt.good)
		}
	}
	write(t, path, `{"spki":"`+spkiOf(middle.cert)+`"}`)
	if !good(one, []*x509.Certificate{cert, cross.cert}) {
		t.Error("a certificate with another chain, free of denied authorities, is refused")
	}
}

// With real TLS: the listener verifies, the method names. The same certificate, and a
// token of the same caller next to it, are one caller; a token of another are not.
func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t, "root", nil)
	cert, key := issue(t, &x509.Certificate{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/prod/sa/checkout")}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca)
	stranger, strangerKey := issue(t, &x509.Certificate{URIs: []*url.URL{uri(t, "spiffe://example.com/ns/prod/sa/checkout")}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, newAuthority(t, "root", nil))
	m, err := NewCertificates([]CertificateRule{{URI: "spiffe://example.com/ns/*/sa/*", Subject: "{2}"}})
	if err != nil {
		t.Fatal(err)
	}
	is := newTestIssuer(t)
	o := newTestOIDC(t, is.config())
	chain, kept := newTestChain(t, ChainConfig{Methods: []Method{m, o.Method()}, Callers: []Caller{{Subject: "checkout", Known: []Known{{"spiffe://example.com", "checkout"}, {is.URL, "sa-1"}}}}})
	gateway := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := chain.Authenticate(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		w.Header().Set("Caller", p.Method+" "+p.Issuer+" "+p.Subject)
	}))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	gateway.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	gateway.Config.ErrorLog = quiet()
	gateway.StartTLS()
	t.Cleanup(gateway.Close)
	client := func(certs ...tls.Certificate) *http.Client {
		c := gateway.Client()
		transport := c.Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.Certificates = certs
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	call := func(c *http.Client, bearer string) (string, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, gateway.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := c.Do(r)
		if err != nil {
			return "", err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return "", errors.New(resp.Status)
		}
		return resp.Header.Get("Caller"), nil
	}
	token := func(sub string) string { return rs256(obj{"alg": "RS256", "kid": "rsa"}, is.claims(obj{"sub": sub})) }
	known := client(tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key})
	for _, bearer := range []string{"", token("sa-1")} {
		if got, err := call(known, bearer); err != nil || got != "mtls waybill checkout" {
			t.Errorf("%q %v", got, err)
		}
	}
	if got, err := call(known, token("user-17")); err == nil || kept.last().Reason != ReasonDisagree {
		t.Errorf("the token of another: %q %v", got, err)
	}
	if got, err := call(client(), token("user-17")); err != nil || got != "oidc "+is.URL+" user-17" {
		t.Errorf("without a certificate: %q %v", got, err)
	}
	if got, err := call(client(), ""); err == nil {
		t.Errorf("without anything: %q", got)
	}
	if got, err := call(client(tls.Certificate{Certificate: [][]byte{stranger.Raw}, PrivateKey: strangerKey}), ""); err == nil {
		t.Errorf("the certificate of another authority: %q", got)
	}
}
