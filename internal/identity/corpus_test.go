package identity

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/waybill-dev/waybill"
)

// An entry of the corpus is a request as an SDK signed and sent it: see
// testdata/sigv4/README.md.
type entry struct {
	Name    string
	Signer  string
	Method  string
	Target  string
	Headers [][2]string
	Chunked bool // Transfer-Encoding: chunked
	Body    []bodyPart
	Want    string // "path" or "WB1003" if it is refused for that, "unsigned-empty" if the configuration must allow it

	body []byte
}

// A bodyPart is a text and how often it comes.
type bodyPart struct {
	text  string
	count int
}

func (p *bodyPart) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&p.text, &p.count})
}

func corpus(t testing.TB) []entry {
	t.Helper()
	var all []entry
	for _, name := range []string{"go", "javascript", "python"} {
		f, err := os.Open(filepath.Join("testdata", "sigv4", name+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			var e entry
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatal(err)
			}
			for _, p := range e.Body {
				e.body = append(e.body, strings.Repeat(p.text, p.count)...)
			}
			e.Name = name + ": " + e.Name
			all = append(all, e)
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

type corpusKey struct{ AccessKeyID, SecretAccessKey, SessionToken string }

func readCorpusKey(t testing.TB) (key corpusKey) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "sigv4", "key.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &key); err != nil {
		t.Fatal(err)
	}
	return key
}

// signingKeys is a store with one signing key, which is not of its own making.
func signingKeys(t testing.TB, key corpusKey) *SigningKeys {
	t.Helper()
	keys, err := OpenKeys(filepath.Join(t.TempDir(), "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := NewSealer(NewSealingKey())
	if err != nil {
		t.Fatal(err)
	}
	spec := Key{ID: key.AccessKeyID, Subject: "user-17", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}), Models: []string{"anthropic.*"},
		Sealed: sealer.seal(key.AccessKeyID, key.SecretAccessKey)}
	if err := keys.change(func(list []Key) ([]Key, error) { return append(list, spec), nil }); err != nil {
		t.Fatal(err)
	}
	return NewSigningKeys(keys, sealer)
}

// wire is the request as it goes over the connection.
func (e *entry) wire() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", e.Method, e.Target)
	for _, h := range e.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	if e.Chunked {
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(e.body), e.body)
		return b.Bytes()
	}
	b.WriteString("\r\n")
	return append(b.Bytes(), e.body...)
}

// request reads the request as a server does.
func (e *entry) request() (*http.Request, error) {
	return http.ReadRequest(bufio.NewReader(bytes.NewReader(e.wire())))
}

// date is when the entry was signed.
func (e *entry) date(t testing.TB) time.Time {
	t.Helper()
	date := ""
	for _, h := range e.Headers {
		if strings.EqualFold(h[0], "X-Amz-Date") {
			date = h[1]
		}
	}
	if _, rest, ok := strings.Cut(e.Target, "X-Amz-Date="); ok {
		date = rest[:len(dateFormat)]
	}
	at, err := time.Parse(dateFormat, date)
	if err != nil {
		t.Fatalf("%s: %v", e.Name, err)
	}
	return at
}

// plain is the body that the gateway must see: without the framing of signed chunks.
func (e *entry) plain() []byte {
	if !bytes.Contains(e.body, []byte(";chunk-signature=")) {
		return e.body
	}
	var plain []byte
	for rest := e.body; ; {
		var size int
		fmt.Sscanf(string(rest[:min(len(rest), 10)]), "%x;", &size)
		_, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if size == 0 {
			return plain
		}
		plain, rest = append(plain, rest[:size]...), rest[size+2:]
	}
}

// readAsGateway reads a body as internal/gateway does: to Content-Length, if there is
// one, and no further.
func readAsGateway(r *http.Request) ([]byte, error) {
	if r.ContentLength < 0 {
		return io.ReadAll(r.Body)
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

// take authenticates a request and reads its body.
func take(v *SigV4, r *http.Request) (waybill.Principal, []byte, error) {
	p, err := v.Authenticate(r)
	if err != nil {
		return waybill.Principal{}, nil, err
	}
	body, err := readAsGateway(r)
	return p, body, err
}

func (e *entry) verifier(t testing.TB, keys *SigningKeys) *SigV4 {
	at := e.date(t)
	return NewSigV4(keys, SigV4Config{UnsignedEmpty: e.Want == "unsigned-empty", Secure: func(*http.Request) bool { return true }, Now: func() time.Time { return at }})
}

// Requests that SDKs of three languages signed are taken, and their bodies arrive as
// they were before they were framed, however they are read.
func TestCorpus(t *testing.T) {
	keys := signingKeys(t, readCorpusKey(t))
	signers, taken, refused := make(map[string]int), 0, 0
	for _, e := range corpus(t) {
		signers[e.Signer]++
		t.Run(e.Name, func(t *testing.T) {
			r, err := e.request()
			if err != nil {
				t.Fatal(err)
			}
			if !Signed(r) {
				t.Error("it is not seen to be signed")
			}
			p, body, err := take(e.verifier(t, keys), r)
			switch e.Want {
			case "path":
				if got := reasonOf(err); got != ReasonPath {
					t.Fatalf("want a refusal for its path, got %v", err)
				}
				refused++
				return
			case "WB1003":
				if we, ok := errors.AsType[*waybill.Error](err); !ok || we.Code != "WB1003" {
					t.Fatalf("want WB1003, got %v", err)
				}
				refused++
				return
			}
			taken++
			if err != nil {
				t.Fatal(err)
			}
			want := e.plain()
			if !bytes.Equal(body, want) || r.ContentLength >= 0 && r.ContentLength != int64(len(want)) {
				t.Errorf("the body has %d bytes, want %d", len(body), len(want))
			}
			if p.Subject != "user-17" || p.Method != "sigv4" || p.KeyID != "WBSKCORPUSEXAMPLE234" || p.Tags.Len() != 1 || len(p.Models) != 1 {
				t.Errorf("principal: %+v", p)
			}
			if strings.Contains(r.RequestURI+r.URL.RawQuery, "X-Amz-") || strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
				t.Errorf("the proof is still on the request: %s", r.RequestURI)
			}
			if len(want) > 1<<20 {
				return
			}
			r, _ = e.request()
			if _, err := e.verifier(t, keys).Authenticate(r); err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(iotest.OneByteReader(r.Body)); err != nil || !bytes.Equal(body, want) {
				t.Errorf("byte by byte: %d bytes, %v", len(body), err)
			}
		})
	}
	t.Logf("%d entries taken, %d refused on purpose, of %v", taken, refused, signers)
}

func reasonOf(err error) Reason {
	r, _ := errors.AsType[*Refusal](err)
	if r == nil {
		return ""
	}
	return r.Reason
}

// A place is somewhere in a request where a byte is changed.
type place struct {
	what  string
	at    int
	field func(*entry) *string
	body  bool
}

// places are where the bytes of an entry are changed: ends, middle, and some between.
func (e *entry) places(t testing.TB) []place {
	var all []place
	add := func(what string, n, count int, field func(*entry) *string) {
		var at []int
		for i := range min(n, count) {
			at = append(at, i*(n-1)/max(1, min(n, count)-1))
		}
		for _, i := range slices.Compact(at) {
			all = append(all, place{what, i, field, false})
		}
	}
	add("method", len(e.Method), 2, func(e *entry) *string { return &e.Method })
	path, query, _ := strings.Cut(e.Target, "?")
	target := func(e *entry) *string { return &e.Target }
	add("path", len(path), 8, target)
	if query != "" {
		before := len(all)
		add("query", len(query), 40, target)
		for i := range all[before:] {
			all[before+i].at += len(path) + 1
		}
	}
	_, names, _ := strings.Cut(e.Target, "X-Amz-SignedHeaders=")
	names, _, _ = strings.Cut(strings.ReplaceAll(names, "%3B", ";"), "&")
	for _, h := range e.Headers {
		if strings.EqualFold(h[0], "Authorization") {
			_, names, _ = strings.Cut(h[1], "SignedHeaders=")
			names, _, _ = strings.Cut(names, ",")
		}
	}
	if names == "" {
		t.Fatalf("%s: no signed headers", e.Name)
	}
	for i, h := range e.Headers {
		lower := strings.ToLower(h[0])
		switch {
		case lower == "authorization":
			add(lower, len(h[1]), 40, func(e *entry) *string { return &e.Headers[i][1] })
		case slices.Contains(strings.Split(names, ";"), lower):
			add(lower, len(h[1]), 4, func(e *entry) *string { return &e.Headers[i][1] })
			if lower != "host" && lower != "content-length" { // without these it is another kind of request
				add("name of "+lower, len(h[0]), 1, func(e *entry) *string { return &e.Headers[i][0] })
			}
		}
	}
	before := len(all)
	add("body", len(e.body), 12, nil)
	for i := range all[before:] {
		all[before+i].body = true
	}
	if n := bytes.Index(e.body, []byte(";chunk-signature=")); n >= 0 { // the framing, byte by byte
		for i := range min(len(e.body), n+17+64+2) {
			all = append(all, place{"framing", i, nil, true})
		}
		last := bytes.LastIndex(e.body, []byte(";chunk-signature="))
		for i := max(0, last-3); i < len(e.body); i++ {
			all = append(all, place{"last chunk", i, nil, true})
		}
	}
	return all
}

// other is another byte of the same kind, never the same letter in another case.
func other(b byte) byte {
	switch {
	case b >= '0' && b < '9' || b >= 'a' && b < 'z' || b >= 'A' && b < 'Z':
		return b + 1
	case b == '9', b == 'z', b == 'Z':
		return b - 1
	case b == '%':
		return '4' // an escape no more
	}
	return 'x'
}

func (e *entry) changed(p place) entry {
	c := *e
	c.Headers = slices.Clone(e.Headers)
	if p.body {
		c.body = slices.Clone(e.body)
		c.body[p.at] = other(c.body[p.at])
		return c
	}
	s := p.field(&c)
	b := []byte(*s)
	b[p.at] = other(b[p.at])
	*s = string(b)
	return c
}

// Each entry with one byte changed is refused, wherever the byte is, and at most of it
// is read as a body before.
func TestCorpusWithOneByteChanged(t *testing.T) {
	keys := signingKeys(t, readCorpusKey(t))
	total, least := 0, 1<<30
	for _, e := range corpus(t) {
		if e.Want == "path" || e.Want == "WB1003" {
			continue
		}
		judged := 0
		places := e.places(t)
		if len(e.body) > 1<<20 { // they take long; all places are tried on smaller ones
			some := places[:0]
			for i := range 24 {
				some = append(some, places[i*(len(places)-1)/23])
			}
			places = some
		}
		for _, p := range places {
			c := e.changed(p)
			r, err := c.request()
			if err != nil {
				continue // no server would have handed it on
			}
			v := e.verifier(t, keys)
			_, _, err = take(v, r)
			if err == nil {
				t.Errorf("%s: taken with another byte at %s %d", e.Name, p.what, p.at)
				continue
			}
			judged++
		}
		if judged < 20 {
			t.Errorf("%s: changed at %d places, want 20 or more", e.Name, judged)
		}
		total, least = total+judged, min(least, judged)
	}
	t.Logf("%d changes refused, at least %d an entry", total, least)
}
