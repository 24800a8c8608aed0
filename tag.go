package waybill

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"iter"
	"slices"
	"strings"
)

// A Tag is a key and a value put on something so that its cost can be found.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Tags is a set of tags, sorted by key, no key twice. The zero value is empty.
// Sets are immutable and may be shared.
type Tags struct{ list []Tag }

// NewTags makes a set. Of two tags with one key the later wins.
func NewTags(tags ...Tag) Tags {
	list := slices.Clone(tags)
	slices.SortStableFunc(list, func(a, b Tag) int { return strings.Compare(a.Key, b.Key) })
	out := list[:0]
	for i, t := range list {
		if i+1 < len(list) && list[i+1].Key == t.Key {
			continue
		}
		out = append(out, t)
	}
	return Tags{out}
}

// TagsFromMap makes a set from a map.
func TagsFromMap(m map[string]string) Tags {
	list := make([]Tag, 0, len(m))
	for k, v := range m {
		list = append(list, Tag{k, v})
	}
	return NewTags(list...)
}

// Len is the number of tags.
func (t Tags) Len() int { return len(t.list) }

// Get is the value of a key. Keys are compared exactly, as in the bill.
func (t Tags) Get(key string) (value string, ok bool) {
	i, ok := slices.BinarySearchFunc(t.list, key, func(a Tag, k string) int { return strings.Compare(a.Key, k) })
	if !ok {
		return "", false
	}
	return t.list[i].Value, true
}

// All yields the tags in the order of their keys.
func (t Tags) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, tag := range t.list {
			if !yield(tag.Key, tag.Value) {
				return
			}
		}
	}
}

// Map is a new map with the same tags.
func (t Tags) Map() map[string]string {
	m := make(map[string]string, len(t.list))
	for _, tag := range t.list {
		m[tag.Key] = tag.Value
	}
	return m
}

// Canonical is the one text of a set: a JSON object with sorted keys and no blanks.
// Equal sets have equal texts. It is the cache key of a role session, the content of
// request metadata, and what ID is a hash of.
func (t Tags) Canonical() string { return string(t.AppendJSON(nil)) }

// AppendJSON appends Canonical to b. The solidus is not escaped: the request
// metadata header counts characters.
func (t Tags) AppendJSON(b []byte) []byte {
	n := 2
	for _, tag := range t.list {
		n += len(tag.Key) + len(tag.Value) + len(`"":"",`)
	}
	b = append(slices.Grow(b, n), '{') // at once, where nothing is to be escaped
	for i, tag := range t.list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONString(b, tag.Key)
		b = append(b, ':')
		b = appendJSONString(b, tag.Value)
	}
	return append(b, '}')
}

// ID names a set by its content: the first 16 bytes of the SHA-256 of Canonical, in
// hexadecimal. The empty set has the empty ID.
func (t Tags) ID() string {
	if len(t.list) == 0 {
		return ""
	}
	sum := sha256.Sum256(t.AppendJSON(nil))
	return hex.EncodeToString(sum[:16])
}

// Equal reports whether two sets hold the same tags.
func (t Tags) Equal(u Tags) bool { return slices.Equal(t.list, u.list) }

// MarshalJSON writes Canonical.
func (t Tags) MarshalJSON() ([]byte, error) { return t.AppendJSON(nil), nil }

// UnmarshalJSON reads an object of strings.
func (t *Tags) UnmarshalJSON(b []byte) error {
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*t = TagsFromMap(m)
	return nil
}

// SortedTags makes a set of a list that is sorted by key, no key twice. The set takes
// the list over: the caller must not change it afterwards.
func SortedTags(list []Tag) Tags { return Tags{list} }

// List is a new list of the tags, in the order of their keys.
func (t Tags) List() []Tag { return slices.Clone(t.list) }
