package bedrock

import (
	"bytes"
	"errors"
	"unicode/utf8"

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

	// Resource is what the caller put into tags, of StartAsyncInvoke.
	Resource waybill.Tags

	src         []byte
	tags        span // of StartAsyncInvoke
	metadata    span // requestMetadata
	own         span // metadata, of OpenAI's shapes
	model       span // the member that names the model
	open, first int  // offset after the opening brace; of the first member, or of the closing brace
	empty       bool // no members
	options     span // stream_options
	usageAsked  bool
}

type span struct {
	nameStart, valueStart, valueEnd int
	found                           bool
}

// ReadBody reads a request body once, strictly: it must be one JSON object in UTF-8,
// without a lone surrogate, without two members of one name in any of its objects. What
// encoding/json/v2 refuses is refused, and nothing else. A parser that is laxer than
// AWS's could be made to stamp one member while AWS reads another. Errors are
// *waybill.Error of kind Invalid, and repeat nothing of the body.
func ReadBody(src []byte, r Route) (*Body, error) {
	b := &Body{src: src, empty: true}
	b.open = skipBlank(src, 0) + 1
	b.first = skipBlank(src, b.open)
	err := readObject(src, func(m jsonMember) error {
		b.empty = false
		return b.member(m, r)
	})
	if err == nil {
		return b, nil
	}
	if e := (*waybill.Error)(nil); errors.As(err, &e) {
		return nil, err
	}
	return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1201", Err: err,
		Message: "the request body is not one JSON object: " + err.Error(),
		Hint:    "send one object, in UTF-8, without duplicate members"}
}

func (b *Body) member(m jsonMember, r Route) error {
	v := b.src[m.valueStart:m.valueEnd]
	s := span{m.nameStart, m.valueStart, m.valueEnd, true}
	if r.ModelInBody && string(m.name) == modelMember(r) {
		model, _ := stringOf(v)
		b.Model, b.model = waybill.ModelID(model), s
		return nil
	}
	if r.Shape == AWS {
		return b.ofConverse(m, v, s, r)
	}
	switch string(m.name) {
	case "metadata":
		b.own = s
	case "stream":
		b.Stream = v[0] == 't'
	case "service_tier":
		b.Tier, _ = stringOf(v)
	case "stream_options":
		b.options = s
		b.usageAsked = string(memberOf(v, "include_usage")) == "true"
	}
	return nil
}

// ofConverse reads a member that Converse has. Each shape is read for its own names
// alone: by the other's a caller could show us one tier and AWS a second.
func (b *Body) ofConverse(m jsonMember, v []byte, s span, r Route) error {
	switch string(m.name) {
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
	case "tags":
		if r.Operation != StartAsyncInvoke {
			return nil
		}
		b.tags = s
		var err error
		b.Resource, err = resourceTags(v)
		return err
	case "projectIdentifier":
		// A project has tags of its own, which the bill shows: whoever chooses it chooses
		// who pays.
		if id, _ := stringOf(v); r.Carrier == MetadataBody && id != "default" && string(v) != "null" {
			return &waybill.Error{Kind: waybill.Invalid, Code: "WB1209", Message: "the request body chooses a project",
				Hint: "leave projectIdentifier out: the gateway's operator chooses projects"}
		}
	case "serviceTier":
		b.Tier, _ = stringOf(memberOf(v, "type"))
	case "performanceConfig":
		b.LatencyMode, _ = stringOf(memberOf(v, "latency"))
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

// memberOf is the raw value of an object's member of exactly that name, as AWS compares
// names: encoding/json would take another case for the same.
func memberOf(v []byte, name string) []byte {
	found, err := findMember(v, name)
	if err != nil {
		return nil
	}
	return found
}

func findMember(v []byte, name string) (found []byte, err error) {
	err = readObject(v, func(m jsonMember) error {
		if string(m.name) == name {
			found = v[m.valueStart:m.valueEnd]
		}
		return nil
	})
	return found, err
}

// metadataOf reads a map of strings. Null counts as absent.
func metadataOf(v []byte) (waybill.Tags, error) {
	if string(v) == "null" {
		return waybill.Tags{}, nil
	}
	if len(v) > maxMetadata {
		return waybill.Tags{}, &waybill.Error{Kind: waybill.Invalid, Code: "WB1202",
			Message: "request metadata is longer than Bedrock takes", Hint: "send at most 16 entries of 256 characters each"}
	}
	var tags []waybill.Tag
	err := readObject(v, func(m jsonMember) error {
		value, ok := stringOf(v[m.valueStart:m.valueEnd])
		if !ok {
			return errNoStrings
		}
		tags = append(tags, waybill.Tag{Key: string(m.name), Value: value})
		return nil
	})
	if err != nil {
		return waybill.Tags{}, &waybill.Error{Kind: waybill.Invalid, Code: "WB1202",
			Message: "request metadata is not an object of strings", Hint: "write {\"key\": \"value\"}, both strings"}
	}
	return waybill.NewTags(tags...), nil
}

// ParseMetadata reads the value of the request metadata header. Duplicate keys are
// refused, as ReadBody refuses them.
func ParseMetadata(header string) (waybill.Tags, error) {
	v := bytes.Trim([]byte(header), " \t\r\n")
	r := jsonReader{src: v}
	end, err := r.value(0, 1)
	if len(header) > maxMetadataHeader || err != nil || end < len(v) || !utf8.Valid(v) {
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
