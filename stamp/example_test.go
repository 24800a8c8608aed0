package stamp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/stamp"
)

// exampleAWS stands in for AWS, and sets the environment so that the SDK finds it. What
// it returns puts everything back.
func exampleAWS() (world *fakeaws.World, stop func()) {
	world = fakeaws.NewWorld(fakeaws.Config{Regions: []string{"us-east-1"},
		Users: []fakeaws.User{{ARN: processARN, AccessKeyID: "AKIDEXAMPLECHECKOUT", SecretAccessKey: "secret"}},
		Roles: []fakeaws.Role{{ARN: "arn:aws:iam::111122223333:role/bedrock-prod", Trusted: []string{processARN}}}})
	url, stop, err := world.Serve()
	if err != nil {
		log.Fatal(err)
	}
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLECHECKOUT",
		"AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_BEARER_TOKEN_BEDROCK": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull} {
		old, was := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			log.Fatal(err)
		}
		next := stop
		stop = func() {
			next()
			if was {
				_ = os.Setenv(name, old) // it could be set before
			} else {
				_ = os.Unsetenv(name)
			}
		}
	}
	return world, stop
}

// A program that calls Bedrock itself, with the tags of the policy on every call and on
// the role session that it calls under.
func Example() {
	world, stop := exampleAWS()
	defer stop()
	ctx := context.Background()
	// docs/stamp.md begins
	stamper, err := stamp.New(stamp.Config{
		PolicyFile: "testdata/policy.yaml",
		Caller:     waybill.Principal{Subject: "checkout"},
		Tags:       waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}, waybill.Tag{Key: "environment", Value: "production"}),
	})
	if err != nil {
		log.Fatal(err)
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		log.Fatal(err)
	}
	session, err := stamper.Credentials(sts.NewFromConfig(cfg), "arn:aws:iam::111122223333:role/bedrock-prod")
	if err != nil {
		log.Fatal(err)
	}
	cfg.Credentials = session
	client := bedrockruntime.NewFromConfig(cfg, stamper.Options)

	ctx = stamp.WithTags(ctx, waybill.Tag{Key: "feature", Value: "summary"})
	_, err = client.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String("amazon.nova-lite-v1:0"), Messages: message("Where is my parcel?")})
	// docs/stamp.md ends
	if err != nil {
		log.Fatal(err)
	}
	call := world.Calls()[0]
	fmt.Println("request metadata:", call.Metadata)
	fmt.Println("session tags:", call.SessionTags)
	fmt.Println("principal:", call.PrincipalARN)
	// Output:
	// request metadata: map[application:checkout environment:production feature:summary team:search]
	// session tags: map[application:checkout environment:production team:search]
	// principal: arn:aws:sts::111122223333:assumed-role/bedrock-prod/checkout
}

// A refused call never leaves. Its error lists what is missing or bad, and what is
// allowed.
func ExampleStamper_Options() {
	world, stop := exampleAWS()
	defer stop()
	stamper, err := stamp.New(stamp.Config{PolicyFile: "testdata/policy.yaml", Caller: waybill.Principal{Subject: "checkout"}})
	if err != nil {
		log.Fatal(err)
	}
	cfg, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	client := bedrockruntime.NewFromConfig(cfg, stamper.Options)

	ctx := stamp.WithTags(context.Background(), waybill.Tag{Key: "team", Value: "search"}, waybill.Tag{Key: "environment", Value: "moonbase"}, waybill.Tag{Key: "feature", Value: "summary"})
	_, err = client.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: aws.String("amazon.nova-lite-v1:0"), Messages: message("hi")})
	if e, ok := errors.AsType[*waybill.Error](err); ok && e.Kind == waybill.Denied {
		fmt.Println("refused:", e.Code)
	}
	fmt.Println("calls that AWS saw:", len(world.Calls()))
	// Output:
	// refused: WB1301
	// calls that AWS saw: 0
}
