package signin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// tagsClaim is where AWS looks for session tags in a token: an object of this name, or
// claims whose names begin with it.
const tagsClaim = "https://aws.amazon.com/tags"

// sessionTags are what a token brings for its session.
type sessionTags struct {
	tags       map[string]string
	transitive []string
}

// readTags reads the session tags of a token, nested or flattened, as STS will. Its
// errors are for the provider's administrator.
func readTags(claims map[string]json.RawMessage) (sessionTags, error) {
	got := sessionTags{tags: make(map[string]string)}
	add := func(key string, raw json.RawMessage) error {
		var v string
		if json.Unmarshal(raw, &v) != nil {
			var list []string
			if json.Unmarshal(raw, &list) != nil || len(list) != 1 {
				return fmt.Errorf("tag %q must have one value, as text or as a list of one text", clean(key))
			}
			v = list[0]
		}
		if _, twice := got.tags[key]; twice {
			return fmt.Errorf("tag %q is given twice, nested and flattened", clean(key))
		}
		got.tags[key] = v
		return nil
	}
	if raw, ok := claims[tagsClaim]; ok {
		var nested struct {
			Principal  map[string]json.RawMessage `json:"principal_tags"`
			Transitive []string                   `json:"transitive_tag_keys"`
		}
		if json.Unmarshal(raw, &nested) != nil {
			return got, errors.New("the claim is not an object with principal_tags and transitive_tag_keys")
		}
		for k, v := range nested.Principal {
			if err := add(k, v); err != nil {
				return got, err
			}
		}
		got.transitive = nested.Transitive
	}
	for name, raw := range claims {
		if key, ok := strings.CutPrefix(name, tagsClaim+"/principal_tags/"); ok {
			if err := add(key, raw); err != nil {
				return got, err
			}
		} else if name == tagsClaim+"/transitive_tag_keys" {
			var list []string
			if json.Unmarshal(raw, &list) != nil {
				return got, errors.New("transitive_tag_keys is not a list of keys")
			}
			got.transitive = append(got.transitive, list...)
		}
	}
	return got, got.check()
}

// check holds tags against STS's limits.
func (t sessionTags) check() error {
	if len(t.tags) > 50 {
		return fmt.Errorf("there are %d tags, and STS takes 50", len(t.tags))
	}
	folded := make(map[string]bool)
	for k, v := range t.tags {
		lower := strings.ToLower(k)
		switch {
		case folded[lower]:
			return fmt.Errorf("two keys differ from %q in case alone", clean(k))
		case strings.HasPrefix(lower, "aws:"):
			return fmt.Errorf("key %q begins with aws:, which is AWS's own", clean(k))
		case !tagText(k, 1, 128):
			return fmt.Errorf("key %q is not 1 to 128 letters, digits, blanks and _.:/=+-@", clean(k))
		case !tagText(v, 0, 256):
			return fmt.Errorf("the value of %q is not up to 256 letters, digits, blanks and _.:/=+-@", clean(k))
		}
		folded[lower] = true
	}
	for _, k := range t.transitive {
		if _, ok := t.tags[k]; !ok {
			return fmt.Errorf("key %q is transitive, and there is no such tag", clean(k))
		}
	}
	return nil
}

// missing are the keys that a profile wants and a token does not bring.
func (t sessionTags) missing(want []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(k string) bool { _, ok := t.tags[k]; return ok })
}

func tagText(s string, least, most int) bool {
	if n := utf8.RuneCountInString(s); n < least || n > most || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.Is(unicode.Z, r) && !strings.ContainsRune("_.:/=+-@", r) {
			return false
		}
	}
	return true
}

// howToAddTags says what an administrator must add to the token.
const howToAddTags = `ask the provider's administrator to add to the ID token of this client
  "https://aws.amazon.com/tags": {"principal_tags": {"team": ["search"]}, "transitive_tag_keys": ["team"]}
  or, flattened, "https://aws.amazon.com/tags/principal_tags/team": "search"; docs/operate/credentials.md says how.
  Then run waybill credentials --logout, and sign in again`

// sessionName fills the template of a session's name with claims, and brings it to what
// STS takes: 2 to 64 letters, digits and _+=,.@-.
func sessionName(template string, claims map[string]json.RawMessage) (string, error) {
	if template == "" {
		template = "{sub}"
	}
	var b strings.Builder
	for rest := template; rest != ""; {
		text, after, found := strings.Cut(rest, "{")
		b.WriteString(text)
		if !found {
			break
		}
		claim, more, closed := strings.Cut(after, "}")
		if !closed {
			return "", misused("write claims in braces, such as {sub} or {email}", "session name %q has a brace that is not closed", template)
		}
		var v string
		if json.Unmarshal(claims[claim], &v) != nil || v == "" {
			return "", signInFailed("use another claim in --session-name, or ask the provider's administrator to add this one", "the token has no claim %q for the session's name", clean(claim))
		}
		b.WriteString(v)
		rest = more
	}
	name := strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("_+=,.@-", r) {
			return r
		}
		return '-'
	}, b.String())
	name = name[:min(len(name), 64)]
	if len(name) < 2 {
		name += "--"[len(name):]
	}
	return name, nil
}
