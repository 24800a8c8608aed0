package policy

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"iter"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-dev/waybill"
)

// An Epoch is a time for which one secret makes the pseudonyms. Rotating the secret
// begins a new epoch; destroying it makes the pseudonyms of that epoch unresolvable for
// good, which is how people are forgotten.
type Epoch struct {
	// ID is part of every pseudonym of the epoch: 1 to 8 letters and digits.
	ID string `json:"epoch"`
	// Key is the secret, 16 bytes or more; empty once it is destroyed.
	Key []byte `json:"key,omitempty"`
	// From is when the epoch begins; zero is always.
	From time.Time `json:"from,omitzero"`
	// Destroyed is when the secret was given up.
	Destroyed *time.Time `json:"destroyed,omitempty"`
}

const minHashKey = 16

var epochID = regexp.MustCompile(`^[A-Za-z0-9]{1,8}$`)

// ParseEpochs reads a file of epochs, one JSON object a line. Mistakes name the line
// and never repeat it.
func ParseEpochs(file string, src []byte) ([]Epoch, error) {
	var out []Epoch
	var errs []error
	for i, line := range bytes.Split(src, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		bad := func(what string) { errs = append(errs, fmt.Errorf("%s:%d: %s", file, i+1, what)) }
		var e Epoch
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		switch err := d.Decode(&e); {
		case err != nil || d.More():
			bad("is not an epoch: write epoch, key (base64) and from; waybill policy epochs new does")
		case !epochID.MatchString(e.ID):
			bad("an epoch is named by 1 to 8 letters and digits")
		case slices.ContainsFunc(out, func(o Epoch) bool { return o.ID == e.ID }):
			bad("epoch " + e.ID + " is there twice")
		case e.Destroyed == nil && len(e.Key) < minHashKey:
			bad("the key of epoch " + e.ID + " is shorter than 16 bytes")
		case e.Destroyed != nil && len(e.Key) > 0:
			bad("epoch " + e.ID + " is destroyed and still has its key")
		default:
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b Epoch) int { return a.From.Compare(b.From) })
	return out, errors.Join(errs...)
}

// An epoch in use keeps hashes that know its key.
type epoch struct {
	Epoch
	macs sync.Pool
}

func (e Epoch) use() *epoch {
	in := &epoch{Epoch: e}
	in.macs.New = func() any { return hmac.New(sha256.New, in.Key) }
	return in
}

// mac is the HMAC-SHA-256 of a text.
func (e *epoch) mac(text []byte) (sum [sha256.Size]byte) {
	m := e.macs.Get().(hash.Hash)
	defer e.macs.Put(m)
	m.Reset()
	m.Write(text)
	m.Sum(sum[:0])
	return sum
}

func (p *Policy) addEpochs(o Options) error {
	all := slices.Clone(o.Epochs)
	if len(o.HashKey) > 0 {
		if len(o.HashKey) < minHashKey {
			return &waybill.Error{Kind: waybill.Misused, Message: "hashKey is shorter than 16 bytes", Hint: "waybill policy epochs new makes a good one"}
		}
		if slices.ContainsFunc(all, func(e Epoch) bool { return e.ID == "1" }) {
			return &waybill.Error{Kind: waybill.Misused, Message: "hashKey is epoch 1, and hashKeys has an epoch 1 as well", Hint: "keep one of the two"}
		}
		all = append([]Epoch{{ID: "1", Key: o.HashKey}}, all...)
	}
	slices.SortStableFunc(all, func(a, b Epoch) int { return a.From.Compare(b.From) })
	for _, e := range all {
		p.epochs = append(p.epochs, e.use())
	}
	return nil
}

func (p *Policy) canHash() bool {
	return slices.ContainsFunc(p.epochs, func(e *epoch) bool { return e.Destroyed == nil })
}

// epochAt is the epoch of a time: the newest that has begun and is not destroyed, or
// the first that is not. The zero time is the newest of all.
func (p *Policy) epochAt(at time.Time) *epoch {
	var first *epoch
	for _, e := range slices.Backward(p.epochs) {
		if e.Destroyed != nil {
			continue
		}
		if at.IsZero() || !at.Before(e.From) {
			return e
		}
		first = e
	}
	return first
}

// digestDigits are the hexadecimal digits of a pseudonym: 80 bits, so that a million
// people have distinct ones.
const digestDigits = 20

func (p *Policy) pseudonymLength() int {
	n := 0
	for _, e := range p.epochs {
		n = max(n, len("h")+len(e.ID)+len("-")+digestDigits)
	}
	return n
}

// pseudonym is a stable name for a value that must not be seen: hEPOCH- and 20
// hexadecimal digits of its HMAC-SHA-256 under the epoch's secret, told apart by key.
func (e *epoch) pseudonym(key, value string) string {
	var scratch [128]byte
	text := append(append(append(scratch[:0], key...), 0), value...)
	sum := e.mac(text)
	out := append(append(append(text[:0], 'h'), e.ID...), '-')
	return string(hex.AppendEncode(out, sum[:digestDigits/2]))
}

var pseudonymPattern = regexp.MustCompile(`^h([A-Za-z0-9]{1,8})-[0-9a-f]{20}$`)

// IsPseudonym reports whether a value has the form of a pseudonym, and of which epoch.
func IsPseudonym(value string) (epoch string, ok bool) {
	m := pseudonymPattern.FindStringSubmatch(value)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// Resolve finds who is behind a pseudonym of a key, among candidates: a keyed hash can
// be checked, not reversed. Whoever calls it must leave a record.
func Resolve(epochs []Epoch, key, pseudonym string, candidates iter.Seq[string]) (value string, found bool, err error) {
	id, ok := IsPseudonym(pseudonym)
	if !ok {
		return "", false, &waybill.Error{Kind: waybill.Misused, Message: "that is not a pseudonym", Hint: "it looks like h1-0123456789abcdef0123"}
	}
	i := slices.IndexFunc(epochs, func(e Epoch) bool { return e.ID == id })
	if i < 0 {
		return "", false, &waybill.Error{Kind: waybill.NotFound, Message: "the secret of epoch " + id + " is not among the epochs given", Hint: "give the gateway's hashKeys file"}
	}
	if at := epochs[i].Destroyed; at != nil {
		return "", false, &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("the secret of epoch %s was destroyed on %s: nobody can tell who is behind its pseudonyms", id, at.Format(time.DateOnly))}
	}
	in := epochs[i].use()
	for c := range candidates {
		for _, text := range []string{c, strings.ToLower(c)} { // a key may fold case, which the policy knows
			if hmac.Equal([]byte(in.pseudonym(key, text)), []byte(pseudonym)) {
				return c, true, nil
			}
		}
	}
	return "", false, nil
}

// digestName names what has no secret to be hashed with: a last resort, so that at
// least it is not read by everyone who sees a bill.
func digestName(value string) string {
	sum := sha256.Sum256([]byte(value))
	return "id-" + hex.EncodeToString(sum[:8])
}

// clipKey shortens a key that a stranger sent.
func clipKey(s string) string {
	if len(s) > 40 {
		s = strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}
