package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// What a token may be at most. Tokens of the issuers in docs/operate/callers.md have 1
// to 4 KB and nest five deep; Entra ID's and Keycloak's grow with the groups of a user.
const (
	maxTokenBytes = 16 << 10
	maxTokenDepth = 16
	maxKeyID      = 256
)

// A token is a JSON Web Token in its compact form, read and not yet believed.
//
// Reading and judging is ours, and only the cryptography golang-jwt's: its parser keeps
// the last of two members of one name, ignores crit and typ, and checks nothing that it
// is not asked for. We read once, strictly, so that no two readers can see two tokens.
type token struct {
	alg, kid  string
	hasKid    bool
	claims    map[string]any // numbers are json.Number
	signed    string         // what the signature is over
	signature []byte
}

// readToken reads a token. What it refuses could mean something else to another reader,
// or is not for us at all.
func readToken(raw string) (*token, error) {
	if len(raw) > maxTokenBytes {
		return nil, refuse(ReasonTooLarge)
	}
	parts := strings.SplitN(raw, ".", 6)
	header, err := readPart(parts[0])
	if err != nil {
		return nil, err
	}
	if _, encrypted := header["enc"]; encrypted {
		return nil, refuse(ReasonEncrypted)
	}
	if len(parts) != 3 {
		return nil, refuse(ReasonMalformed)
	}
	t := &token{signed: raw[:len(parts[0])+1+len(parts[1])]}
	if err := t.readHeader(header); err != nil {
		return nil, err
	}
	if t.claims, err = readPart(parts[1]); err != nil {
		return nil, err
	}
	if t.signature, err = decodePart(parts[2]); err != nil {
		return nil, err
	}
	return t, nil
}

// readHeader takes what we need of the header. jwk, jku, x5c and x5u say where a
// stranger would like us to take the key from: they are not looked at.
func (t *token) readHeader(h map[string]any) error {
	if _, ok := h["crit"]; ok {
		return refuse(ReasonCritical)
	}
	if b64, ok := h["b64"]; ok && b64 != true {
		return refuse(ReasonCritical)
	}
	if _, ok := h["zip"]; ok {
		return refuse(ReasonCritical)
	}
	if typ, ok := h["typ"]; ok {
		// RFC 9068 and RFC 8725: a JWT of another type is not an access token, however
		// well it is signed. Most issuers write JWT, or nothing.
		s, ok := typ.(string)
		s = strings.TrimPrefix(strings.ToLower(s), "application/")
		if !ok || s != "jwt" && s != "at+jwt" {
			return refuse(ReasonType)
		}
	}
	if cty, ok := h["cty"]; ok {
		if s, ok := cty.(string); !ok || strings.EqualFold(strings.TrimPrefix(strings.ToLower(s), "application/"), "jwt") {
			return refuse(ReasonType) // a token in a token
		}
	}
	var ok bool
	if t.alg, ok = h["alg"].(string); !ok {
		return refuse(ReasonAlgorithm)
	}
	kid, there := h["kid"]
	if t.kid, t.hasKid = kid.(string); there && (!t.hasKid || t.kid == "" || len(t.kid) > maxKeyID) {
		return refuse(ReasonKeyID)
	}
	return nil
}

func readPart(part string) (map[string]any, error) {
	raw, err := decodePart(part)
	if err != nil {
		return nil, err
	}
	m, err := readObject(raw)
	if err != nil {
		return nil, refuse(ReasonMalformed)
	}
	return m, nil
}

// decodePart decodes base64url as RFC 7515 has it: no padding, no bits left over, and
// no line breaks, which Go's decoder would skip.
func decodePart(part string) ([]byte, error) {
	if strings.ContainsAny(part, "\r\n") {
		return nil, refuse(ReasonMalformed)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, refuse(ReasonMalformed)
	}
	return raw, nil
}

var errDepth = errors.New("nested too deep")

// readObject reads one JSON object and nothing after it. It refuses two members of one
// name, text that is not UTF-8, and more than maxTokenDepth levels.
func readObject(raw []byte) (map[string]any, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(raw))
	v, err := readValue(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	return m, nil
}

func readValue(d *jsontext.Decoder) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '{':
		if d.StackDepth() > maxTokenDepth {
			return nil, errDepth
		}
		m := make(map[string]any)
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String()
			if m[key], err = readValue(d); err != nil {
				return nil, err
			}
		}
		_, err := d.ReadToken()
		return m, err
	case '[':
		if d.StackDepth() > maxTokenDepth {
			return nil, errDepth
		}
		var list []any
		for d.PeekKind() != ']' {
			v, err := readValue(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.ReadToken()
		return list, err
	case '"':
		return t.String(), nil
	case '0':
		return json.Number(t.String()), nil
	case 't', 'f':
		return t.Bool(), nil
	}
	return nil, nil // null
}

// latest is the last second that a time in a token may name: the end of the year 9999.
const latest = 253402300799

// when reads a claim that is a time. It is missing where there is no such claim.
func (t *token) when(claim string) (at time.Time, ok bool, err error) {
	v, there := t.claims[claim]
	if !there {
		return time.Time{}, false, nil
	}
	n, isNumber := v.(json.Number)
	s, err := n.Float64()
	if !isNumber || err != nil || s < 0 || s > latest {
		return time.Time{}, false, refuse(ReasonMalformed)
	}
	whole, part := math.Modf(s)
	return time.Unix(int64(whole), int64(part*1e9)), true, nil
}

// texts reads a claim that is a text or a list of texts, such as aud.
func texts(v any) (list []string, ok bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			list = append(list, s)
		}
		return list, true
	}
	return nil, false
}
