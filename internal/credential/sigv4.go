package credential

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// This is the SDK's signature, made of fewer pieces: the derived key is kept, and the
// texts that are hashed are built in one buffer. FuzzSign holds it to the SDK's, byte
// for byte.

// A signingKeys signs with one pair of keys, and keeps what it derives from the secret
// for a day, a Region and a service. It may be used from many goroutines.
type signingKeys struct {
	aws.Credentials
	derived atomic.Pointer[derivedKey] // newest first
	bearers atomic.Pointer[bearerKey]  // newest first
}

// A derivedKey is good for one day, Region and service. None is changed after.
type derivedKey struct {
	day, region, service string
	scope                string   // day/region/service/aws4_request
	inner, outer         [64]byte // the key with HMAC's pads
	next                 *derivedKey
}

// keptKeys bounds the derived keys of one session. More Regions than that derive again.
const keptKeys = 8

func (k *signingKeys) key(day []byte, region, service string) *derivedKey {
	first := k.derived.Load()
	for d := first; d != nil; d = d.next {
		if d.day == string(day) && d.region == region && d.service == service {
			return d
		}
	}
	d := &derivedKey{day: string(day), region: region, service: service}
	d.scope = d.day + "/" + region + "/" + service + "/aws4_request"
	key := []byte("AWS4" + k.SecretAccessKey)
	for _, part := range []string{d.day, region, service, "aws4_request"} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	for i := range d.inner {
		d.inner[i], d.outer[i] = 0x36, 0x5c
	}
	for i, b := range key {
		d.inner[i] ^= b
		d.outer[i] ^= b
	}
	n := 1
	for old := first; old != nil && n < keptKeys && old.day == d.day; old = old.next {
		n++
	}
	d.next = first.upTo(n-1, d.day)
	k.derived.Store(d) // one that another call has put meanwhile is derived again
	return d
}

// upTo copies the first n of a list, those of the same day.
func (d *derivedKey) upTo(n int, day string) *derivedKey {
	if d == nil || n == 0 || d.day != day {
		return nil
	}
	c := *d
	c.next = d.next.upTo(n-1, day)
	return &c
}

// mac is HMAC-SHA256 of a short text.
func (d *derivedKey) mac(text []byte) [sha256.Size]byte {
	var space [64 + 512]byte
	in := append(append(space[:0], d.inner[:]...), text...)
	sum := sha256.Sum256(in)
	var out [64 + sha256.Size]byte
	copy(out[:], d.outer[:])
	copy(out[64:], sum[:])
	return sha256.Sum256(out[:])
}

// signedHeader is one header that goes into a signature.
type signedHeader struct {
	lower  string
	values []string
}

// scratch is what a signature is built in.
type scratch struct {
	text    []byte // the canonical request
	toSign  []byte
	headers []signedHeader
	path    canonicalPath
}

// A canonicalPath is a path as it was signed last: most calls are of the same few models.
type canonicalPath struct{ path, raw, canonical []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

const (
	contentLength = "content-length"
	hostHeader    = "host"
	amzTime       = "20060102T150405Z"
)

// sign puts the time, the session token and the signature on a request whose body
// hashes to payload. The query is put in the order in which it is signed.
func (k *signingKeys) sign(r *http.Request, payload [sha256.Size]byte, service, region string, now time.Time) {
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)

	stamp := now.UTC().AppendFormat(s.toSign[:0], amzTime)
	d := k.key(stamp[:8], region, service)

	if r.Header == nil {
		r.Header = make(http.Header, 3)
	}
	values := make([]string, 3) // of the three headers, in one piece
	date := string(stamp)
	values[0], values[1] = date, k.SessionToken
	r.Header["X-Amz-Date"] = values[0:1:1]
	if k.SessionToken != "" {
		r.Header["X-Amz-Security-Token"] = values[1:2:2]
	} else {
		delete(r.Header, "X-Amz-Security-Token") // not ours
	}

	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	if bare := withoutDefaultPort(r.URL.Scheme, host); bare != host {
		host, r.Host = bare, bare // as net/http's client will send it
	}
	h := append(s.headers[:0], signedHeader{lower: hostHeader})
	if r.ContentLength > 0 {
		h = append(h, signedHeader{lower: contentLength})
	}
	for name, values := range r.Header {
		if lower := signedName(name); lower != "" {
			h = append(h, signedHeader{lower, values})
		}
	}
	slices.SortFunc(h, func(a, b signedHeader) int { return strings.Compare(a.lower, b.lower) })

	b := append(s.text[:0], r.Method...)
	b = append(b, '\n')
	b = append(b, s.path.of(r.URL)...)
	b = append(b, '\n')
	if r.URL.RawQuery != "" {
		r.URL.RawQuery = canonicalQuery(r.URL.RawQuery)
		b = append(b, r.URL.RawQuery...)
	}
	b = append(b, '\n')
	for _, header := range h {
		b = append(append(b, header.lower...), ':')
		switch header.lower {
		case hostHeader:
			b = appendTrimmed(b, host)
		case contentLength:
			b = strconv.AppendInt(b, r.ContentLength, 10)
		default:
			for i, v := range header.values {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendTrimmed(b, v)
			}
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	names := len(b)
	for i, header := range h {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, header.lower...)
	}
	namesEnd := len(b)
	b = append(b, '\n')
	b = hex.AppendEncode(b, payload[:])
	sum := sha256.Sum256(b)

	t := append(s.toSign[:0], "AWS4-HMAC-SHA256\n"...)
	t = append(append(t, date...), '\n')
	t = append(append(t, d.scope...), '\n')
	t = hex.AppendEncode(t, sum[:])
	signature := d.mac(t)

	t = append(t[:0], "AWS4-HMAC-SHA256 Credential="...)
	t = append(append(t, k.AccessKeyID...), '/')
	t = append(append(t, d.scope...), ", SignedHeaders="...)
	t = append(append(t, b[names:namesEnd]...), ", Signature="...)
	t = hex.AppendEncode(t, signature[:])
	values[2] = string(t)
	r.Header["Authorization"] = values[2:3:3]

	clear(h) // the pool keeps no request
	s.text, s.toSign, s.headers = b, t, h
}

// signedName is the lower case of a header that goes into a signature, or empty: the
// ones that AWS wants there, x-amz ones, and what no intermediary changes.
func signedName(name string) string {
	switch name { // those that most calls have, without an allocation
	case "Content-Type":
		return "content-type"
	case "Anthropic-Version":
		return "anthropic-version"
	case "X-Amz-Date":
		return "x-amz-date"
	case "X-Amz-Security-Token":
		return "x-amz-security-token"
	case "X-Amzn-Bedrock-Request-Metadata":
		return "x-amzn-bedrock-request-metadata"
	case "X-Amzn-Trace-Id":
		return "" // load balancers change it
	}
	if len(name) >= 5 && strings.EqualFold(name[:5], "x-amz") {
		return strings.ToLower(name)
	}
	return ""
}

// of is the path of a URL as it is sent, escaped once more. It is valid until the next.
func (p *canonicalPath) of(u *url.URL) []byte {
	if len(p.canonical) == 0 || u.Path != string(p.path) || u.RawPath != string(p.raw) {
		p.path, p.raw = append(p.path[:0], u.Path...), append(p.raw[:0], u.RawPath...)
		p.canonical = appendCanonicalPath(p.canonical[:0], u)
	}
	return p.canonical
}

// appendCanonicalPath appends the path as it is sent, escaped once more.
func appendCanonicalPath(b []byte, u *url.URL) []byte {
	path := u.EscapedPath()
	if path == "" {
		return append(b, '/')
	}
	const digits = "0123456789ABCDEF"
	for i := range len(path) {
		if c := path[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '/' || c == '-' || c == '.' || c == '_' || c == '~' {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// canonicalQuery is a query escaped as SigV4 wants it and sorted by what is escaped.
func canonicalQuery(raw string) string {
	values, _ := url.ParseQuery(raw) // a pair that cannot be read is not sent, as the SDK does
	type pair struct{ key, value string }
	pairs := make([]pair, 0, len(values))
	escape := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
	for k, list := range values {
		for _, v := range list {
			pairs = append(pairs, pair{escape(k), escape(v)})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.key + "=" + p.value)
	}
	return b.String()
}

// appendTrimmed appends a header's value without blanks around it, and with runs of
// blanks within it made one.
func appendTrimmed(b []byte, v string) []byte {
	v = strings.TrimSpace(v)
	if !strings.Contains(v, "  ") {
		return append(b, v...)
	}
	from := len(b)
	for i := range len(v) {
		if v[i] == ' ' && i > 0 && v[i-1] == ' ' {
			continue
		}
		b = append(b, v[i])
	}
	return append(b[:from], bytes.TrimSpace(b[from:])...)
}

// withoutDefaultPort takes off a port that the scheme implies.
func withoutDefaultPort(scheme, host string) string {
	if port, ok := strings.CutSuffix(host, ":443"); ok && strings.EqualFold(scheme, "https") {
		return strings.Trim(port, "[]")
	}
	if port, ok := strings.CutSuffix(host, ":80"); ok && strings.EqualFold(scheme, "http") {
		return strings.Trim(port, "[]")
	}
	return host
}
