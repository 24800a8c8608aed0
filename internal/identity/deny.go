package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Denial is a line of the deny list: one thing that proves nothing any more.
type Denial struct {
	// Exactly one of these says what is denied.
	Subject string `json:"subject,omitempty"` // a caller, whatever the proof
	Token   string `json:"jti,omitempty"`     // one token, by its id
	Key     string `json:"key,omitempty"`     // a gateway key or signing key, by its id
	Serial  string `json:"serial,omitempty"`  // a certificate, by its serial number in hexadecimal
	SPKI    string `json:"spki,omitempty"`    // a public key, by the SHA-256 of its SubjectPublicKeyInfo in hexadecimal

	// Issuer narrows Subject and Token to one issuer, and Serial to the authority with
	// that distinguished name as `openssl x509 -issuer -nameopt RFC2253` prints it.
	// Without it every issuer is meant.
	Issuer string `json:"issuer,omitempty"`
	// Until is when the line may be forgotten: a token that has expired by then.
	Until *time.Time `json:"until,omitempty"`
	// Note is for people.
	Note string `json:"note,omitempty"`
}

// what names the kind and the thing of a denial, if it is one.
func (d *Denial) what() (of deniedThing, ok bool) {
	n := 0
	for kind, id := range map[string]string{"subject": d.Subject, "jti": d.Token, "key": d.Key, "serial": normalHex(d.Serial), "spki": normalHex(d.SPKI)} {
		if id != "" {
			of, n = deniedThing{kind, id, d.Issuer}, n+1
		}
	}
	if d.SPKI != "" && len(of.id) != 64 {
		return of, false
	}
	return of, n == 1
}

// normalHex takes off what tools put into hexadecimal numbers: colons, capitals, zeros
// in front of a serial number (never of a hash, which is as long as it is).
func normalHex(s string) string {
	s = strings.ToLower(strings.ReplaceAll(s, ":", ""))
	if len(s) == 64 {
		return s
	}
	return strings.TrimLeft(s, "0")
}

type deniedThing struct{ kind, id, issuer string }

// A DenyList is a file of denials, one JSON object a line; blank lines and lines that
// begin with # are left out. It is read again when it changes: a denial is in force
// within two seconds, for tokens that were accepted before as well. If the file becomes
// unreadable or goes away, the denials that were read last stay in force, and Err tells.
type DenyList struct {
	watch
	mu  sync.Mutex // guards reading again
	set atomic.Pointer[denySet]
	err atomic.Pointer[error]
}

type denySet struct {
	until map[deniedThing]*time.Time
	stamp stamp
}

// OpenDenyList opens a deny list. The file must exist, if empty: a mistyped name would
// otherwise deny nobody. Mistakes name the line.
func OpenDenyList(path string) (*DenyList, error) {
	d := &DenyList{watch: watch{path: path, now: time.Now}}
	if err := d.load(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *DenyList) load() error {
	set := &denySet{until: make(map[deniedThing]*time.Time), stamp: stampOf(d.path)}
	raw, err := os.ReadFile(d.path)
	if err != nil {
		return fmt.Errorf("read deny list: %w", err)
	}
	n := 0
	for line := range bytes.Lines(raw) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		var denial Denial
		dec := json.NewDecoder(bytes.NewReader(line))
		dec.DisallowUnknownFields()
		err := dec.Decode(&denial)
		if _, end := dec.Token(); err == nil && !errors.Is(end, io.EOF) {
			err = errors.New("one object a line")
		}
		of, ok := denial.what()
		if err != nil || !ok {
			return fmt.Errorf("read deny list: %s:%d is not a denial: a line has one of subject, jti, key, serial and spki, and may have issuer, until and note", d.path, n)
		}
		set.until[of] = denial.Until
	}
	d.set.Store(set)
	return nil
}

// Err says why the file could not be read again, for readiness: what was read last is
// in force.
func (d *DenyList) Err() error {
	if d == nil {
		return nil
	}
	d.fresh()
	if err := d.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Len is how many denials are in force or will be forgotten.
func (d *DenyList) Len() int {
	if d == nil {
		return 0
	}
	return len(d.fresh().until)
}

func (d *DenyList) fresh() *denySet {
	set := d.set.Load()
	if !d.due() || !set.stamp.changed(d.path) {
		return set
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		d.err.Store(&err)
	} else {
		d.err.Store(nil)
	}
	return d.set.Load()
}

// denies reports whether a thing is on the list, for its issuer or for all.
func (s *denySet) denies(now time.Time, kind, id, issuer string) bool {
	if id == "" {
		return false
	}
	for _, of := range [2]deniedThing{{kind, id, issuer}, {kind, id, ""}} {
		if until, ok := s.until[of]; ok && (until == nil || now.Before(*until)) {
			return true
		}
	}
	return false
}

// deniesAll reports whether none of the chains of a client certificate is free of
// certificates on the list. A denied authority denies what it issued.
func (s *denySet) deniesAll(now time.Time, chains [][]*x509.Certificate) bool {
	for _, chain := range chains {
		good := true
		for _, cert := range chain {
			good = good && !s.denies(now, "serial", cert.SerialNumber.Text(16), cert.Issuer.String()) && !s.denies(now, "spki", spkiOf(cert), "")
		}
		if good {
			return false
		}
	}
	return true
}

// denied reports whether a principal, or the proof it came with, is on the list.
func (d *DenyList) denied(p *principal) bool {
	if d == nil {
		return false
	}
	set := d.fresh()
	if len(set.until) == 0 {
		return false
	}
	now := d.now()
	return set.denies(now, "subject", p.Subject, p.Issuer) || set.denies(now, "jti", p.jti, p.Issuer) || set.denies(now, "key", p.KeyID, p.Issuer) ||
		len(p.chains) > 0 && set.deniesAll(now, p.chains)
}
