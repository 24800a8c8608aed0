package fakeaws

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// How a call was let in, as Call has it.
const (
	bySignature    = "SigV4"
	byShortTermKey = "SHORT_TERM"
	byLongTermKey  = "LONG_TERM"
)

// authenticate finds out who calls an inference endpoint: by a signature, or by a Bedrock
// API key, which the paths of Anthropic's shape also take in x-api-key.
func (w *World) authenticate(r *http.Request, body []byte, endpoint string, rt route) (*credential, scope, string, *refusal) {
	key, isKey := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if given := r.Header.Get("X-Api-Key"); !isKey && given != "" && r.Header.Get("Authorization") == "" && rt.shape == anthropicShape {
		key, isKey = given, true
	}
	if isKey {
		return w.bearer(r, key, endpoint)
	}
	services := []string{"bedrock"}
	if endpoint == Mantle {
		services = []string{Mantle}
		if w.config.MantleTakesBedrock {
			services = append(services, "bedrock")
		}
	}
	c, s, no := w.verify(r, body, services...)
	if no != nil && no.status == 403 && endpoint == Mantle && no.kind == "MissingAuthenticationTokenException" {
		no.status = 401
	}
	return c, s, bySignature, no
}

// bearer checks a Bedrock API key. A long-term key is known or it is not; a short-term
// key is a presigned URL, good for the Region of its scope alone.
func (w *World) bearer(r *http.Request, key, endpoint string) (*credential, scope, string, *refusal) {
	status := http.StatusForbidden
	if endpoint == Mantle {
		status = http.StatusUnauthorized
	}
	wrong := &refusal{status, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid."}
	encoded, short := strings.CutPrefix(key, "bedrock-api-key-")
	if !short {
		w.mu.Lock()
		c := w.bearers[key]
		w.mu.Unlock()
		if c == nil {
			return nil, scope{}, "", wrong
		}
		return c, scope{region: w.regionOf(r), service: endpoint}, byLongTermKey, nil
	}
	text, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, scope{}, "", wrong
	}
	c, s, no := w.presignedKey(string(text))
	if no != nil {
		no.status = status
		return nil, scope{}, "", no
	}
	if region, told := hostRegion(r); told && region != s.region {
		return nil, scope{}, "", wrong
	}
	return c, s, byShortTermKey, nil
}

// The life of a short-term key ends with its X-Amz-Expires, and that after twelve hours
// at the latest.
const longestKey = 12 * time.Hour

// presignedKey checks the presigned POST of CallWithBearerToken that a short-term key is.
// It lacks its scheme and has a Version that was not signed.
func (w *World) presignedKey(text string) (*credential, scope, *refusal) {
	wrong := func() (*credential, scope, *refusal) {
		return nil, scope{}, &refusal{403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid."}
	}
	raw, ok := strings.CutPrefix(text, "bedrock.amazonaws.com/?")
	raw, versioned := strings.CutSuffix(raw, "&Version=1")
	query, err := url.ParseQuery(raw)
	if !ok || !versioned || err != nil {
		return wrong()
	}
	for _, values := range query {
		if len(values) != 1 {
			return wrong()
		}
	}
	parts := strings.Split(query.Get("X-Amz-Credential"), "/")
	if query.Get("Action") != "CallWithBearerToken" || query.Get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" || query.Get("X-Amz-SignedHeaders") != "host" ||
		len(parts) != 5 || parts[3] != "bedrock" || parts[4] != "aws4_request" {
		return wrong()
	}
	w.mu.Lock()
	c := w.byID[parts[0]]
	w.mu.Unlock()
	if c == nil || c.token != query.Get("X-Amz-Security-Token") {
		return wrong()
	}
	now, date := w.config.RealNow(), query.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", date)
	seconds, err2 := strconv.Atoi(query.Get("X-Amz-Expires"))
	if err != nil || err2 != nil || !strings.HasPrefix(date, parts[1]) || seconds < 1 || time.Duration(seconds)*time.Second > longestKey {
		return wrong()
	}
	if now.Sub(at) > time.Duration(seconds)*time.Second || at.Sub(now) > 5*time.Minute || !c.expires.IsZero() && now.After(c.expires) {
		return nil, scope{}, &refusal{403, "AccessDeniedException", "Bearer Token has expired"}
	}
	var signed []string
	for _, pair := range strings.Split(raw, "&") {
		if !strings.HasPrefix(pair, "X-Amz-Signature=") {
			signed = append(signed, pair)
		}
	}
	sort.Strings(signed)
	empty := sha256.Sum256(nil)
	canonical := "POST\n/\n" + canonicalQuery(strings.Join(signed, "&")) + "\nhost:bedrock.amazonaws.com\n\nhost\n" + hex.EncodeToString(empty[:])
	hash := sha256.Sum256([]byte(canonical))
	toSign := strings.Join([]string{"AWS4-HMAC-SHA256", date, strings.Join(parts[1:], "/"), hex.EncodeToString(hash[:])}, "\n")
	signing := []byte("AWS4" + c.secret)
	for _, part := range parts[1:] {
		signing = mac(signing, part)
	}
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(mac(signing, toSign))), []byte(query.Get("X-Amz-Signature"))) != 1 {
		return wrong()
	}
	return c, scope{parts[0], parts[1], parts[2], parts[3]}, nil
}

// hostRegion is the Region that a host of an inference endpoint names.
func hostRegion(r *http.Request) (region string, told bool) {
	labels := strings.Split(r.Host, ".")
	for i, label := range labels[:len(labels)-1] {
		if l := strings.TrimSuffix(label, "-fips"); l == Runtime || l == Mantle {
			return labels[i+1], true
		}
	}
	return "", false
}

// regionOf is the Region of a request that has no credential scope: the one that its host
// names, else the first of the world.
func (w *World) regionOf(r *http.Request) string {
	if region, told := hostRegion(r); told {
		return region
	}
	if len(w.config.Regions) > 0 {
		return w.config.Regions[0]
	}
	return "us-east-1"
}
