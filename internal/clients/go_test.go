package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/document"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
	smithygo "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const clientVariable = "WAYBILL_TEST_CLIENT"

// The SDK for Go runs in a process of its own, as the other clients do: this one, again.
func TestMain(m *testing.M) {
	if os.Getenv(clientVariable) != "" {
		if err := stockGo(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	nova     = "amazon.nova-lite-v1:0"
	claude   = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
	titan    = "amazon.titan-embed-text-v2:0"
	question = "where is my parcel?"
)

// stockGo makes the calls that the scripts make, and says what a user sees. Tags:
// RequestMetadata, a map in Converse and a text of JSON in InvokeModel.
func stockGo(ctx context.Context) error {
	config, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	client := bedrockruntime.NewFromConfig(config)
	purpose := map[string]string{"purpose": "tests"}
	converse := func(text string, change func(*bedrockruntime.ConverseInput)) (any, error) {
		in := &bedrockruntime.ConverseInput{ModelId: aws.String(nova), RequestMetadata: purpose, Messages: said(text)}
		if change != nil {
			change(in)
		}
		a, err := client.Converse(ctx, in)
		if err != nil {
			return nil, err
		}
		message := a.Output.(*types.ConverseOutputMemberMessage).Value
		text, tool := "", any(nil)
		for _, c := range message.Content {
			switch c := c.(type) {
			case *types.ContentBlockMemberText:
				text += c.Value
			case *types.ContentBlockMemberToolUse:
				var input any
				if err := c.Value.Input.UnmarshalSmithyDocument(&input); err != nil {
					return nil, err
				}
				tool = map[string]any{"id": c.Value.ToolUseId, "name": c.Value.Name, "input": input}
			}
		}
		return map[string]any{"text": text, "tool": tool, "usage": a.Usage, "finish": a.StopReason}, nil
	}
	body, err := json.Marshal(map[string]any{"anthropic_version": "bedrock-2023-05-31", "max_tokens": 1000, "messages": []any{map[string]any{"role": "user", "content": question}}})
	if err != nil {
		return err
	}
	metadata := aws.String(`{"purpose":"tests"}`)
	for _, c := range []struct {
		name string
		call func() (any, error)
	}{
		{"converse", func() (any, error) { return converse(question, nil) }},
		{"converseStream", func() (any, error) {
			a, err := client.ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{ModelId: aws.String(claude), RequestMetadata: purpose, Messages: said(question)})
			if err != nil {
				return nil, err
			}
			text, stream := "", a.GetStream()
			var events []types.ConverseStreamOutput
			for e := range stream.Events() {
				events = append(events, e)
				if d, ok := e.(*types.ConverseStreamOutputMemberContentBlockDelta); ok {
					text += d.Value.Delta.(*types.ContentBlockDeltaMemberText).Value
				}
			}
			return map[string]any{"text": text, "raw": events}, errors.Join(stream.Err(), stream.Close())
		}},
		{"invoke", func() (any, error) {
			a, err := client.InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: body, ContentType: aws.String("application/json"), RequestMetadata: metadata})
			if err != nil {
				return nil, err
			}
			return map[string]any{"text": string(a.Body)}, nil
		}},
		{"invokeStream", func() (any, error) {
			a, err := client.InvokeModelWithResponseStream(ctx, &bedrockruntime.InvokeModelWithResponseStreamInput{ModelId: aws.String(claude), Body: body, ContentType: aws.String("application/json"), RequestMetadata: metadata})
			if err != nil {
				return nil, err
			}
			text, stream := "", a.GetStream()
			for e := range stream.Events() {
				text += string(e.(*types.ResponseStreamMemberChunk).Value.Bytes)
			}
			return map[string]any{"text": text}, errors.Join(stream.Err(), stream.Close())
		}},
		{"tool", func() (any, error) {
			return converse(question, func(in *bedrockruntime.ConverseInput) {
				schema := map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}, "required": []string{"city"}}
				in.ToolConfig = &types.ToolConfiguration{ToolChoice: &types.ToolChoiceMemberAny{}, Tools: []types.Tool{&types.ToolMemberToolSpec{
					Value: types.ToolSpecification{Name: aws.String("weather"), InputSchema: &types.ToolInputSchemaMemberJson{Value: document.NewLazyDocument(schema)}}}}}
			})
		}},
		{"embed", func() (any, error) {
			a, err := client.InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: aws.String(titan), Body: []byte(`{"inputText":"` + question + `"}`), ContentType: aws.String("application/json"), RequestMetadata: metadata})
			if err != nil {
				return nil, err
			}
			return map[string]any{"text": string(a.Body)}, nil
		}},
		{"throttled", func() (any, error) { return converse("this call is to be throttled", nil) }},
		{"invalid", func() (any, error) {
			return converse(question, func(in *bedrockruntime.ConverseInput) { in.ModelId = aws.String("amazon.no-such-model-v1:0") })
		}},
		{"untagged", func() (any, error) {
			return converse(question, func(in *bedrockruntime.ConverseInput) { in.RequestMetadata = nil })
		}},
	} {
		got, err := c.call()
		line := map[string]any{"case": c.name}
		if err != nil {
			line["error"], line["status"], line["message"] = class(err)
		} else {
			for name, value := range got.(map[string]any) {
				line[name] = value
			}
		}
		if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
			return err
		}
	}
	return nil
}

func said(text string) []types.Message {
	return []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: text}}}}
}

// class is the SDK's own type of an error, its status, and AWS's or the gateway's words.
func class(err error) (name string, status int, message string) {
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = answer.HTTPStatusCode()
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		name = strings.TrimPrefix(fmt.Sprintf("%T", e), "*")
	}
	if api, ok := errors.AsType[smithygo.APIError](err); ok {
		message = api.ErrorMessage()
	}
	return name, status, message
}
