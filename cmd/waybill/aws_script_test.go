package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// awsKey names the stand-in for AWS among a script's values.
type awsKey struct{}

// awsCommand is what scripts say to the stand-in for AWS:
//
//	aws start               two accounts, with a role for waybill in the second
//	aws tag KEY             a key is in use, and not active
//	aws key USER            a long-term Bedrock API key of a user in the second
//	aws deny ACTION...      these actions are refused; none: nothing is
//	aws down                STS answers nobody
//	aws writes N            N changes were made so far, or more than that: +N
func awsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: aws start|tag|deny|down|writes")
	}
	if args[0] == "start" {
		startAWS(ts)
		return
	}
	state, ok := ts.Value(awsKey{}).(*awsState)
	if !ok || state.plane == nil {
		ts.Fatalf("aws start comes first")
	}
	switch args[0] {
	case "tag":
		state.plane.UseTag(fakeaws.CostTag{TagKey: args[1], Type: "UserDefined", Status: "Inactive", LastUsedDate: "2026-11-01"})
	case "key":
		state.plane.PutServiceCredential("111122223333", fakeaws.ServiceCredential{ID: "ACCAEXAMPLE", User: args[1], Status: "Active", Service: "bedrock.amazonaws.com", Created: state.world.Now()})
	case "deny":
		state.plane.SetFault(nil)
		if len(args) > 1 {
			state.plane.SetFault(fakeaws.DenyAction(args[1:]...))
		}
	case "down":
		state.world.BreakSTS(true)
	case "writes":
		want, err := strconv.Atoi(strings.TrimPrefix(args[1], "+"))
		ts.Check(err)
		got := len(state.plane.Writes())
		if more := strings.HasPrefix(args[1], "+"); got != want && !more || more && got <= want {
			ts.Fatalf("%d changes were made, want %s", got, args[1])
		}
	default:
		ts.Fatalf("aws %s is not known", args[0])
	}
}

type awsState struct {
	world *fakeaws.World
	plane *fakeaws.ControlPlane
}

func startAWS(ts *testscript.TestScript) {
	state, ok := ts.Value(awsKey{}).(*awsState)
	if !ok {
		ts.Fatalf("the script was not prepared for aws")
	}
	state.world = fakeaws.NewWorld(fakeaws.Config{Regions: []string{"us-east-1"},
		Users: []fakeaws.User{{ARN: "arn:aws:iam::999900001111:user/admin", AccessKeyID: "AKIAADMIN", SecretAccessKey: "secret"}},
		Roles: []fakeaws.Role{{ARN: "arn:aws:iam::111122223333:role/waybill-setup", Trusted: []string{"arn:aws:iam::999900001111:user/admin"}}}})
	state.plane = fakeaws.NewControlPlane(state.world, fakeaws.ControlConfig{Management: "999900001111", Members: []string{"111122223333"}})
	url, stop, err := state.plane.Serve()
	ts.Check(err)
	ts.Defer(stop)
	for k, v := range map[string]string{"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "AKIAADMIN", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"} {
		ts.Setenv(k, v)
	}
}

func prepareAWS(env *testscript.Env) error {
	if env.Values == nil {
		return fmt.Errorf("the script has no values")
	}
	env.Values[awsKey{}] = &awsState{}
	examples, err := filepath.Abs("../../examples")
	env.Setenv("EXAMPLES", examples)
	return err
}
