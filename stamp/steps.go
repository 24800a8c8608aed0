package stamp

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

const bidirectional = "InvokeModelWithBidirectionalStream"

// A call is what is known of one call, for all its attempts. They follow one another.
type call struct {
	operation string
	model     waybill.ModelID
	region    string
	inHeader  bool // the operation takes its tags in the request metadata header

	decided bool
	tags    waybill.Tags
	err     error // why it may not leave
}

type callKey struct{}

// A source is tags with the name of where they came from.
type source struct {
	name string
	tags iter.Seq[waybill.Tag]
}

func listed(tags waybill.Tags) iter.Seq[waybill.Tag] {
	return func(yield func(waybill.Tag) bool) {
		for key, value := range tags.All() {
			if !yield(waybill.Tag{Key: key, Value: value}) {
				return
			}
		}
	}
}

// metadata are tags from a map, in an order that does not change.
func metadata(m map[string]string) source {
	return source{"requestMetadata", listed(waybill.TagsFromMap(m))}
}

// inputStep stamps what carries tags in a member of its input: a copy of the input goes
// on in its place. It stands before the serializer, and does not run again on a retry.
type inputStep struct{ s *Stamper }

func (inputStep) ID() string { return "WaybillStampInput" }

func (m inputStep) HandleSerialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (
	out middleware.SerializeOutput, md middleware.Metadata, err error,
) {
	c := &call{operation: middleware.GetOperationName(ctx), region: awsmiddleware.GetRegion(ctx)}
	if in.Parameters, err = m.s.stampInput(ctx, c, in.Parameters); err != nil {
		return out, md, err
	}
	return next.HandleSerialize(middleware.WithStackValue(ctx, callKey{}, c), in)
}

// stampInput is the input with tags, and fills in what it tells of the call.
func (s *Stamper) stampInput(ctx context.Context, c *call, params any) (any, error) {
	switch in := params.(type) {
	case *bedrockruntime.ConverseInput:
		c.model = waybill.ModelID(aws.ToString(in.ModelId))
		tags, err := s.decide(ctx, c, metadata(in.RequestMetadata))
		stamped := *in
		stamped.RequestMetadata = member(tags)
		return &stamped, err
	case *bedrockruntime.ConverseStreamInput:
		c.model = waybill.ModelID(aws.ToString(in.ModelId))
		tags, err := s.decide(ctx, c, metadata(in.RequestMetadata))
		stamped := *in
		stamped.RequestMetadata = member(tags)
		return &stamped, err
	case *bedrockruntime.StartAsyncInvokeInput:
		c.model = waybill.ModelID(aws.ToString(in.ModelId))
		tags, err := s.decide(ctx, c, source{"tags", resourceTags(in.Tags)})
		stamped := *in
		stamped.Tags = nil
		for key, value := range tags.All() {
			stamped.Tags = append(stamped.Tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
		}
		return &stamped, err
	case *bedrockruntime.InvokeModelInput:
		// Its member RequestMetadata becomes the header, where headerStep finds it with
		// whatever else was put there.
		c.model, c.inHeader = waybill.ModelID(aws.ToString(in.ModelId)), true
	case *bedrockruntime.InvokeModelWithResponseStreamInput:
		c.model, c.inHeader = waybill.ModelID(aws.ToString(in.ModelId)), true
	case *bedrockruntime.InvokeModelWithBidirectionalStreamInput:
		c.model = waybill.ModelID(aws.ToString(in.ModelId)) // decided by streamStep
	case *bedrockruntime.CountTokensInput, *bedrockruntime.ApplyGuardrailInput, *bedrockruntime.InvokeGuardrailChecksInput,
		*bedrockruntime.GetAsyncInvokeInput, *bedrockruntime.ListAsyncInvokesInput:
		// What uses no model needs no owner.
	default:
		// An operation younger than this package may spend; it takes no tags that we know of.
		_, err := s.decide(ctx, c)
		return params, err
	}
	return params, nil
}

// member is request metadata as a member of the input. AWS refuses an empty map.
func member(tags waybill.Tags) map[string]string {
	if tags.Len() == 0 {
		return nil
	}
	return tags.Map()
}

func resourceTags(tags []types.Tag) iter.Seq[waybill.Tag] {
	return func(yield func(waybill.Tag) bool) {
		for _, t := range tags {
			if !yield(waybill.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)}) {
				return
			}
		}
	}
}

// headerStep takes every spelling of the request metadata header off, and puts the
// policy's on where the operation takes it. It stands before the signer, which signs
// what it finds, and runs on every attempt: each begins with the headers of the first.
type headerStep struct{ s *Stamper }

func (headerStep) ID() string { return "WaybillStampHeader" }

func (m headerStep) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
	out middleware.FinalizeOutput, md middleware.Metadata, err error,
) {
	r, ok := in.Request.(*smithyhttp.Request)
	c, known := middleware.GetStackValue(ctx, callKey{}).(*call)
	if !ok || !known {
		return out, md, fmt.Errorf("stamp: the client's steps are not those of the SDK: request is a %T", in.Request)
	}
	brought := bedrock.TakeMetadata(r.Header)
	if c.inHeader {
		if err := m.s.stampHeader(ctx, c, r, brought); err != nil {
			return out, md, err
		}
	}
	return next.HandleFinalize(ctx, in)
}

func (s *Stamper) stampHeader(ctx context.Context, c *call, r *smithyhttp.Request, brought []string) error {
	if c.decided {
		brought = nil // what came later is no part of the decision
	}
	var own []source
	for _, text := range brought {
		if strings.TrimSpace(text) == "" {
			continue
		}
		tags, err := bedrock.ParseMetadata(text)
		if err != nil {
			return err
		}
		own = append(own, source{bedrock.MetadataHeaderName, listed(tags)})
	}
	tags, err := s.decide(ctx, c, own...)
	if err != nil || tags.Len() == 0 {
		return err
	}
	r.Header.Set(bedrock.MetadataHeaderName, tags.Canonical())
	return nil
}

// streamStep decides on bidirectional streams, which no carrier but the role session
// reaches. The SDK (v1.63.12) waits for ever where a step before the event stream's own
// fails, so this one stands after it: a refusal is found in the stream's Err.
type streamStep struct{ s *Stamper }

func (streamStep) ID() string { return "WaybillStampStream" }

func (m streamStep) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	out middleware.DeserializeOutput, md middleware.Metadata, err error,
) {
	if c, ok := middleware.GetStackValue(ctx, callKey{}).(*call); ok {
		if _, err := m.s.decide(ctx, c); err != nil {
			return out, md, err
		}
	}
	return next.HandleDeserialize(ctx, in)
}
