package profile

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	"github.com/aws/aws-sdk-go-v2/service/bedrock/types"

	"github.com/waybill-dev/waybill"
)

// A controlPlane has profiles, by the end of their ARN, and counts the questions.
type controlPlane struct {
	mu     sync.Mutex
	models map[string][]string
	asked  int
	region string
}

func (c *controlPlane) GetInferenceProfile(ctx context.Context, in *bedrock.GetInferenceProfileInput, change ...func(*bedrock.Options)) (*bedrock.GetInferenceProfileOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	var o bedrock.Options
	for _, f := range change {
		f(&o)
	}
	c.region = o.Region
	arn := aws.ToString(in.InferenceProfileIdentifier)
	arns, ok := c.models[arn[strings.LastIndexByte(arn, '/')+1:]]
	if !ok {
		return nil, errors.New("ResourceNotFoundException")
	}
	out := new(bedrock.GetInferenceProfileOutput)
	for _, a := range arns {
		out.Models = append(out.Models, types.InferenceProfileModel{ModelArn: aws.String(a)})
	}
	return out, nil
}

func (c *controlPlane) questions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

const arnOf = "arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/"

// The first to ask gets no answer and does not wait; later ones get it, and AWS is asked
// once. What was copied from where shows in the models' Regions.
func TestModel(t *testing.T) {
	aws := &controlPlane{models: map[string][]string{
		"plain":  {"arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-lite-v1:0"},
		"geo":    {"arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-lite-v1:0", "arn:aws:bedrock:eu-central-1::foundation-model/amazon.nova-lite-v1:0"},
		"away":   {"arn:aws:bedrock:eu-central-1::foundation-model/amazon.nova-lite-v1:0"},
		"global": {"arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-sonnet-4-6", "arn:aws:bedrock:::foundation-model/anthropic.claude-sonnet-4-6"},
	}}
	for id, want := range map[string]struct {
		model waybill.ModelID
		scope waybill.Scope
	}{"plain": {"amazon.nova-lite-v1:0", waybill.Plain}, "geo": {"eu.amazon.nova-lite-v1:0", waybill.Geo},
		"away": {"eu.amazon.nova-lite-v1:0", waybill.Geo}, "global": {"global.anthropic.claude-sonnet-4-6", waybill.Global}} {
		synctest.Test(t, func(t *testing.T) {
			before := aws.questions()
			c := New(aws, Config{})
			defer c.Close()
			for range 3 {
				if model, ok := c.Model(arnOf + id); ok {
					t.Errorf("%s: the first to ask is told %s", id, model)
				}
			}
			synctest.Wait()
			model, ok := c.Model(arnOf + id)
			if !ok || model != want.model || model.Scope() != want.scope {
				t.Errorf("%s is %q %v %s, want %s", id, model, ok, model.Scope(), want.model)
			}
			if n := aws.questions() - before; n != 1 || aws.region != "eu-west-1" {
				t.Errorf("%s: AWS was asked %d times, in %s", id, n, aws.region)
			}
		})
	}
}

// What AWS does not tell is asked for again, later. Strangers who make ARNs up fill a
// bounded memory, and do not put out what is known.
func TestUnknownProfiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		aws := &controlPlane{models: map[string][]string{"known": {"arn:aws:bedrock:eu-west-1::foundation-model/m.n"}, "none": {}}}
		c := New(aws, Config{Max: 5, Queue: 2})
		defer c.Close()
		c.Model(arnOf + "known")
		synctest.Wait()
		for range 100 {
			c.Model(arnOf + "unknown")
			c.Model(arnOf + "none")
			synctest.Wait()
		}
		if n := aws.questions(); n != 3 {
			t.Errorf("AWS was asked %d times, want 3", n)
		}
		time.Sleep(6 * time.Minute)
		c.Model(arnOf + "unknown")
		synctest.Wait()
		if n := aws.questions(); n != 4 {
			t.Errorf("after a while AWS was asked %d times, want 4", n)
		}
		for i := range 100 {
			c.Model(arnOf + "made-up-" + strings.Repeat("x", i))
			synctest.Wait()
		}
		c.mu.Lock()
		held := len(c.held)
		c.mu.Unlock()
		if _, ok := c.Model(arnOf + "known"); !ok || held > 5 {
			t.Errorf("known %v, %d held", ok, held)
		}
	})
}
