package bedrock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/waybill-dev/waybill"
)

// A Body is what one pass over a request body finds. Offsets are into the body.
type Body struct {
	Model  waybill.ModelID // top-level member model (modelId of async invoke)
	Stream bool            // top-level member stream
	Tier   string          // serviceTier.type or service_tier
	// LatencyMode is performanceConfig.latency.
	LatencyMode string
	// Metadata is the caller's own requestMetadata, which Stamp will replace.
	Metadata waybill.Tags

	src         []byte
	metadata    span
	model       span
	open, first int  // offset after the opening brace; of the first member, or of the closing brace
	empty       bool // no members
	options     span // stream_options
	hasOptions  bool
	usageAsked  bool
}

type span struct {
	nameStart, valueStart, valueEnd int
	found                           bool
}

// ReadBody reads a request body once, strictly: it must be one JSON object in UTF-8
// without two members of one name. A parser that is laxer than AWS's could be made to
// stamp one member while AWS reads another. Errors are *waybill.Error of kind Invalid.
func ReadBody(src []byte, r Route) (*Body, error) {
	b := &Body{src: src}
	if err := b.read(r); err != nil {
		if e := (*waybill.Error)(nil); errors.As(err, &e) {
			return nil, err
		}
		return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1201", Err: err,
			Message: "the request body is not one JSON object: " + plainCause(err),
			Hint:    "send one object, in UTF-8, without duplicate members"}
	}
	return b, nil
}

func plainCause(err error) string {
	text := strings.TrimPrefix(err.Error(), "jsontext: ")
	if i := strings.IndexByte(text, '"'); i >= 0 { // never repeat what the caller wrote
		text = strings.TrimSpace(text[:i])
	}
	return text
}

func (b *Body) read(r Route) error {
	d := jsontext.NewDecoder(bytes.NewReader(b.src))
	t, err := d.ReadToken()
	if err != nil {
		return err
	}
	if t.Kind() != '{' {
		return errors.New("it begins with something else")
	}
	b.open = int(d.InputOffset())
	b.empty = true
	for d.PeekKind() != '}' {
		nameStart := skipBlank(b.src, int(d.InputOffset()))
		if !b.empty {
			nameStart = skipBlank(b.src, nameStart+1) // after the comma
		} else {
			b.first = nameStart
		}
		b.empty = false
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		key := name.String()
		d.PeekKind() // so that the offset is that of the value
		valueStart := skipBlank(b.src, int(d.InputOffset()))
		valueStart = skipBlank(b.src, valueStart+1) // after the colon
		v, err := d.ReadValue()
		if err != nil {
			return err
		}
		s := span{nameStart, valueStart, valueStart + len(v), true}
		if err := b.member(key, v, s, r); err != nil {
			return err
		}
	}
	if b.empty {
		b.first = skipBlank(b.src, b.open)
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

func skipBlank(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

func (b *Body) member(key string, v jsontext.Value, s span, r Route) error {
	if r.ModelInBody && key == modelMember(r) {
		b.Model, b.model = waybill.ModelID(text(v)), s
		return nil
	}
	switch key {
	case "requestMetadata":
		if r.Carrier != MetadataBody {
			return nil
		}
		b.metadata = s
		tags, err := metadataOf(v)
		if err != nil {
			return err
		}
		b.Metadata = tags
	case "stream":
		b.Stream = v.Kind() == 't'
	case "service_tier":
		b.Tier = text(v)
	case "serviceTier":
		b.Tier = text(member(v, "type"))
	case "performanceConfig":
		b.LatencyMode = text(member(v, "latency"))
	case "stream_options":
		b.options, b.hasOptions = s, true
		b.usageAsked = string(member(v, "include_usage")) == "true"
	}
	return nil
}

// modelMember is the one member that AWS reads the model from. Reading another one as
// well would let a caller show us one model and AWS a second.
func modelMember(r Route) string {
	if r.Operation == StartAsyncInvoke {
		return "modelId"
	}
	return "model"
}

// member is the raw value of an object's member of exactly that name, as AWS compares
// names: encoding/json would take another case for the same.
func member(v jsontext.Value, name string) jsontext.Value {
	var m map[string]json.RawMessage
	if len(v) == 0 || json.Unmarshal(v, &m) != nil {
		return nil
	}
	return jsontext.Value(m[name])
}

func text(v jsontext.Value) string {
	var s string
	if len(v) == 0 || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// metadataOf reads a map of strings. Null counts as absent.
func metadataOf(v jsontext.Value) (waybill.Tags, error) {
	if v.Kind() == 'n' {
		return waybill.Tags{}, nil
	}
	if len(v) > maxMetadata {
		return waybill.Tags{}, &waybill.Error{Kind: waybill.Invalid, Code: "WB1202",
			Message: "request metadata is longer than Bedrock takes", Hint: "send at most 16 entries of 256 characters each"}
	}
	var read map[string]*string // a null value is no string
	err := json.Unmarshal(v, &read)
	m := make(map[string]string, len(read))
	for key, value := range read {
		if value == nil {
			err = errors.New("a value is null")
			break
		}
		m[key] = *value
	}
	if err != nil {
		return waybill.Tags{}, &waybill.Error{Kind: waybill.Invalid, Code: "WB1202",
			Message: "request metadata is not an object of strings", Hint: "write {\"key\": \"value\"}, both strings"}
	}
	return waybill.TagsFromMap(m), nil
}

// ParseMetadata reads the value of the request metadata header. Duplicate keys are
// refused, as ReadBody refuses them.
func ParseMetadata(header string) (waybill.Tags, error) {
	v := jsontext.Value(header)
	if len(header) > maxMetadataHeader || !v.IsValid() {
		return waybill.Tags{}, &waybill.Error{Kind: waybill.Invalid, Code: "WB1203",
			Message: MetadataHeaderName + " is not a JSON object of at most 8,500 characters without duplicate keys",
			Hint:    `write {"key": "value"}, both strings`}
	}
	return metadataOf(v)
}

const (
	maxMetadataHeader = 8500
	// maxMetadata bounds what is read of the body's member: far beyond AWS's 16 entries,
	// however they are escaped. A member as large as a body may be takes a gigabyte to read.
	maxMetadata = 64 << 10
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
		out := make([]byte, 0, len(b.src)+256*tags.Len())
		out = append(out, b.src[:m.valueStart]...)
		out = tags.AppendJSON(out)
		return append(out, b.src[m.valueEnd:]...)
	}
	out := make([]byte, 0, len(b.src)+32+64*tags.Len())
	out = append(out, b.src[:b.open]...)
	out = append(out, `"requestMetadata":`...)
	out = tags.AppendJSON(out)
	if !b.empty {
		out = append(out, ',')
	}
	return append(out, b.src[b.open:]...)
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
	out := make([]byte, 0, len(b.src))
	out = append(out, b.src[:start]...)
	return append(out, b.src[end:]...)
}

// WithModel is the body with another model: the member's value replaced. No other byte
// moves. A body that names no model stays without one: AWS refuses it.
func (b *Body) WithModel(id string) []byte {
	if !b.model.found {
		return b.src
	}
	out := make([]byte, 0, len(b.src)+len(id))
	out = append(out, b.src[:b.model.valueStart]...)
	out = append(out, marshal(id)...)
	return append(out, b.src[b.model.valueEnd:]...)
}

// AsksUsage reports whether a Chat Completions stream was asked to end with its usage.
func (b *Body) AsksUsage() bool { return b.usageAsked }

// WithUsage is the body with stream_options.include_usage set, for streams whose
// caller left it out: without it the stream tells no usage. It fails where
// stream_options is there and is not an object.
func (b *Body) WithUsage() ([]byte, error) {
	const ask = `"include_usage":true`
	out := make([]byte, 0, len(b.src)+64)
	if !b.hasOptions {
		out = append(out, b.src[:b.open]...)
		out = append(out, `"stream_options":{`+ask+`}`...)
		if !b.empty {
			out = append(out, ',')
		}
		return append(out, b.src[b.open:]...), nil
	}
	v := b.src[b.options.valueStart:b.options.valueEnd]
	var options map[string]json.RawMessage
	if string(v) == "null" {
		options = map[string]json.RawMessage{}
	} else if err := json.Unmarshal(v, &options); err != nil {
		return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1204", Message: "stream_options is not an object"}
	}
	out = append(out, b.src[:b.options.valueStart]...)
	switch _, there := options["include_usage"]; {
	case len(options) == 0:
		out = append(out, "{"+ask+"}"...)
	case there: // it says false: the object is written anew
		options["include_usage"] = json.RawMessage("true")
		text, err := json.Marshal(options)
		if err != nil {
			return nil, fmt.Errorf("write stream_options: %w", err)
		}
		out = append(out, text...)
	default:
		out = append(out, "{"+ask+","...)
		out = append(out, v[1:]...)
	}
	return append(out, b.src[b.options.valueEnd:]...), nil
}
