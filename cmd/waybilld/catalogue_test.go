package main

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	"github.com/aws/aws-sdk-go-v2/service/bedrock/types"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// The model behind a profile is asked of Bedrock's control plane, under the gateway's own
// credentials or under a role.
func TestCatalogue(t *testing.T) {
	w, _ := world(t, fakeaws.Config{})
	control := fakeaws.NewControlPlane(w, fakeaws.ControlConfig{Management: "111122223333"})
	url, stop, err := control.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	dir, _ := home(t, url)
	for name, more := range map[string]string{"own": "resolveProfiles: true\n", "role": "resolveProfiles: {role: 'arn:aws:iam::111122223333:role/bedrock'}\n"} {
		c, err := readWith(t, dir, more)
		if err != nil {
			t.Fatal(err)
		}
		c.controlEndpoint, c.stsEndpoint = url, url
		_, sessions, loaded, err := newSigner(t.Context(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer sessions.Close()
		client := bedrock.New(bedrock.Options{Region: "us-east-1", Credentials: loaded.Credentials, BaseEndpoint: aws.String(url)})
		made, err := client.CreateInferenceProfile(t.Context(), &bedrock.CreateInferenceProfileInput{InferenceProfileName: aws.String("team " + name),
			ModelSource: &types.InferenceProfileModelSourceMemberCopyFrom{Value: "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0"}})
		if err != nil {
			t.Fatal(err)
		}
		catalogue := newCatalogue(c, loaded, sessions, slog.New(slog.DiscardHandler))
		defer catalogue.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var model waybill.ModelID
		for ok := false; !ok; {
			if model, ok = catalogue.Model(*made.InferenceProfileArn); !ok && ctx.Err() != nil {
				t.Fatal("the model is never known")
			}
			runtimeYield()
		}
		if model != "amazon.nova-lite-v1:0" {
			t.Errorf("%s: the model is %q", name, model)
		}
		calls := control.Calls()
		if last := calls[len(calls)-1]; last.Operation != "GetInferenceProfile" || (name == "role") != (last.Caller == "arn:aws:sts::111122223333:assumed-role/bedrock/waybill-profiles") {
			t.Errorf("%s: %s was called by %s", name, last.Operation, last.Caller)
		}
	}
}
