package stamp_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/stamp"
)

// What a call costs in the process, without and with the Stamper; the network is left
// out.
func BenchmarkCall(b *testing.B) {
	answer := map[string][]byte{
		"converse": []byte(`{"output":{"message":{"role":"assistant","content":[{"text":"hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2},"metrics":{"latencyMs":1}}`),
		"invoke":   []byte(`{}`),
	}
	ctx := stamp.WithTags(b.Context(), waybill.Tag{Key: "feature", Value: "summary"})
	for _, operation := range []string{"converse", "invoke"} {
		canned := doFunc(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(answer[operation]))}, nil
		})
		for _, stamped := range []bool{false, true} {
			client := bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", HTTPClient: canned, Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLECHECKOUT", "secret", "")})
			name := operation + "/plain"
			if stamped {
				name = operation + "/stamped"
				client = bedrockruntime.New(client.Options(), newStamper(b, compliant()).Options)
			}
			call := func() error {
				_, err := client.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String(nova), Messages: message("hi")})
				return err
			}
			if operation == "invoke" {
				call = func() error {
					_, err := client.InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: aws.String(claude), Body: claudeBody("hi")})
					return err
				}
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := call(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
