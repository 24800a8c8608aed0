package control

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/waybill-dev/waybill/internal/policy"
)

func roleControls() []Control {
	return []Control{{
		ID: "role-trust", Title: "The gateway, and nobody else, may assume its roles and tag their sessions", Practices: []string{"P3", "P14"}, Severity: High,
		Holds:  "The trust policy of every role of the gateway allows sts:AssumeRole and sts:TagSession to the gateway's principals and to those that are declared beside them.",
		Seen:   "iam:GetRole, for each role that is declared.",
		Why:    "Without sts:TagSession an AssumeRole with tags is refused, and the bill knows no team. Whoever else may assume the role calls Bedrock past the gateway, and looks like it.",
		Remedy: "waybill setup makes the role, or adds statements for the gateway. Taking others out breaks them: it is done only with --accept role-trust.",
		Reads:  []string{"iam:GetRole"}, Changes: []string{"iam:CreateRole", "iam:UpdateAssumeRolePolicy"},
		judge: judgeTrust,
	}, {
		ID: "role-tags", Title: "The gateway's roles carry their tags", Practices: []string{"P3"}, Severity: Medium,
		Holds:  "Every role of the gateway has the tags that are declared for it.",
		Seen:   "iam:ListRoleTags, for each role that is declared.",
		Why:    "A role's tags reach the bill where a session has no tag of the key: they are the default of whatever goes wrong.",
		Remedy: "waybill setup puts the tags on the role and leaves others as they are.",
		Reads:  []string{"iam:ListRoleTags"}, Changes: []string{"iam:TagRole"},
		judge: judgeRoleTags,
	}, {
		ID: "role-session", Title: "Sessions may last as long as the gateway asks", Practices: []string{"P15"}, Severity: Medium,
		Holds:  "The declared session length is within the role's maximum, and within an hour where the gateway's own credentials are a role session.",
		Seen:   "MaxSessionDuration of iam:GetRole, and the declaration.",
		Why:    "AWS caps a chained session at an hour and refuses a longer one; a session longer than the role's maximum is refused as well, and then every call is.",
		Remedy: "waybill setup raises the role's maximum; where sessions are chained, declare gateway.session: 3600 or less.",
		Reads:  []string{"iam:GetRole"}, Changes: []string{"iam:UpdateRole"},
		judge: judgeSession,
	}, {
		ID: "sts-headroom", Title: "STS has room for every session at once", Practices: []string{"P15"}, Severity: Medium,
		Holds:  "All role sessions of the busiest hour can be asked for anew within ten seconds by half of the account's quota, as after a restart.",
		Seen:   "servicequotas:ListServiceQuotas for STS (600 calls a second where AWS lists none), and the sessions in the ledger.",
		Why:    "The quota is shared by all of an account's calls to STS in a Region. A gateway that starts where there is no room cannot serve its callers.",
		Remedy: "Fewer session names or session tags with fewer values (the policy's session.name and carriers), or a higher quota from AWS.",
		Reads:  []string{"servicequotas:ListServiceQuotas"},
		judge:  judgeSTS,
	}}
}

// everyRole calls f for every declared role that was asked about.
func (in *Inquiry) everyRole(report func(Finding), f func(account, name string, d *DeclaredRole, r Role, place func(Finding) Finding)) {
	for i := range in.Declaration.Gateway.Roles {
		d := &in.Declaration.Gateway.Roles[i]
		account, name := accountOf(d.ARN), roleName(d.ARN)
		place := func(f Finding) Finding { return f.at(account, "").of(name) }
		j := slices.IndexFunc(in.Snapshot.Accounts, func(a AccountFacts) bool { return a.ID == account })
		if j < 0 {
			report(place(unknown("the snapshot does not have the account of the role: declare it, or ask again")))
			continue
		}
		said, asked := in.Snapshot.Accounts[j].Roles[d.ARN]
		switch {
		case !asked:
			report(place(unknown("the snapshot does not have the role")))
		case said.Refused != "":
			report(place(unknown("AWS does not show the role: %s", said.Refused)))
		default:
			f(account, name, d, said.Value, place)
		}
	}
}

// trustStatements let the gateway assume a role and tag its sessions, and others assume it.
func trustStatements(g *DeclaredGateway) []map[string]any {
	out := []map[string]any{{"Sid": "WaybillGateway", "Effect": "Allow", "Principal": map[string]any{"AWS": g.Principals}, "Action": []string{"sts:AssumeRole", "sts:TagSession"}}}
	var others []string
	for _, o := range g.Others {
		// An identity provider is trusted under conditions on audience and subject, which are
		// for a person to write: such a statement is kept where it is, never made.
		if !strings.Contains(o, ":oidc-provider/") && !strings.Contains(o, ":saml-provider/") {
			others = append(others, o)
		}
	}
	if len(others) > 0 {
		out = append(out, map[string]any{"Sid": "WaybillOthers", "Effect": "Allow", "Principal": map[string]any{"AWS": others}, "Action": []string{"sts:AssumeRole", "sts:TagSession"}})
	}
	return out
}

func trustDocument(list []map[string]any) (string, error) {
	b, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": list})
	return string(b), err
}

// maxTrust is the size of a trust policy without a raised quota, in characters.
// Source: IAM and AWS STS quotas.
const maxTrust = 2048

func judgeTrust(in *Inquiry, report func(Finding)) {
	g := &in.Declaration.Gateway
	in.everyRole(report, func(account, name string, d *DeclaredRole, r Role, place func(Finding) Finding) {
		if !r.Exists {
			text, err := trustDocument(trustStatements(g))
			if err != nil {
				report(place(unknown("%v", err)))
				return
			}
			path := strings.TrimSuffix(d.ARN[strings.Index(d.ARN, ":role")+len(":role"):], name)
			input := &iam.CreateRoleInput{RoleName: &name, Path: &path, AssumeRolePolicyDocument: &text, Description: aws.String("Bedrock through the Waybill gateway")}
			for _, k := range sortedTags(d.Tags) {
				input.Tags = append(input.Tags, iamtypes.Tag{Key: aws.String(k), Value: aws.String(d.Tags[k])})
			}
			if g.Session > 3600 && !g.Chained {
				input.MaxSessionDuration = aws.Int32(int32(g.Session))
			}
			report(place(fails("the role is not there")).plan(Step{Words: "make the role " + name, Diff: append([]string{"+ role " + d.ARN}, diffTags(nil, d.Tags)...), Action: "iam:CreateRole", Input: input}))
			return
		}
		doc, list, err := readDocument(r.Trust)
		if err != nil {
			report(place(unknown("the trust policy cannot be read: %v", err)))
			return
		}
		var missing, others []string
		for _, p := range g.Principals {
			for _, action := range []string{"sts:AssumeRole", "sts:TagSession"} {
				if !trusts(list, p, action) {
					missing = append(missing, p+" may not "+action)
				}
			}
		}
		for _, s := range list {
			if s.Effect != "Allow" {
				continue
			}
			if len(s.NotPrincipal) > 0 {
				others = append(others, "everybody (NotPrincipal)")
			}
			for _, kind := range []string{"AWS", "Federated", "Service", "CanonicalUser"} {
				for _, p := range s.Principal[kind] {
					if !slices.Contains(g.Principals, p) && !slices.Contains(g.Others, p) {
						others = append(others, p)
					}
				}
			}
		}
		slices.Sort(others)
		others = slices.Compact(others)
		if len(missing) > 0 {
			report(place(fails("%s", strings.Join(missing, "; "))).plan(trustSteps(g, doc, list, name, false)...))
		}
		if len(others) > 0 {
			report(place(fails("others may assume the role: %s", strings.Join(others, ", "))).plan(trustSteps(g, doc, list, name, true)...).
				fix("name them under gateway.others if they may, else waybill setup --apply --accept role-trust: it keeps who is declared and takes the others out"))
		}
		if len(missing)+len(others) == 0 {
			report(place(holds("the gateway may assume it and tag its sessions, and nobody else that is not declared")))
		}
	})
}

// trusts says whether a trust policy allows a principal an action, conditions taken for granted.
func trusts(list []policyEntry, principal, action string) bool {
	allowed := false
	for _, s := range list {
		if !slices.Contains(s.Principal["AWS"], principal) && !slices.Contains(s.Principal["AWS"], "*") && !slices.Contains(s.Principal["AWS"], "arn:aws:iam::"+accountOf(principal)+":root") && !slices.Contains(s.Principal["AWS"], accountOf(principal)) {
			continue
		}
		if !matchAny(s.Action, action) {
			continue
		}
		if s.Effect == "Deny" && len(s.Condition) == 0 {
			return false
		}
		allowed = allowed || s.Effect == "Allow"
	}
	return allowed
}

// letsIn says whether a trust policy allows already what a statement of ours would.
func letsIn(list []policyEntry, ours map[string]any) bool {
	b, err := json.Marshal(ours)
	if err != nil {
		return false
	}
	var s policyEntry
	if json.Unmarshal(b, &s) != nil {
		return false
	}
	for _, p := range s.Principal["AWS"] {
		for _, action := range s.Action {
			if !trusts(list, p, action) {
				return false
			}
		}
	}
	return true
}

// trustSteps rewrite a trust policy: with the gateway in it, and where only is set with
// nobody in it who is not declared. Denials, and statements for those who are declared,
// stay as they are written.
func trustSteps(g *DeclaredGateway, doc *document, list []policyEntry, name string, only bool) []Step {
	var keep []any
	var kept []policyEntry
	ours := trustStatements(g)
	var diff []string
	risk := ""
	for i, s := range list {
		stranger := s.Effect == "Allow" && (len(s.NotPrincipal) > 0 || slices.ContainsFunc(slices.Concat(s.Principal["AWS"], s.Principal["Federated"], s.Principal["Service"], s.Principal["CanonicalUser"]),
			func(p string) bool { return !slices.Contains(g.Principals, p) && !slices.Contains(g.Others, p) }))
		if only && stranger {
			diff = append(diff, "- "+string(doc.Statement[i]))
			risk = "who is trusted by the statements that go can no longer assume the role"
			continue
		}
		keep = append(keep, doc.Statement[i])
		kept = append(kept, s)
	}
	for _, s := range ours {
		// Who is let in already stays so as it is written: a statement without the conditions
		// of that one would take them back.
		if letsIn(kept, s) {
			continue
		}
		for i := range kept {
			if kept[i].Sid == s["Sid"] { // ours of an earlier run
				if len(kept[i].Condition) > 0 {
					s["Condition"] = kept[i].Condition
				}
				keep, kept = slices.Delete(keep, i, i+1), slices.Delete(kept, i, i+1)
				break
			}
		}
		keep = append(keep, s)
		kept = append(kept, policyEntry{Sid: fmt.Sprint(s["Sid"])})
		diff = append(diff, fmt.Sprintf("+ statement %s: %v may %v", s["Sid"], s["Principal"], s["Action"]))
	}
	b, err := json.Marshal(map[string]any{"Version": doc.Version, "Statement": keep})
	if err != nil || len(b) > maxTrust {
		return nil // it does not fit, and a person has to choose
	}
	return []Step{{Words: "rewrite the trust policy of " + name, Diff: diff, Action: "iam:UpdateAssumeRolePolicy", Risk: risk,
		Input: &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: aws.String(string(b))}}}
}

func judgeRoleTags(in *Inquiry, report func(Finding)) {
	in.everyRole(report, func(account, name string, d *DeclaredRole, r Role, place func(Finding) Finding) {
		if !r.Exists {
			return // role-trust says so, and makes it with its tags
		}
		if in.Policy != nil {
			for _, k := range in.Policy.KeysOn(policy.OnPrincipal) {
				if _, ok := d.Tags[k]; !ok {
					report(place(fails("the policy puts %s on roles, and none is declared for this one", k)).as(Low).fix("declare %s under the role's tags", k))
				}
			}
		}
		want := lacking(r.Tags, d.Tags)
		if len(want) == 0 {
			report(place(holds("all %d declared tags are there", len(d.Tags))))
			return
		}
		input := &iam.TagRoleInput{RoleName: &name}
		for _, k := range sortedTags(want) {
			input.Tags = append(input.Tags, iamtypes.Tag{Key: aws.String(k), Value: aws.String(want[k])})
		}
		report(place(fails("%d of %d declared tags are missing or differ", len(want), len(d.Tags))).plan(Step{Words: "tag the role " + name, Diff: diffTags(r.Tags, d.Tags), Action: "iam:TagRole", Input: input}))
	})
}

func judgeSession(in *Inquiry, report func(Finding)) {
	g := &in.Declaration.Gateway
	if g.Session == 0 {
		return
	}
	if g.Chained && g.Session > 3600 {
		report(fails("sessions of %d s are asked for by a role session, and AWS gives such sessions 3600 s at most", g.Session).fix("declare gateway.session: 3600, and set it so in the gateway"))
	}
	in.everyRole(report, func(account, name string, d *DeclaredRole, r Role, place func(Finding) Finding) {
		switch {
		case !r.Exists:
		case g.Session <= r.MaxSession:
			report(place(holds("up to %d s", r.MaxSession)))
		default:
			report(place(fails("the role allows %d s, and the gateway asks for %d s", r.MaxSession, g.Session)).plan(Step{Words: "allow longer sessions of " + name, Diff: []string{fmt.Sprintf("- MaxSessionDuration = %d", r.MaxSession), fmt.Sprintf("+ MaxSessionDuration = %d", g.Session)},
				Action: "iam:UpdateRole", Input: &iam.UpdateRoleInput{RoleName: &name, MaxSessionDuration: aws.Int32(int32(g.Session))}}))
		}
	})
}

// stsDefault is the documented quota: 600 calls a second for an account and Region.
// Source: IAM and AWS STS quotas.
const stsDefault = 600

func judgeSTS(in *Inquiry, report func(Finding)) {
	e, why := in.ledger()
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		switch {
		case e == nil:
			report(unknown("nobody says how many sessions there are: %s", why).at(a.ID, r.Region))
		case r.STSQuota.Refused != "":
			report(unknown("AWS does not say the quota: %s", r.STSQuota.Refused).at(a.ID, r.Region))
		default:
			quota := int64(cmp.Or(r.STSQuota.Value, stsDefault))
			room := quota / 2 * 10
			if e.PeakSessions > room {
				report(fails("%d sessions were in use in one hour, and ten seconds of half the quota of %d a second make %d", e.PeakSessions, quota, room).at(a.ID, r.Region))
				return
			}
			report(holds("%d sessions at the busiest hour, room for %d", e.PeakSessions, room).at(a.ID, r.Region))
		}
	})
}
