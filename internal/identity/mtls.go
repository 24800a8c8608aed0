package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
)

// A CertificateRule says which client certificates are which caller. All fields that
// are given must fit. In patterns * stands for one or more characters within a part (of
// a path, of a host name, of a name), ** for one or more of any kind.
type CertificateRule struct {
	// URI is a pattern for the URI of the certificate; spiffe://example.com/ns/*/sa/*
	// for a SPIFFE identity, of which a certificate has one only.
	URI string
	// DNS is a pattern for a DNS name of the certificate.
	DNS string
	// CommonName and Unit are patterns for the subject's CN and OU. Prefer URI or DNS:
	// authorities check them, and often take CN and OU as they are asked for.
	CommonName, Unit string
	// CA is the SHA-256, in hexadecimal, of the SubjectPublicKeyInfo of an authority in
	// the chain: for a listener that trusts several, of which not each may name these
	// callers.
	CA string

	// Subject names the caller: a text in which {1}, {2}, ... stand for the stars of
	// URI, DNS, CommonName and Unit in this order, and {uri}, {dns}, {cn}, {ou} for
	// what they fitted. If empty the first of those that the rule has a pattern for.
	Subject string
	// Issuer is who vouches for Subject; if empty the trust domain of a SPIFFE
	// identity, such as spiffe://example.com, else "certificate".
	Issuer string
	// Tags are the caller's tags, written like Subject.
	Tags map[string]string
}

// certificates is the method of client certificates.
type certificates struct{ rules []certificateRule }

type certificateRule struct {
	CertificateRule
	uri, dns, cn, ou pattern
	texts            map[string]template // tags
	subject          template
	spiffe           bool
}

// NewCertificates is the method of client certificates, which the TLS listener must
// have verified: tls.Config with ClientCAs, and ClientAuth of VerifyClientCertIfGiven
// or RequireAndVerifyClientCert. The first rule that fits decides; a certificate that
// none fits is refused, even next to another proof.
func NewCertificates(rules []CertificateRule) (Method, error) {
	c := &certificates{}
	for i, config := range rules {
		r, err := newCertificateRule(config)
		if err != nil {
			return Method{}, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("rule %d for client certificates: %v", i+1, err), Hint: "docs/operate/callers.md describes the rules"}
		}
		c.rules = append(c.rules, r)
	}
	if len(c.rules) == 0 {
		return Method{}, &waybill.Error{Kind: waybill.Misused, Message: "client certificates need a rule: without one all are refused"}
	}
	return Method{Name: "mtls", Claims: func(r *http.Request) bool { return r.TLS != nil && len(r.TLS.PeerCertificates) > 0 }, prove: c.prove,
		Authenticate: func(r *http.Request) (waybill.Principal, error) {
			p, err := c.prove(r)
			return p.Principal, err
		}}, nil
}

func newCertificateRule(config CertificateRule) (certificateRule, error) {
	r := certificateRule{CertificateRule: config, uri: newPattern(config.URI, "/"), dns: newPattern(strings.ToLower(config.DNS), "."), cn: newPattern(config.CommonName, ""),
		ou: newPattern(config.Unit, ""), texts: make(map[string]template), spiffe: strings.HasPrefix(config.URI, "spiffe://")}
	stars, fields, first := 0, "", ""
	for _, f := range []struct{ name, text string }{{"uri", config.URI}, {"dns", config.DNS}, {"cn", config.CommonName}, {"ou", config.Unit}} {
		if f.text == "" {
			continue
		}
		if first == "" {
			first = f.name
		}
		fields += "{" + f.name + "}"
		stars += strings.Count(strings.ReplaceAll(f.text, "**", "*"), "*")
	}
	if first == "" {
		return r, fmt.Errorf("it needs a pattern for uri, dns, commonName or unit")
	}
	if r.CA = normalHex(config.CA); config.CA != "" && len(r.CA) != 64 {
		return r, fmt.Errorf("ca is a SHA-256: 64 hexadecimal digits")
	}
	if config.Subject == "" {
		config.Subject = "{" + first + "}"
	}
	var err error
	if r.subject, err = newTemplate(config.Subject, fields, stars); err != nil {
		return r, err
	}
	for key, text := range config.Tags {
		if r.texts[key], err = newTemplate(text, fields, stars); err != nil {
			return r, err
		}
	}
	return r, nil
}

// prove says whose the certificate of a connection is.
func (c *certificates) prove(r *http.Request) (principal, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.VerifiedChains[0]) == 0 {
		return principal{}, refuse(ReasonSignature) // the listener did not verify it
	}
	cert, now := r.TLS.VerifiedChains[0][0], time.Now()
	// TLS looked at the times when the connection began, and connections live long.
	if now.After(cert.NotAfter) {
		return principal{}, refuse(ReasonExpired)
	}
	if now.Before(cert.NotBefore) {
		return principal{}, refuse(ReasonNotYet)
	}
	for i := range c.rules {
		if p, ok, err := c.rules[i].name(cert, r.TLS.VerifiedChains); err != nil {
			return principal{}, err
		} else if ok {
			p.proof, p.chains = "serial:"+cert.SerialNumber.Text(16), r.TLS.VerifiedChains
			return p, nil
		}
	}
	return principal{}, refuse(ReasonNoRule)
}

// name makes a certificate the caller that it is of, if the rule is about it.
func (r *certificateRule) name(cert *x509.Certificate, chains [][]*x509.Certificate) (p principal, ok bool, err error) {
	if r.CA != "" {
		chains = slices.DeleteFunc(slices.Clone(chains), func(chain []*x509.Certificate) bool {
			return !slices.ContainsFunc(chain[1:], func(ca *x509.Certificate) bool { return spkiOf(ca) == r.CA })
		})
		if len(chains) == 0 {
			return p, false, nil
		}
	}
	uris := make([]string, len(cert.URIs))
	for i, u := range cert.URIs {
		uris[i] = u.String()
	}
	dns := make([]string, len(cert.DNSNames))
	for i, name := range cert.DNSNames {
		dns[i] = strings.ToLower(name)
	}
	var stars []string
	fitted := make(map[string]string)
	issuer := "certificate"
	for _, f := range []struct {
		name, text string
		pattern    pattern
		has        []string
	}{
		{"uri", r.URI, r.uri, uris}, {"dns", r.DNS, r.dns, dns},
		{"cn", r.CommonName, r.cn, []string{cert.Subject.CommonName}}, {"ou", r.Unit, r.ou, cert.Subject.OrganizationalUnit},
	} {
		if f.text == "" {
			continue
		}
		found := 0
		for _, s := range f.has {
			if m, ok := f.pattern.stars(s); ok {
				if found++; found == 1 {
					fitted[f.name] = s
					stars = append(stars, m...)
				}
			}
		}
		if found == 0 {
			return p, false, nil
		}
		if found > 1 {
			return p, false, refuse(ReasonDisagree) // one certificate, several callers
		}
	}
	if r.spiffe {
		if len(cert.URIs) != 1 || cert.IsCA || !isSPIFFE(cert.URIs[0]) {
			return p, false, refuse(ReasonMalformed)
		}
		issuer = "spiffe://" + cert.URIs[0].Host
	}
	if r.Issuer != "" {
		issuer = r.Issuer
	}
	p.Principal = waybill.Principal{Subject: r.subject.fill(fitted, stars), Issuer: issuer, Method: "mtls"}
	if !isName(p.Subject) {
		return p, false, refuse(ReasonSubject)
	}
	var tags []waybill.Tag
	for key, t := range r.texts {
		value := t.fill(fitted, stars)
		if !isPlain(value) {
			return p, false, refuse(ReasonSubject)
		}
		tags = append(tags, waybill.Tag{Key: key, Value: value})
	}
	p.Tags = waybill.NewTags(tags...)
	return p, true, nil
}

// isSPIFFE reports whether a URI is a SPIFFE ID of a workload, to the letter of its
// specification.
func isSPIFFE(u *url.URL) bool {
	if u.Scheme != "spiffe" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.RawPath != "" || len(u.Path) < 2 {
		return false
	}
	const lower, all = "abcdefghijklmnopqrstuvwxyz0123456789.-_", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if u.Host == "" || strings.Trim(u.Host, lower) != "" {
		return false
	}
	for segment := range strings.SplitSeq(u.Path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." || strings.Trim(segment, lower+all) != "" {
			return false
		}
	}
	return true
}

// spkiOf is the SHA-256 of a certificate's SubjectPublicKeyInfo in hexadecimal.
func spkiOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// A template is a text with places: texts and the names of places by turns.
type template []string

// newTemplate reads a text whose places are among the fields ("{uri}{dns}") and the
// stars of a rule.
func newTemplate(text, fields string, stars int) (template, error) {
	var t template
	for {
		before, rest, ok := strings.Cut(text, "{")
		if t = append(t, before); !ok {
			return t, nil
		}
		name, after, ok := strings.Cut(rest, "}")
		n, err := strconv.Atoi(name)
		if !ok || !strings.Contains(fields, "{"+name+"}") && (err != nil || n < 1 || n > stars) {
			return nil, fmt.Errorf("%q has a place for {%s}, and the patterns of the rule give %d stars and %s", text, name, stars, fields)
		}
		t, text = append(t, name), after
	}
}

func (t template) fill(fields map[string]string, stars []string) string {
	var s strings.Builder
	for i, part := range t {
		if i%2 == 0 {
			s.WriteString(part)
		} else if n, err := strconv.Atoi(part); err == nil {
			s.WriteString(stars[n-1])
		} else {
			s.WriteString(fields[part])
		}
	}
	return s.String()
}
