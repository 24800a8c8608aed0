package policy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/waybill-dev/waybill"
)

// TagsHeader is the header in which a request brings tags: key=value,key=value.
const TagsHeader = "X-Waybill-Tags"

// Bounds of what of a stranger's headers is read.
const (
	maxTagsHeader = 16 << 10
	maxAsked      = 64
)

// tagHeaders are the headers that carry tags, ours first, then those of gateways that
// users move over from: accepting them makes the move one line. Where two bring one
// key, the earlier in this list wins. A key names the tag that the whole value is of.
var tagHeaders = []struct {
	name string // as net/http spells it
	read func(value string) ([]waybill.Tag, bool)
	key  string
}{
	{name: TagsHeader, read: readPairs},
	{name: "X-Litellm-Spend-Logs-Metadata", read: readObject},
	{name: "X-Litellm-Tags", read: readLoosePairs},
	{name: "X-Portkey-Metadata", read: readObject},
	{name: "Cf-Aig-Metadata", read: readObject},
	{name: "X-Openwebui-User-Id", key: "user"},
	{name: "X-Openwebui-User-Email", key: "userEmail"},
	{name: "X-Openwebui-User-Role", key: "userRole"},
	{name: "X-Openwebui-User-Name", key: ""}, // taken off and not read: a person's name
	{name: "X-Openwebui-Chat-Id", key: "session"},
	{name: "X-Openwebui-Message-Id", key: ""},
}

// askedRank orders sources: ours, the request metadata that a client set itself, and
// then the headers of others.
func askedRank(from string) int {
	if from == TagsHeader || strings.EqualFold(from, TagsHeader) { // most are
		return 0
	}
	for i, t := range tagHeaders {
		if strings.EqualFold(from, t.name) {
			return 2 + i
		}
	}
	return 1
}

// Order puts asked tags into the order in which they count: X-Waybill-Tags, the
// client's own request metadata, the headers of other gateways.
func Order(asked []Asked) {
	slices.SortStableFunc(asked, func(a, b Asked) int { return askedRank(a.From) - askedRank(b.From) })
}

// TakeAsked removes every header that carries tags, in every spelling, and returns what
// they asked for. A header that cannot be read is an error that names it.
func TakeAsked(h http.Header) ([]Asked, error) {
	var out []Asked
	var few [4]string
	for _, name := range carrying(h, few[:0]) {
		values := h[name]
		delete(h, name)
		i := headerIndex(name)
		t := &tagHeaders[i]
		for _, v := range values {
			if t.read == nil {
				if t.key != "" && v != "" {
					out = append(out, Asked{t.key, v, t.name})
				}
				continue
			}
			tags, ok := []waybill.Tag(nil), false
			if len(v) <= maxTagsHeader {
				tags, ok = t.read(v)
			}
			if !ok {
				return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1302", Message: "header " + t.name + " cannot be read as tags",
					Hint: "write " + TagsHeader + ": key=value,key=value"}
			}
			out = slices.Grow(out, len(tags))
			for _, tag := range tags {
				out = append(out, Asked{tag.Key, tag.Value, t.name})
			}
		}
		if err := Bounded(out); err != nil {
			return nil, err
		}
	}
	Order(out)
	return out, nil
}

// Bounded is an error if a request asks for more tags than a policy can be meant to judge.
func Bounded(asked []Asked) error {
	if len(asked) <= maxAsked {
		return nil
	}
	return &waybill.Error{Kind: waybill.Invalid, Code: "WB1306", Message: "the request brings more tags than any policy takes", Hint: fmt.Sprintf("send at most %d", maxAsked)}
}

// carrying appends the names of headers that carry tags, as they are spelled, in order.
func carrying(h http.Header, names []string) []string {
	for name := range h {
		if headerIndex(name) >= 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := headerIndex(a) - headerIndex(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}

// headerIndex finds a header under any spelling: in any case, with _ for -.
func headerIndex(name string) int {
	if len(name) < len("x-waybill-tags") {
		return -1
	}
	switch name[0] | 0x20 {
	case 'x', 'c':
	default:
		return -1
	}
next:
	for i := range tagHeaders {
		want := tagHeaders[i].name
		if len(want) != len(name) {
			continue
		}
		for j := range len(want) {
			c := name[j]
			switch {
			case c == '_':
				c = '-'
			case c >= 'A' && c <= 'Z':
				c |= 0x20
			}
			if c != want[j]|0x20 { // letters and hyphens, in lower case
				continue next
			}
		}
		return i
	}
	return -1
}

// readPairs reads key=value,key=value or key:value, with blanks around; or an object.
func readPairs(v string) ([]waybill.Tag, bool) {
	v = strings.TrimSpace(v)
	if strings.HasPrefix(v, "{") {
		return readObject(v)
	}
	out := make([]waybill.Tag, 0, min(1+strings.Count(v, ","), maxAsked))
	for pair := range strings.SplitSeq(v, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, ok := cutPair(pair)
		if !ok {
			return nil, false
		}
		out = append(out, waybill.Tag{Key: key, Value: value})
	}
	return out, true
}

// readLoosePairs is readPairs for tags that need not have a key: LiteLLM's. One without
// is the value of "tag".
func readLoosePairs(v string) ([]waybill.Tag, bool) {
	var out []waybill.Tag
	for pair := range strings.SplitSeq(v, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, ok := cutPair(pair)
		if !ok {
			key, value = "tag", pair
		}
		out = append(out, waybill.Tag{Key: key, Value: value})
	}
	return out, true
}

// cutPair cuts key=value, or where there is no = key:value.
func cutPair(pair string) (key, value string, ok bool) {
	if key, value, ok = strings.Cut(pair, "="); !ok {
		key, value, ok = strings.Cut(pair, ":")
	}
	key = strings.TrimSpace(key)
	return key, strings.TrimSpace(value), ok && key != ""
}

// readObject reads a JSON object of texts, numbers and booleans. Nested values are left
// out; a name that is there twice is refused, since others may read the other one.
func readObject(v string) ([]waybill.Tag, bool) {
	d := jsontext.NewDecoder(strings.NewReader(v))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return nil, false
	}
	var out []waybill.Tag
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, false
		}
		key := name.String()
		switch d.PeekKind() {
		case '"', '0', 't', 'f':
			value, err := d.ReadToken()
			if err != nil {
				return nil, false
			}
			if key != "" {
				out = append(out, waybill.Tag{Key: key, Value: value.String()})
			}
		default:
			if d.SkipValue() != nil {
				return nil, false
			}
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, false
	}
	if _, err := d.ReadToken(); err == nil {
		return nil, false // something follows
	}
	return out, true
}
