package control

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
)

func keyControls() []Control {
	return []Control{{
		ID: "api-keys", Title: "No long-term Bedrock API key goes round the gateway", Practices: []string{"P14"}, Severity: High,
		Holds:  "No active Bedrock API key belongs to an IAM user that is not declared under apiKeys.allow.",
		Seen:   "iam:ListServiceSpecificCredentials for bedrock.amazonaws.com, all users.",
		Why:    "A key calls Bedrock without the gateway, without tags, and without an end if none was set.",
		Remedy: "Give its owner a gateway key, then waybill setup --apply --accept api-keys: it deactivates keys, which can be undone, and deletes none. waybill guard keeps new ones from being made and used.",
		Reads:  []string{"iam:ListServiceSpecificCredentials"}, Changes: []string{"iam:UpdateServiceSpecificCredential"},
		judge: judgeAPIKeys,
	}, {
		ID: "api-key-use", Title: "Nobody calls with a Bedrock API key", Practices: []string{"P14"}, Severity: High,
		Holds:  "CloudTrail shows no call with a bearer token, long-term or short-term.",
		Seen:   "cloudtrail:LookupEvents: the newest thousand events of bedrock.amazonaws.com, and of bedrock-mantle.amazonaws.com where its data events are recorded. Where there are more, what was not read is unknown.",
		Why:    "A short-term key is made offline by whoever has credentials: that it is made cannot be seen or stopped, only its use.",
		Remedy: "waybill guard writes the policies that deny CallWithBearerToken on both endpoints.",
		Reads:  []string{"cloudtrail:LookupEvents"},
		judge:  judgeKeyUse,
	}, {
		ID: "side-doors", Title: "Claude is not bought outside Bedrock", Practices: []string{"P14"}, Severity: Medium,
		Holds:  "CloudTrail shows no call to Claude Platform on AWS, which is billed through Marketplace.",
		Seen:   "cloudtrail:LookupEvents for aws-external-anthropic.amazonaws.com. AWS documents no name for its events: this is its signing name.",
		Why:    "Such spend is on no Bedrock line of the bill, and no carrier of tags reaches it.",
		Remedy: "Deny it with a service control policy.",
		Reads:  []string{"cloudtrail:LookupEvents"},
		judge:  judgeSideDoors,
	}}
}

func judgeAPIKeys(in *Inquiry, report func(Finding)) {
	for i := range in.Snapshot.Accounts {
		a := &in.Snapshot.Accounts[i]
		if a.APIKeys.Refused != "" {
			report(unknown("AWS does not list the keys: %s", a.APIKeys.Refused).at(a.ID, ""))
			continue
		}
		good := true
		for _, k := range a.APIKeys.Value {
			expired := !k.Expires.IsZero() && k.Expires.Before(in.now())
			if !k.Active || expired || slices.Contains(in.Declaration.APIKeys, k.User) {
				continue
			}
			good = false
			until := "without an end"
			if !k.Expires.IsZero() {
				until = "until " + k.Expires.Format("2006-01-02")
			}
			report(fails("an active key of %s, %s", k.User, until).at(a.ID, "").of(k.ID).plan(Step{Words: "deactivate the key " + k.ID + " of " + k.User, Diff: []string{"- active", "+ inactive"}, Action: "iam:UpdateServiceSpecificCredential",
				Risk:  "who calls with the key is refused at once",
				Input: &iam.UpdateServiceSpecificCredentialInput{ServiceSpecificCredentialId: aws.String(k.ID), UserName: aws.String(k.User), Status: iamtypes.StatusTypeInactive}}))
		}
		if good {
			report(holds("there is none").at(a.ID, ""))
		}
	}
}

func judgeKeyUse(in *Inquiry, report func(Finding)) {
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		if r.KeyUses.Refused != "" {
			report(unknown("CloudTrail does not say: %s", r.KeyUses.Refused).at(a.ID, r.Region))
			return
		}
		for _, u := range r.KeyUses.Value {
			kind := u.Kind
			if kind != "" {
				kind += " "
			}
			report(fails("%d calls with a %skey, the last on %s", u.Calls, kind, u.Last.Format("2006-01-02 15:04")).at(a.ID, r.Region).of(u.Principal))
		}
		switch {
		case !r.KeyUsesFrom.IsZero():
			report(unknown("CloudTrail has more events than were read: of the time before %s nothing is known. Look through the trail's files: waybill guard radar --cloudtrail", r.KeyUsesFrom.UTC().Format("2006-01-02 15:04")).at(a.ID, r.Region))
		case len(r.KeyUses.Value) == 0:
			report(holds("no such call").at(a.ID, r.Region))
		}
	})
}

func judgeSideDoors(in *Inquiry, report func(Finding)) {
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		if r.Outside.Refused != "" {
			report(unknown("CloudTrail does not say: %s", r.Outside.Refused).at(a.ID, r.Region))
			return
		}
		for _, u := range r.Outside.Value {
			report(fails("%d calls to Claude Platform on AWS, the last on %s", u.Calls, u.Last.Format("2006-01-02 15:04")).at(a.ID, r.Region).of(u.Principal))
		}
		switch {
		case !r.OutsideFrom.IsZero():
			report(unknown("CloudTrail has more events than were read: of the time before %s nothing is known. Look through the trail's files: waybill guard radar --cloudtrail", r.OutsideFrom.UTC().Format("2006-01-02 15:04")).at(a.ID, r.Region))
		case len(r.Outside.Value) == 0:
			report(holds("no such call").at(a.ID, r.Region))
		}
	})
}
