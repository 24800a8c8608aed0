package identity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A claimPath leads to a claim of a token, by the names of the members on the way.
type claimPath []string

// parseClaimPath reads how a configuration names a claim. The text alone says where it
// leads, whatever the token holds, so that no claim can be made to stand for another:
//
//   - /a/b is a JSON Pointer (RFC 6901): ~1 is a solidus, ~0 a tilde; for any name at all;
//   - a name with :// in it is one name: https://example.com/roles;
//   - with a solidus it is a path, whose names may have dots: kubernetes.io/serviceaccount/name;
//   - otherwise dots part the names: realm_access.roles.
func parseClaimPath(text string) (claimPath, error) {
	var p claimPath
	switch {
	case strings.HasPrefix(text, "/"):
		for name := range strings.SplitSeq(text[1:], "/") {
			p = append(p, strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~"))
		}
	case strings.Contains(text, "://"):
		p = claimPath{text}
	case strings.Contains(text, "/"):
		p = strings.Split(text, "/")
	default:
		p = strings.Split(text, ".")
	}
	if slices.Contains(p, "") {
		return nil, fmt.Errorf("%q does not name a claim: write groups, realm_access.roles, kubernetes.io/namespace or a JSON Pointer", text)
	}
	return p, nil
}

// find is what a path leads to; nil if there is nothing.
func (p claimPath) find(claims map[string]any) any {
	var v any = claims
	for _, name := range p {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

// text is a claim as the text that policies see. A list becomes its distinct elements in
// order, joined by commas: issuers give groups in any order, and one caller should have
// one text. A comma within an element is written %2C, so that an element cannot pass for
// two. Objects, and lists of other than texts and numbers, have no text.
func (p claimPath) text(claims map[string]any) (s string, ok bool) {
	v := p.find(claims)
	list, isList := v.([]any)
	if !isList {
		return plainText(v)
	}
	var parts []string
	for _, e := range list {
		part, ok := plainText(e)
		if !ok {
			return "", false
		}
		parts = append(parts, strings.ReplaceAll(part, ",", "%2C"))
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ","), len(parts) > 0
}

func plainText(v any) (s string, ok bool) {
	switch v := v.(type) {
	case string:
		return v, v != ""
	case json.Number:
		return v.String(), true
	case bool:
		return fmt.Sprint(v), true
	}
	return "", false
}

// maxSubject bounds what callers are named by.
const maxSubject = 255

// isName reports whether a text can name a caller: in records, in reports, on a
// terminal.
func isName(s string) bool {
	return s != "" && len(s) <= maxSubject && isPlain(s) && strings.TrimSpace(s) == s
}

// isPlain reports whether a text has nothing in it that a log or a terminal would obey.
func isPlain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
	})
}
