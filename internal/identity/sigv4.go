package identity

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-dev/waybill"
)

// SigV4Config says which signatures are taken. The zero value works.
type SigV4Config struct {
	// Services a signature may be made for; nil means bedrock and bedrock-mantle, the
	// two names under which SDKs sign for Bedrock.
	Services []string
	// Regions a signature may be made for; nil means any. The Region of a signature
	// says nothing about where the call goes.
	Regions []string
	// Window is how far the date of a signature may be from now, either way; 0 means
	// AWS's five minutes.
	Window time.Duration
	// MaxExpires is the longest life of a presigned request; 0 means 15 minutes.
	MaxExpires time.Duration
	// Repeats is how often one signature is taken again while it is fresh; 0 means
	// twenty times, less than 0 never. A repeat need not be an attack: dates have whole
	// seconds, so whoever asks the same twice within one makes the same signature. The
	// SDKs for Go and JavaScript sign an id of each call, and never do; the one for
	// Python and curl do, so raise it where they ask one thing many times at once. What
	// a thief of one request gains is bounded to so many calls within the window. Each
	// gateway counts for itself.
	Repeats int
	// Remembered bounds how many signatures are kept to tell repeats; 0 means a
	// million, some 60 MB when full. When more come within the window, the oldest are
	// forgotten: see Stats.
	Remembered int
	// MaxBody bounds a body whose hash was not declared, and which has to be read
	// before its signature can be checked; 0 means AWS's 25,000,000.
	MaxBody int64
	// MaxUnproven bounds the bytes of all such bodies at one time; 0 means 512 MiB.
	// Callers that declare their hash, as most SDKs can, are not held up by it.
	MaxUnproven int64
	// UnsignedEmpty takes UNSIGNED-PAYLOAD, over TLS, from requests that have no body.
	// With a body it is never taken: whoever can change the body decides what is spent.
	UnsignedEmpty bool
	// Secure says whether a request came over TLS; nil means that this process ended
	// the TLS itself.
	Secure func(*http.Request) bool
	// Added are names of x-amz headers that a proxy of ours puts on after the caller
	// has signed. X-Amzn-Trace-Id always is one: load balancers set it, no SDK signs it.
	Added []string
	// BodyRefused is told of bodies that are not what was signed: when they are read,
	// the caller was accepted already. nil means nobody is.
	BodyRefused func(*http.Request, *Refusal)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (c SigV4Config) withDefaults() SigV4Config {
	if c.Services == nil {
		c.Services = []string{"bedrock", "bedrock-mantle"}
	}
	if c.Window <= 0 {
		c.Window = 5 * time.Minute
	}
	if c.MaxExpires <= 0 {
		c.MaxExpires = 15 * time.Minute
	}
	if c.Repeats == 0 {
		c.Repeats = 20
	}
	if c.Remembered <= 0 {
		c.Remembered = 1_000_000
	}
	if c.MaxBody <= 0 {
		c.MaxBody = 25_000_000
	}
	if c.MaxUnproven <= 0 {
		c.MaxUnproven = 512 << 20
	}
	if c.Secure == nil {
		c.Secure = func(r *http.Request) bool { return r.TLS != nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// SigV4 knows callers by requests signed with a signing key of the gateway, as AWS
// SDKs sign them: in headers, presigned, or in signed chunks.
type SigV4 struct {
	keys     *SigningKeys
	config   SigV4Config
	seen     seen
	unproven atomic.Int64 // bytes
}

// NewSigV4 makes a verifier of signatures made with these keys.
func NewSigV4(keys *SigningKeys, c SigV4Config) *SigV4 {
	v := &SigV4{keys: keys, config: c.withDefaults()}
	// A date may lie a window ahead, and is good for a window or its life after that.
	v.seen.life = v.config.Window + max(v.config.Window, v.config.MaxExpires)
	v.seen.most = v.config.Remembered
	return v
}

// SigV4Stats counts what a verifier has done.
type SigV4Stats struct {
	Repeated  uint64 // signatures that came again and were taken
	Forgotten uint64 // signatures forgotten before their time, for want of room
}

// Stats says what was counted so far.
func (v *SigV4) Stats() SigV4Stats {
	return SigV4Stats{Repeated: v.seen.repeated.Load(), Forgotten: v.seen.forgotten.Load()}
}

// scope is the credential scope of a signature, but for the key.
type scope struct{ date, region, service string }

func (s scope) String() string { return s.date + "/" + s.region + "/" + s.service + "/aws4_request" }

// What X-Amz-Content-Sha256 may say other than a hash.
const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	signedChunks    = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
)

// notTaken are ways to send a body that some SDKs have and we do not: telling so to a
// caller we know saves them a search.
var notTaken = []string{
	signedChunks + "-TRAILER", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-EVENTS",
	"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
}

const (
	algorithm  = "AWS4-HMAC-SHA256"
	hostHTTP2  = ":authority" // signed in the place of host by clients that speak HTTP/2
	dateFormat = "20060102T150405Z"
)

// Signed reports whether a request carries a signature at all, good or bad: whether it
// is SigV4 to judge.
func Signed(r *http.Request) bool {
	for _, v := range r.Header["Authorization"] {
		if strings.HasPrefix(v, "AWS4-") {
			return true
		}
	}
	_, query, _ := strings.Cut(r.RequestURI, "?")
	return strings.Contains(query, "X-Amz-Signature=") || strings.Contains(query, "X-Amz-Algorithm=")
}

// A signature is what a request says about its own signing, read and not yet believed.
type signature struct {
	path, query string // as they were sent; without X-Amz-Signature
	keyID       string
	scope       scope
	date        string
	at          time.Time
	expires     time.Duration // of a presigned request
	presigned   bool
	names       []string // of the signed headers, sorted
	sum         [sha256.Size]byte
	token       string
	payload     string // what was said of the body; empty if nothing
	rest        string // query that is left when the proof is taken off
}

// Authenticate verifies the signature of a request. A principal that it returns is
// proven: where the hash of the body was not declared, the body has been read, hashed
// and put back. A body whose hash was declared, or that comes in signed chunks, is
// checked as it is read: reading it to its end without an error proves it, and the
// last byte is handed on only then, so a reader that stops at Content-Length is safe.
// Such an error is a *waybill.Error.
//
// The proof is taken off: the query loses the parameters of a presigned request, a
// chunked body loses its framing, and Content-Length says what is left.
//
// Nothing is done in proportion to the body before the key is known and the date fresh.
func (v *SigV4) Authenticate(r *http.Request) (waybill.Principal, error) {
	s, why := readSignature(r)
	if why != "" {
		return waybill.Principal{}, refuse(why)
	}
	key, opened, err := v.keys.find(s.keyID)
	if err != nil {
		return waybill.Principal{}, err
	}
	if err := v.verify(r, s, key, opened); err != nil {
		return waybill.Principal{}, err
	}
	if s.presigned {
		r.RequestURI, r.URL.RawQuery = s.path, s.rest
		if s.rest != "" {
			r.RequestURI += "?" + s.rest
		}
	}
	return waybill.Principal{Subject: key.Subject, Issuer: keyIssuer, Method: "sigv4", KeyID: key.ID, Tags: key.Tags,
		Models: key.Models, Environments: key.Environments}, nil
}

// verify holds a signature against the request and the rules: what costs nothing first.
func (v *SigV4) verify(r *http.Request, s *signature, key *Key, opened *signingKey) error {
	no := func(why Reason) error { return refusedKey(why, key) }
	now := v.config.Now()
	switch {
	case key.Revoked != nil && !now.Before(*key.Revoked):
		return no(ReasonRevoked)
	case !key.Live(now):
		return no(ReasonExpired)
	case !v.fresh(s, now):
		return no(ReasonClock)
	}
	if !slices.Contains(v.config.Services, s.scope.service) || v.config.Regions != nil && !slices.Contains(v.config.Regions, s.scope.region) {
		return no(ReasonScope)
	}
	if s.token != "" && subtle.ConstantTimeCompare([]byte(s.token), []byte(opened.token)) != 1 {
		return no(ReasonSecret)
	}
	if !v.allSigned(r, s) {
		return no(ReasonUnsigned)
	}
	payload := s.payload
	if payload == "" {
		sum, err := v.readUnproven(r)
		if err != nil {
			return err
		}
		payload = hex.EncodeToString(sum[:])
	}
	canonical, ok := canonicalRequest(r, s, payload)
	if !ok {
		return no(ReasonUnsigned) // a header that is said to be signed is not there
	}
	derived, kept := opened.derive(s.scope)
	want := mac(derived[:], stringToSign(s, canonical))
	if subtle.ConstantTimeCompare(want[:], s.sum[:]) != 1 {
		return no(ReasonSignature)
	}
	if !kept {
		opened.keep(s.scope, derived)
	}
	if !v.seen.take(s.sum, now, v.config.Repeats) {
		return no(ReasonReplayed)
	}
	return v.checkBody(r, s, key, derived[:])
}

func (v *SigV4) fresh(s *signature, now time.Time) bool {
	ahead := s.at.Sub(now)
	if s.presigned {
		return ahead <= v.config.Window && s.expires <= v.config.MaxExpires && -ahead <= s.expires
	}
	return ahead <= v.config.Window && -ahead <= v.config.Window
}

// allSigned reports whether every header that had to be signed was. AWS demands it of
// x-amz headers, which include the request metadata; ours carry tags. Content-Type need
// not be: the SDK for PHP leaves it out.
func (v *SigV4) allSigned(r *http.Request, s *signature) bool {
	for name := range r.Header {
		lower := strings.ToLower(name)
		if !strings.HasPrefix(lower, "x-amz") && !strings.HasPrefix(lower, "x-waybill-") || lower == "x-amzn-trace-id" {
			continue
		}
		if _, ok := slices.BinarySearch(s.names, lower); ok {
			continue
		}
		if !slices.ContainsFunc(v.config.Added, func(a string) bool { return strings.EqualFold(a, name) }) {
			return false
		}
	}
	return true
}

// readSignature reads what a request says about its signing, strictly: where two
// readers could differ, it refuses.
func readSignature(r *http.Request) (*signature, Reason) {
	s := new(signature)
	var query string
	var asked bool
	s.path, query, asked = strings.Cut(r.RequestURI, "?")
	if !soundPath(s.path) {
		return nil, ReasonPath
	}
	// Each header that says something about the signature says it once.
	for _, name := range []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256", "X-Amz-Decoded-Content-Length"} {
		if len(r.Header[name]) > 1 {
			return nil, ReasonMalformed
		}
	}
	inQuery, ok := s.readQuery(query, asked)
	if !ok {
		return nil, ReasonMalformed
	}
	var credential, names, sum string
	auth := r.Header.Get("Authorization")
	s.payload = r.Header.Get("X-Amz-Content-Sha256")
	if len(inQuery) > 0 {
		if auth != "" || r.Header.Get("X-Amz-Date") != "" || r.Header.Get("X-Amz-Security-Token") != "" {
			return nil, ReasonMalformed
		}
		if told := inQuery["X-Amz-Content-Sha256"]; told != "" {
			if s.payload != "" {
				return nil, ReasonMalformed
			}
			s.payload = told
		}
		if inQuery["X-Amz-Algorithm"] != algorithm {
			return nil, ReasonMalformed
		}
		seconds, ok := number(inQuery["X-Amz-Expires"], 7*24*3600)
		if !ok || seconds == 0 {
			return nil, ReasonMalformed
		}
		s.presigned, s.expires = true, time.Duration(seconds)*time.Second
		credential, names, sum = inQuery["X-Amz-Credential"], inQuery["X-Amz-SignedHeaders"], inQuery["X-Amz-Signature"]
		s.date, s.token = inQuery["X-Amz-Date"], inQuery["X-Amz-Security-Token"]
	} else {
		if credential, names, sum, ok = readAuthorization(auth); !ok {
			return nil, ReasonMalformed
		}
		s.date, s.token = r.Header.Get("X-Amz-Date"), r.Header.Get("X-Amz-Security-Token")
	}
	if !s.readCredential(credential) || !s.readNames(names) || !s.readSum(sum) || s.payload != "" && !payloadForm(s.payload) {
		return nil, ReasonMalformed
	}
	at, err := time.Parse(dateFormat, s.date)
	if err != nil || s.date[:8] != s.scope.date {
		return nil, ReasonMalformed
	}
	s.at = at
	if s.presigned && s.payload == signedChunks {
		return nil, ReasonMalformed
	}
	return s, ""
}

// readAuthorization reads the parameters of an Authorization header: three, each once.
func readAuthorization(auth string) (credential, names, sum string, ok bool) {
	rest, ok := strings.CutPrefix(auth, algorithm+" ")
	if !ok || len(auth) > 8<<10 || strings.Count(rest, ",") != 2 {
		return "", "", "", false
	}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.Trim(part, " "), "=")
		var to *string
		switch name {
		case "Credential":
			to = &credential
		case "SignedHeaders":
			to = &names
		case "Signature":
			to = &sum
		}
		if to == nil || *to != "" || value == "" {
			return "", "", "", false
		}
		*to = value
	}
	return credential, names, sum, true
}

// readQuery gives the parameters of a presigned request, decoded, and puts the query
// that was signed and the one that is left when they are taken off. It refuses to read
// any of them twice, or under a spelling that only some readers would know.
func (s *signature) readQuery(query string, asked bool) (map[string]string, bool) {
	if !asked || query == "" {
		return nil, true
	}
	if len(query) > 16<<10 {
		return nil, false
	}
	var found map[string]string
	var signed, rest []string
	for part := range strings.SplitSeq(query, "&") {
		raw, value, _ := strings.Cut(part, "=")
		name, err := url.PathUnescape(raw)
		if err != nil {
			return nil, false
		}
		if raw != "X-Amz-Signature" {
			signed = append(signed, part)
		}
		if len(name) < 6 || !strings.EqualFold(name[:6], "x-amz-") {
			rest = append(rest, part)
			continue
		}
		if value, err = url.PathUnescape(value); err != nil || raw != name {
			return nil, false
		}
		if found == nil {
			found = make(map[string]string, 8)
		}
		if _, twice := found[name]; twice {
			return nil, false
		}
		found[name] = value
	}
	s.query, s.rest = strings.Join(signed, "&"), strings.Join(rest, "&")
	return found, true
}

func (s *signature) readCredential(text string) bool {
	parts := strings.Split(text, "/")
	if len(parts) != 5 || parts[4] != "aws4_request" || !word(parts[0], 1, 128) || len(parts[1]) != 8 || !word(parts[2], 1, 64) || !word(parts[3], 1, 64) {
		return false
	}
	s.keyID, s.scope = parts[0], scope{parts[1], parts[2], parts[3]}
	return true
}

// word reports whether a text is made of letters, digits, - and _.
func word(s string, least, most int) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) >= least && len(s) <= most
}

func (s *signature) readNames(text string) bool {
	s.names = strings.Split(text, ";")
	for i, name := range s.names {
		if name != hostHTTP2 && !word(name, 1, 128) || name != strings.ToLower(name) || i > 0 && name <= s.names[i-1] {
			return false
		}
	}
	_, host := slices.BinarySearch(s.names, "host")
	_, h2 := slices.BinarySearch(s.names, hostHTTP2)
	_, date := slices.BinarySearch(s.names, "x-amz-date")
	return (host || h2) && (date || s.presigned) && len(s.names) <= 100
}

func (s *signature) readSum(text string) bool { return readHash(text, &s.sum) }

// readHash reads 64 lower case hexadecimal digits.
func readHash(text string, to *[sha256.Size]byte) bool {
	if len(text) != 2*sha256.Size || strings.ToLower(text) != text {
		return false
	}
	_, err := hex.Decode(to[:], []byte(text))
	return err == nil
}

func payloadForm(text string) bool {
	var sum [sha256.Size]byte
	return text == unsignedPayload || text == signedChunks || slices.Contains(notTaken, text) || readHash(text, &sum)
}

// number reads a plain decimal number without sign or leading zero.
func number(text string, most int64) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0 && n <= most && strconv.FormatInt(n, 10) == text
}

// soundPath reports whether a path reads the same to everybody. SDKs differ over empty
// and dot segments (some sign them as they are, some without), AWS resolves them, and
// no operation has any.
func soundPath(path string) bool {
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		return false
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if len(segment) > 6 {
			continue // too long for two dots, escaped or not
		}
		if plain := strings.ReplaceAll(strings.ReplaceAll(segment, "%2e", "."), "%2E", "."); plain == "." || plain == ".." {
			return false
		}
	}
	return true
}

// canonicalRequest is the text whose hash is signed. It fails if a header that is said
// to be signed is not there.
func canonicalRequest(r *http.Request, s *signature, payload string) ([]byte, bool) {
	b := make([]byte, 0, 1024)
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendPath(b, s.path)
	b = append(b, '\n')
	b = appendQuery(b, s.query)
	b = append(b, '\n')
	for _, name := range s.names {
		var values []string
		switch name {
		case "host", hostHTTP2:
			values = []string{r.Host}
		case "content-length":
			if r.ContentLength >= 0 {
				values = []string{strconv.FormatInt(r.ContentLength, 10)}
			}
		default:
			values = r.Header.Values(name)
		}
		if len(values) == 0 {
			return nil, false
		}
		b = append(b, name...)
		b = append(b, ':')
		for i, value := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendFolded(b, value)
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	for i, name := range s.names {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	return append(b, payload...), true
}

// appendPath encodes the path as it was sent once more, as every service but S3 has
// it: %3A becomes %253A, and a plain colon %3A.
func appendPath(b []byte, path string) []byte {
	for _, c := range []byte(path) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		}
	}
	return b
}

// appendQuery sorts the query by key, then value. It encodes nothing anew: SDKs send
// what they sign, and what arrives in another encoding was changed on the way.
func appendQuery(b []byte, query string) []byte {
	if query == "" {
		return b
	}
	type pair struct{ key, value string }
	var pairs []pair
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		pairs = append(pairs, pair{key, value})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.key, b.key); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(append(append(b, p.key...), '='), p.value...)
	}
	return b
}

// appendFolded appends a header's value, trimmed, and with one blank where there were
// several. Of tabs inside a value SDKs think differently; here they stay.
func appendFolded(b []byte, value string) []byte {
	value = strings.Trim(value, " \t")
	for i, c := range []byte(value) {
		if c == ' ' && value[i-1] == ' ' {
			continue
		}
		b = append(b, c)
	}
	return b
}

func stringToSign(s *signature, canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return algorithm + "\n" + s.date + "\n" + s.scope.String() + "\n" + hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, text)
	h.Sum(sum[:0])
	return sum
}

// maxDerived bounds the derived keys that one key keeps: a day, a Region and a service
// each.
const maxDerived = 64

// derive is the signing key of a scope, kept or made.
func (k *signingKey) derive(s scope) (sum [sha256.Size]byte, kept bool) {
	k.mu.Lock()
	sum, kept = k.derived[s]
	k.mu.Unlock()
	if kept {
		return sum, true
	}
	sum = mac([]byte("AWS4"+k.secret), s.date)
	for _, part := range []string{s.region, s.service, "aws4_request"} {
		sum = mac(sum[:], part)
	}
	return sum, false
}

// keep keeps the signing key of a scope for which there was a good signature: those
// who only know the id of a key cannot fill the place.
func (k *signingKey) keep(s scope, sum [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.derived == nil || len(k.derived) >= maxDerived {
		k.derived = make(map[scope][sha256.Size]byte)
	}
	k.derived[s] = sum
}

// readUnproven reads a body whose hash was not declared, since without it there is no
// telling whether the signature is good. The caller is a stranger who knows the id of a
// live key: what they can make us hold is what they send, and bounded for all of them.
func (v *SigV4) readUnproven(r *http.Request) (sum [sha256.Size]byte, err error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return sha256.Sum256(nil), nil
	}
	tooLarge := &waybill.Error{Kind: waybill.TooLarge, Code: "WB1205", Message: "the request body is larger than Bedrock takes", Hint: "send at most 25,000,000 bytes"}
	if r.ContentLength > v.config.MaxBody {
		return sum, tooLarge
	}
	const first = 64 << 10
	size := int64(first)
	if r.ContentLength > 0 {
		size = min(size, r.ContentLength)
	}
	body := make([]byte, 0, size+1) // one more, to see the end
	defer func() { v.unproven.Add(-int64(len(body))) }()
	h := sha256.New()
	for {
		if len(body) == cap(body) {
			more := int64(3 * len(body))
			if r.ContentLength > 0 {
				more = min(more, r.ContentLength+1-int64(len(body)))
			}
			body = append(make([]byte, 0, int64(len(body))+max(more, 1)), body...)
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		h.Write(body[len(body) : len(body)+n])
		body = body[:len(body)+n]
		if v.unproven.Add(int64(n)) > v.config.MaxUnproven {
			return sum, &waybill.Error{Kind: waybill.Unavailable, Code: "WB1004", Message: "too many bodies wait for their signature to be checked",
				Hint: "try again; requests that declare the hash of their body (X-Amz-Content-Sha256) do not wait"}
		}
		if int64(len(body)) > v.config.MaxBody {
			return sum, tooLarge
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sum, notWhole(err)
		}
	}
	if r.ContentLength > 0 && int64(len(body)) != r.ContentLength {
		return sum, notWhole(io.ErrUnexpectedEOF)
	}
	r.Body = &readBody{bytes.NewReader(body), r.Body}
	h.Sum(sum[:0])
	return sum, nil
}

func notWhole(err error) error {
	return &waybill.Error{Kind: waybill.Invalid, Code: "WB1207", Message: "the request body did not arrive whole", Err: err}
}

// readBody is a body that was read already.
type readBody struct {
	io.Reader
	from io.Closer
}

func (b *readBody) Close() error { return b.from.Close() }

// checkBody puts the check of the body, if it is still to come, into its reading. The
// caller is proven.
func (v *SigV4) checkBody(r *http.Request, s *signature, key *Key, derived []byte) error {
	no := func() error {
		why := &Refusal{ReasonBody, key.Subject, keyIssuer, key.ID}
		if v.config.BodyRefused != nil {
			v.config.BodyRefused(r, why)
		}
		return why
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	switch {
	case s.payload == "":
		return nil // read and hashed already
	case s.payload == unsignedPayload:
		if v.config.UnsignedEmpty && v.config.Secure(r) && r.ContentLength == 0 {
			return nil
		}
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1003", Message: "the body of this request is not signed (UNSIGNED-PAYLOAD)", Hint: "have it signed, as SDKs do for Bedrock of their own accord"}
	case s.payload == signedChunks:
		return v.openChunks(r, s, derived, no)
	case slices.Contains(notTaken, s.payload):
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1003", Message: "bodies signed as " + s.payload + " are not taken", Hint: "send the body whole, with its hash, or in signed chunks without a trailer"}
	}
	b := &checkedBody{body: r.Body, hash: sha256.New(), left: r.ContentLength, refuse: no}
	if !readHash(s.payload, &b.want) {
		return no() // payloadForm has let it pass, so it can be read
	}
	if r.ContentLength == 0 {
		if b.want != sha256.Sum256(nil) {
			return no()
		}
		return nil
	}
	r.Body = b
	return nil
}

// Method is SigV4 as a way of proving who calls.
func (v *SigV4) Method() Method {
	return Method{Name: "sigv4", Claims: Signed, Authenticate: v.Authenticate,
		Headers: []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256"}}
}

// A checkedBody is a body that must have a hash. It gives its last byte only if it has.
type checkedBody struct {
	body   io.ReadCloser
	hash   hash.Hash
	want   [sha256.Size]byte
	left   int64 // bytes to come; less than 0 if not known
	err    error
	refuse func() error
}

func (b *checkedBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.body.Read(p)
	b.hash.Write(p[:n])
	known := b.left >= 0
	if known {
		b.left -= int64(n)
	}
	switch {
	case known && b.left <= 0, !known && errors.Is(err, io.EOF):
		var got [sha256.Size]byte
		if b.hash.Sum(got[:0]); got != b.want || known && b.left < 0 {
			b.err = b.refuse()
			return 0, b.err
		}
		b.err = io.EOF
		return n, b.err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	b.err = err
	return n, err
}

func (b *checkedBody) Close() error { return b.body.Close() }

// seen counts signatures while they are fresh, in two generations: the young one
// becomes the old one when its time is over or it is full.
type seen struct {
	life time.Duration
	most int

	mu         sync.Mutex // guards young, old, born
	young, old map[[16]byte]uint16
	born       time.Time

	repeated, forgotten atomic.Uint64
}

// take counts a signature that is good, and reports whether it may be used (again).
// Nobody but the holder of a key can make it keep anything.
func (s *seen) take(sum [sha256.Size]byte, now time.Time, repeats int) bool {
	key := [16]byte(sum[:]) // half of a signature tells it well enough
	s.mu.Lock()
	defer s.mu.Unlock()
	if full := len(s.young) >= max(1, s.most/2); full || now.Sub(s.born) > s.life || s.young == nil {
		if now.Sub(s.born) <= s.life {
			s.forgotten.Add(uint64(len(s.old)))
		} else if now.Sub(s.born) > 2*s.life {
			s.young = nil // nothing in it is fresh
		}
		s.old, s.young, s.born = s.young, make(map[[16]byte]uint16), now
	}
	for _, m := range []map[[16]byte]uint16{s.young, s.old} {
		n, ok := m[key]
		if !ok {
			continue
		}
		if int(n) > repeats {
			return false
		}
		if n < 65535 {
			m[key] = n + 1
		}
		s.repeated.Add(1)
		return true
	}
	s.young[key] = 1
	return true
}
