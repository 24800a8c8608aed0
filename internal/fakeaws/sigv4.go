package fakeaws

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// scope is the credential scope of a signature.
type scope struct{ id, date, region, service string }

// verify checks a request's signature as AWS does: over what arrived, with every x-amz
// header signed, within five minutes, with credentials that this world has issued.
func (w *World) verify(r *http.Request, body []byte, services ...string) (*credential, scope, *refusal) {
	auth := r.Header.Get("Authorization")
	if auth == "" {
		return nil, scope{}, &refusal{403, "MissingAuthenticationTokenException", "Missing Authentication Token"}
	}
	rest, ok := strings.CutPrefix(auth, "AWS4-HMAC-SHA256 ")
	fields := make(map[string]string)
	for _, part := range strings.Split(rest, ",") {
		k, v, found := strings.Cut(strings.TrimSpace(part), "=")
		ok = ok && found
		fields[k] = v
	}
	parts := strings.Split(fields["Credential"], "/")
	if !ok || len(parts) != 5 || parts[4] != "aws4_request" || fields["SignedHeaders"] == "" || fields["Signature"] == "" {
		return nil, scope{}, &refusal{400, "IncompleteSignatureException", "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters."}
	}
	s := scope{parts[0], parts[1], parts[2], parts[3]}
	wrong := func(format string, a ...any) (*credential, scope, *refusal) {
		return nil, s, &refusal{403, "InvalidSignatureException", fmt.Sprintf(format, a...)}
	}
	if !contains(services, s.service) {
		return wrong("Credential should be scoped to correct service: '%s'.", services[0])
	}
	w.mu.Lock()
	c := w.byID[s.id]
	w.mu.Unlock()
	if c == nil || c.token != r.Header.Get("X-Amz-Security-Token") {
		return nil, s, &refusal{403, "UnrecognizedClientException", "The security token included in the request is invalid."}
	}
	now := w.config.RealNow()
	if !c.expires.IsZero() && now.After(c.expires) {
		return nil, s, &refusal{403, "ExpiredTokenException", "The security token included in the request is expired"}
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || !strings.HasPrefix(r.Header.Get("X-Amz-Date"), s.date) {
		return wrong("Date in Credential scope does not match the date of the request.")
	}
	if d := now.Sub(at); d > 5*time.Minute {
		return wrong("Signature expired: %s is now earlier than %s", at.Format("20060102T150405Z"), now.UTC().Add(-5*time.Minute).Format("20060102T150405Z"))
	} else if d < -5*time.Minute {
		return wrong("Signature not yet current: %s is still later than %s", at.Format("20060102T150405Z"), now.UTC().Add(5*time.Minute).Format("20060102T150405Z"))
	}
	names := strings.Split(fields["SignedHeaders"], ";")
	if !sort.StringsAreSorted(names) || !namesHost(names) {
		return wrong("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz") && !contains(names, lower) {
			return wrong("There were headers present in the request which were not signed: %s", lower)
		}
	}
	sum := sha256.Sum256(body)
	payload := hex.EncodeToString(sum[:])
	if told := r.Header.Get("X-Amz-Content-Sha256"); told != "" && told != payload {
		return wrong("The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	canonical := canonicalRequest(r, names, payload)
	hash := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"),
		s.date + "/" + s.region + "/" + s.service + "/aws4_request", hex.EncodeToString(hash[:])}, "\n")
	key := []byte("AWS4" + c.secret)
	for _, part := range []string{s.date, s.region, s.service, "aws4_request"} {
		key = mac(key, part)
	}
	want := hex.EncodeToString(mac(key, toSign))
	if subtle.ConstantTimeCompare([]byte(want), []byte(fields["Signature"])) != 1 {
		return wrong("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.")
	}
	return c, s, nil
}

// verifyPresigned checks a request whose signature is in its query, as STS does for a
// GET. Real STS is said to give every presigned request 15 minutes, whatever its
// X-Amz-Expires says; here the shorter of both counts.
func (w *World) verifyPresigned(r *http.Request, body []byte) (*credential, scope, *refusal) {
	wrong := func(format string, a ...any) (*credential, scope, *refusal) {
		return nil, scope{}, &refusal{403, "SignatureDoesNotMatch", fmt.Sprintf(format, a...)}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, scope{}, &refusal{400, "MalformedQueryString", "The query string is malformed."}
	}
	if query.Get("X-Amz-Signature") == "" {
		return nil, scope{}, &refusal{403, "MissingAuthenticationToken", "Request is missing Authentication Token"}
	}
	for name, values := range query {
		if len(values) != 1 {
			return nil, scope{}, &refusal{400, "IncompleteSignature", "Duplicate query parameter " + name}
		}
	}
	parts := strings.Split(query.Get("X-Amz-Credential"), "/")
	if query.Get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" || len(parts) != 5 || parts[4] != "aws4_request" || query.Get("X-Amz-SignedHeaders") == "" {
		return nil, scope{}, &refusal{400, "IncompleteSignature", "AWS query-string parameters must include 'X-Amz-Algorithm', 'X-Amz-Credential', 'X-Amz-Signature', 'X-Amz-SignedHeaders' and 'X-Amz-Date'."}
	}
	region := "us-east-1"
	if labels := strings.Split(r.Host, "."); len(labels) > 3 {
		region = labels[1]
	}
	if parts[2] != region || parts[3] != "sts" {
		return wrong("Credential should be scoped to a valid region.")
	}
	w.mu.Lock()
	c := w.byID[parts[0]]
	w.mu.Unlock()
	if c == nil || c.token != query.Get("X-Amz-Security-Token") {
		return nil, scope{}, &refusal{403, "InvalidClientTokenId", "The security token included in the request is invalid."}
	}
	now := w.config.RealNow()
	if !c.expires.IsZero() && now.After(c.expires) {
		return nil, scope{}, &refusal{403, "ExpiredToken", "The security token included in the request is expired"}
	}
	date := query.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", date)
	if err != nil || !strings.HasPrefix(date, parts[1]) {
		return wrong("Date in Credential scope does not match the date of the request.")
	}
	seconds, err := strconv.Atoi(query.Get("X-Amz-Expires"))
	if err != nil || seconds < 1 || seconds > 604800 {
		return nil, scope{}, &refusal{400, "AuthorizationQueryParametersError", "X-Amz-Expires must be between 1 and 604800 seconds"}
	}
	if life := min(time.Duration(seconds)*time.Second, 15*time.Minute); now.Sub(at) > life {
		return wrong("Signature expired: %s is now earlier than %s", date, now.UTC().Add(-life).Format("20060102T150405Z"))
	} else if at.Sub(now) > 5*time.Minute {
		return wrong("Signature not yet current: %s is still later than %s", date, now.UTC().Add(5*time.Minute).Format("20060102T150405Z"))
	}
	names := strings.Split(query.Get("X-Amz-SignedHeaders"), ";")
	if !sort.StringsAreSorted(names) || !namesHost(names) {
		return wrong("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for _, name := range names {
		if name != "host" && len(r.Header.Values(name)) == 0 {
			return wrong("The header %s was signed and is not there.", name)
		}
	}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz") && !contains(names, lower) {
			return wrong("There were headers present in the request which were not signed: %s", lower)
		}
	}
	sum := sha256.Sum256(body)
	unsigned := r.Clone(r.Context())
	var kept []string
	for _, pair := range strings.Split(r.URL.RawQuery, "&") {
		if !strings.HasPrefix(pair, "X-Amz-Signature=") {
			kept = append(kept, pair)
		}
	}
	unsigned.RequestURI = r.URL.EscapedPath() + "?" + strings.Join(kept, "&")
	hash := sha256.Sum256([]byte(canonicalRequest(unsigned, names, hex.EncodeToString(sum[:]))))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", date, strings.Join(parts[1:], "/"), hex.EncodeToString(hash[:])}, "\n")
	key := []byte("AWS4" + c.secret)
	for _, part := range parts[1:] {
		key = mac(key, part)
	}
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(mac(key, toSign))), []byte(query.Get("X-Amz-Signature"))) != 1 {
		return wrong("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.")
	}
	return c, scope{parts[0], parts[1], parts[2], parts[3]}, nil
}

// namesHost reports whether the host is signed: as host, or, by clients that speak HTTP/2,
// as :authority.
func namesHost(names []string) bool { return contains(names, "host") || contains(names, ":authority") }

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// canonicalRequest is the text that is signed: the path as it was sent, encoded once
// more, the query sorted, the headers trimmed and their blanks folded.
func canonicalRequest(r *http.Request, names []string, payload string) string {
	raw := r.RequestURI
	path, query, _ := strings.Cut(raw, "?")
	if path == "" || path[0] != '/' {
		path = "/"
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n")
	for _, c := range []byte(path) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteString("\n" + canonicalQuery(query) + "\n")
	for _, name := range names {
		var values []string
		switch name {
		case "host", ":authority":
			values = []string{r.Host}
		case "content-length":
			values = []string{fmt.Sprint(r.ContentLength)}
		default:
			values = append(values, r.Header.Values(name)...)
		}
		for i, v := range values {
			values[i] = strings.Join(strings.Fields(v), " ")
		}
		b.WriteString(name + ":" + strings.Join(values, ",") + "\n")
	}
	b.WriteString("\n" + strings.Join(names, ";") + "\n" + payload)
	return b.String()
}

func canonicalQuery(query string) string {
	if query == "" {
		return ""
	}
	var pairs []string
	for _, p := range strings.Split(query, "&") {
		k, v, _ := strings.Cut(p, "=")
		k, _ = url.QueryUnescape(k)
		v, _ = url.QueryUnescape(v)
		esc := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
		pairs = append(pairs, esc(k)+"="+esc(v))
	}
	sort.Strings(pairs)
	return strings.Join(pairs, "&")
}
