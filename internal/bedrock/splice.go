package bedrock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/waybill-dev/waybill"
)

// Stamp is the body with requestMetadata set to tags: the member's value replaced, or
// the member put first. No other byte moves. Without tags the member is taken out:
// AWS refuses an empty map. The body that was read is not changed.
func (b *Body) Stamp(tags waybill.Tags) []byte {
	m := b.metadata
	switch {
	case tags.Len() == 0 && !m.found:
		return b.src
	case tags.Len() == 0:
		return b.without(m)
	case m.found:
		return b.edited(nil, edit{m.valueStart, m.valueEnd, tags.AppendJSON(nil)})
	}
	return b.edited(tags.AppendJSON([]byte(`"requestMetadata":`)))
}

// without cuts a member with its comma: the one after it, or if it is the last the one
// before it.
func (b *Body) without(m span) []byte {
	start, end := m.nameStart, m.valueEnd
	if after := skipBlank(b.src, end); b.src[after] == ',' {
		end = skipBlank(b.src, after+1)
	} else if start != b.first {
		start = bytes.LastIndexByte(b.src[:start], ',')
	}
	return b.edited(nil, edit{start, end, nil})
}

// An edit puts text in the place of a part of the body.
type edit struct {
	from, to int
	text     []byte
}

// edited is the body with the edits, in the order of their places, and with head as its
// first members.
func (b *Body) edited(head []byte, edits ...edit) []byte {
	parts := make([][]byte, 0, 8)
	at := 0
	if len(head) > 0 {
		if !b.empty {
			head = append(head, ',')
		}
		parts = append(parts, b.src[:b.open], head)
		at = b.open
	}
	for _, e := range edits {
		parts = append(parts, b.src[at:e.from], e.text)
		at = e.to
	}
	return bytes.Join(append(parts, b.src[at:]), nil) // which does not clear what it is about to write
}

// WithModel is the body with another model, see Edits.Model.
func (b *Body) WithModel(id string) []byte {
	if e, ok := b.nameModel(id); ok {
		return b.edited(nil, e)
	}
	return b.src
}

func (b *Body) nameModel(id string) (edit, bool) {
	return edit{b.model.valueStart, b.model.valueEnd, marshal(id)}, b.model.found && id != ""
}

// Edits are changes to a body that names its model.
type Edits struct {
	// Model takes the place of the one member that names the model. Empty: it stays. A body
	// that names no model stays without one: AWS refuses it.
	Model string
	// Metadata goes into the top-level member metadata, which bedrock-mantle copies into
	// the CloudTrail event of the call (user guide, "Logging Amazon Bedrock Mantle API
	// calls with CloudTrail"). Empty: the member stays as it came.
	Metadata waybill.Tags
	// Resource goes into the top-level member tags of StartAsyncInvoke (API reference,
	// "StartAsyncInvoke"): what it makes has them. The caller's own stay, but for keys that
	// Resource or Reserved has, in whatever case.
	Resource waybill.Tags
	Reserved []string
	// Usage sets stream_options.include_usage.
	Usage bool
}

// AsksUsage reports whether a Chat Completions stream was asked to end with its usage.
func (b *Body) AsksUsage() bool { return b.usageAsked }

// WithUsage is the body with stream_options.include_usage set, for streams whose
// caller left it out: without it the stream tells no usage. It fails where
// stream_options is there and is not an object.
func (b *Body) WithUsage() ([]byte, error) { return b.Edit(Edits{Usage: true}) }

// StampMetadata is the body with tags in the member metadata, see Edits.Metadata. What
// the caller has put there stays, byte for byte, but for keys that tags have, in
// whatever case: those are the tags'. It fails where metadata is there and is no object
// of strings, and where both together are more than a call can have.
func (b *Body) StampMetadata(tags waybill.Tags) ([]byte, error) { return b.Edit(Edits{Metadata: tags}) }

// Edit is the body with all edits made, at once. No byte outside the members they name
// moves, and the body that was read is not changed. Errors are *waybill.Error of kind
// Invalid.
func (b *Body) Edit(e Edits) ([]byte, error) {
	var head []byte
	var edits []edit
	if change, ok := b.nameModel(e.Model); ok {
		edits = append(edits, change)
	}
	if e.Metadata.Len() > 0 {
		text, err := b.mergedMetadata(e.Metadata)
		if err != nil {
			return nil, err
		}
		if b.own.found {
			edits = append(edits, edit{b.own.valueStart, b.own.valueEnd, text})
		} else {
			head = append([]byte(`"metadata":`), text...)
		}
	}
	if text, change, err := b.mergedResource(e.Resource, e.Reserved); err != nil {
		return nil, err
	} else if change && b.tags.found {
		edits = append(edits, edit{b.tags.valueStart, b.tags.valueEnd, text})
	} else if change {
		head = append([]byte(`"tags":`), text...)
	}
	if e.Usage && !b.usageAsked {
		change, err := b.askUsage()
		switch {
		case err != nil:
			return nil, err
		case b.options.found:
			edits = append(edits, change)
		case len(head) > 0:
			head = append(append(head, ','), change.text...)
		default:
			head = change.text
		}
	}
	if len(head) == 0 && len(edits) == 0 {
		return b.src, nil
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.from - b.from })
	return b.edited(head, edits...), nil
}

// askUsage is the edit that asks for usage: within stream_options, or the whole member
// where there is none.
func (b *Body) askUsage() (edit, error) {
	const ask = `"include_usage":true`
	start := b.options.valueStart
	v := b.src[start:b.options.valueEnd]
	switch {
	case !b.options.found:
		return edit{text: []byte(`"stream_options":{` + ask + `}`)}, nil
	case string(v) == "null":
		return edit{start, b.options.valueEnd, []byte("{" + ask + "}")}, nil
	case v[0] != '{':
		return edit{}, &waybill.Error{Kind: waybill.Invalid, Code: "WB1204", Message: "stream_options is not an object"}
	}
	members, there := 0, edit{}
	err := readObject(v, func(m jsonMember) error {
		if members++; string(m.name) == "include_usage" {
			there = edit{start + m.valueStart, start + m.valueEnd, []byte("true")}
		}
		return nil
	})
	switch {
	case err != nil: // it was read before
		return edit{}, fmt.Errorf("read stream_options: %w", err)
	case there.to > 0:
		return there, nil
	case members == 0:
		return edit{start, b.options.valueEnd, []byte("{" + ask + "}")}, nil
	}
	return edit{start + 1, start + 1, []byte(ask + ",")}, nil
}

// Limits of the member metadata by OpenAI's API reference. Bedrock documents none.
const (
	maxPairs     = 16
	maxPairKey   = 64
	maxPairValue = 512
)

// mergedMetadata is the member metadata with tags first and then what the caller has
// put there under other keys.
func (b *Body) mergedMetadata(tags waybill.Tags) ([]byte, error) {
	for k, v := range tags.All() {
		if utf8.RuneCountInString(k) > maxPairKey || utf8.RuneCountInString(v) > maxPairValue {
			return nil, badMetadata(fmt.Sprintf("tag %q does not fit into the member metadata", clip(k)),
				"keys have at most 64 characters there, values 512: ask the gateway's operator for a shorter one")
		}
	}
	var kept [][]byte // the members that stay
	replaced := false
	var all []byte // of the members, with the blanks between them
	if v := b.src[b.own.valueStart:b.own.valueEnd]; b.own.found && string(v) != "null" {
		start := 0
		err := readObject(v, func(m jsonMember) error {
			if v[m.valueStart] != '"' {
				return errNoStrings
			}
			if start == 0 {
				start = m.nameStart
			}
			all = v[start:m.valueEnd]
			for k := range tags.All() {
				if strings.EqualFold(k, string(m.name)) {
					replaced = true
					return nil
				}
			}
			kept = append(kept, v[m.nameStart:m.valueEnd])
			return nil
		})
		if err != nil {
			return nil, badMetadata("metadata is not an object of strings", `write {"key": "value"}, both strings`)
		}
	}
	if n := tags.Len() + len(kept); n > maxPairs {
		return nil, badMetadata(fmt.Sprintf("metadata would have %d pairs with the gateway's %d, and a call can have %d", n, tags.Len(), maxPairs),
			fmt.Sprintf("send at most %d of your own", max(0, maxPairs-tags.Len())))
	}
	out := tags.AppendJSON(nil)
	out = out[:len(out)-1]
	if replaced {
		all = bytes.Join(kept, []byte{','})
	}
	if len(all) > 0 {
		out = append(append(out, ','), all...)
	}
	return append(out, '}'), nil
}

var errNoStrings = errors.New("a value is no string")

func badMetadata(message, hint string) error {
	return &waybill.Error{Kind: waybill.Invalid, Code: "WB1208", Message: message, Hint: hint}
}

// maxResourceTags is what StartAsyncInvoke takes (API reference, "StartAsyncInvoke").
const maxResourceTags = 200

// A resourceTag is an entry of the member tags.
type resourceTag struct {
	Key   *string `json:"key"`
	Value *string `json:"value"`
}

// resourceTags reads the member tags: a list of keys and values. Null counts as absent.
func resourceTags(v []byte) (waybill.Tags, error) {
	list, err := readResourceTags(v)
	m := make(map[string]string, len(list))
	for _, t := range list {
		m[*t.Key] = *t.Value
	}
	return waybill.TagsFromMap(m), err
}

func readResourceTags(v []byte) ([]resourceTag, error) {
	var list []resourceTag
	d := json.NewDecoder(bytes.NewReader(v))
	d.DisallowUnknownFields()
	err := d.Decode(&list)
	for _, t := range list {
		if t.Key == nil || t.Value == nil {
			err = errors.New("a tag lacks its key or its value")
		}
	}
	if err != nil || len(list) > maxResourceTags {
		return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1211", Message: "tags is not a list of at most 200 keys and values", Hint: `write [{"key": "...", "value": "..."}]`}
	}
	return list, nil
}

// mergedResource is the member tags with tags first and then what the caller has put there
// under other keys. It reports whether that is a change.
func (b *Body) mergedResource(tags waybill.Tags, reserved []string) (text []byte, change bool, err error) {
	var kept []resourceTag
	for k, v := range tags.All() {
		kept = append(kept, resourceTag{&k, &v})
	}
	change = len(kept) > 0
	if b.tags.found {
		list, err := readResourceTags(b.src[b.tags.valueStart:b.tags.valueEnd])
		if err != nil {
			return nil, false, err
		}
		for _, t := range list {
			taken := slices.ContainsFunc(reserved, func(k string) bool { return strings.EqualFold(k, *t.Key) })
			for k := range tags.All() {
				taken = taken || strings.EqualFold(k, *t.Key)
			}
			if change = change || taken; !taken {
				kept = append(kept, t)
			}
		}
	}
	if len(kept) > maxResourceTags {
		return nil, false, &waybill.Error{Kind: waybill.Invalid, Code: "WB1211", Message: fmt.Sprintf("the call would have %d tags with the gateway's %d, and it can have %d", len(kept), tags.Len(), maxResourceTags),
			Hint: fmt.Sprintf("send at most %d of your own", max(0, maxResourceTags-tags.Len()))}
	}
	if kept == nil {
		return []byte("[]"), change, nil
	}
	return marshal(kept), change, nil
}
