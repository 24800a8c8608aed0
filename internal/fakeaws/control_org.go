package fakeaws

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

const orgRoot = "r-fake"

type orgState struct {
	policies map[string]*orgPolicy
	attached map[string][]string // policies by target: the root, or an account
	made     int
}

type orgPolicy struct {
	ID, Name, Description, Content string
	AWSManaged                     bool
}

func (o *orgPolicy) summary(account string) obj {
	arn := "arn:aws:organizations::" + account + ":policy/o-fake/service_control_policy/" + o.ID
	if o.AWSManaged {
		arn = "arn:aws:organizations::aws:policy/service_control_policy/" + o.ID
	}
	return obj{"Id": o.ID, "Arn": arn, "Name": o.Name, "Description": o.Description, "Type": "SERVICE_CONTROL_POLICY", "AwsManaged": o.AWSManaged}
}

// Attached are the names of the service control policies on a target: the root "r-fake"
// or an account.
func (p *ControlPlane) Attached(target string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for _, id := range p.org.attached[target] {
		names = append(names, p.org.policies[id].Name)
	}
	return names
}

func (p *ControlPlane) organizations(r *controlRequest) (any, *refusal) {
	if p.config.NoOrganization {
		return nil, refusef("AWSOrganizationsNotInUseException", "Your account is not a member of an organization.")
	}
	if r.Operation == "DescribeOrganization" {
		return obj{"Organization": obj{"Id": "o-fake", "FeatureSet": "ALL", "MasterAccountId": p.config.Management,
			"MasterAccountArn": "arn:aws:organizations::" + p.config.Management + ":account/o-fake/" + p.config.Management}}, nil
	}
	if r.Account != p.config.Management {
		return nil, refusef("AccessDeniedException", "You don't have permissions to access this resource.")
	}
	var in struct {
		Name, Description, Type, Content, Filter, NextToken string
		PolicyID                                            string `json:"PolicyId"`
		TargetID                                            string `json:"TargetId"`
		MaxResults                                          int
		Tags                                                []exportTag
	}
	var raw map[string]json.RawMessage
	if no := r.json(&in); no != nil {
		return nil, no
	}
	_ = json.Unmarshal(r.body, &raw) // read well above
	isPolicies := strings.Contains(r.Operation, "Polic")
	if isPolicies && (r.Operation == "ListPolicies" || r.Operation == "ListPoliciesForTarget") && in.Filter != "SERVICE_CONTROL_POLICY" {
		return nil, refusef("InvalidInputException", "Filter is required")
	}
	most := 20
	if in.MaxResults > most || in.MaxResults < 0 {
		return nil, refusef("InvalidInputException", "MaxResults is 1 to 20")
	}
	list := func(name string, all []obj) (any, *refusal) {
		part, next, no := page(all, in.NextToken, in.MaxResults, most, p.config.PageSize)
		if no != nil {
			return nil, no
		}
		out := obj{name: append([]obj{}, part...)}
		if next != "" {
			out["NextToken"] = next
		}
		return out, nil
	}
	switch r.Operation {
	case "ListAccounts":
		var all []obj
		for _, id := range append([]string{p.config.Management}, p.config.Members...) {
			all = append(all, obj{"Id": id, "Arn": "arn:aws:organizations::" + p.config.Management + ":account/o-fake/" + id, "Name": "account " + id, "Email": id + "@example.com", "Status": "ACTIVE"})
		}
		return list("Accounts", all)
	case "ListRoots":
		return list("Roots", []obj{{"Id": orgRoot, "Arn": "arn:aws:organizations::" + p.config.Management + ":root/o-fake/" + orgRoot, "Name": "Root",
			"PolicyTypes": []obj{{"Type": "SERVICE_CONTROL_POLICY", "Status": "ENABLED"}}}})
	case "ListPolicies":
		var all []obj
		for _, id := range sortedKeys(p.org.policies) {
			all = append(all, p.org.policies[id].summary(p.config.Management))
		}
		return list("Policies", all)
	case "ListPoliciesForTarget":
		ids, ok := p.org.attached[in.TargetID]
		if !ok {
			return nil, refusef("TargetNotFoundException", "%s", in.TargetID)
		}
		var all []obj
		for _, id := range ids {
			all = append(all, p.org.policies[id].summary(p.config.Management))
		}
		return list("Policies", all)
	case "ListTargetsForPolicy":
		var all []obj
		for _, target := range sortedKeys(p.org.attached) {
			if contains(p.org.attached[target], in.PolicyID) {
				kind := "ACCOUNT"
				if target == orgRoot {
					kind = "ROOT"
				}
				all = append(all, obj{"TargetId": target, "Arn": "arn:aws:organizations::" + p.config.Management + ":x/o-fake/" + target, "Name": target, "Type": kind})
			}
		}
		return list("Targets", all)
	case "CreatePolicy":
		if _, ok := raw["Description"]; !ok {
			return nil, refusef("InvalidInputException", "Description is required")
		}
		if no := p.goodSCP(in.Name, in.Description, in.Content, ""); no != nil {
			return nil, no
		}
		if in.Type != "SERVICE_CONTROL_POLICY" {
			return nil, refusef("InvalidInputException", "Type %q", in.Type)
		}
		p.org.made++
		o := &orgPolicy{ID: fmt.Sprintf("p-%08d", p.org.made), Name: in.Name, Description: in.Description, Content: in.Content}
		p.org.policies[o.ID] = o
		return obj{"Policy": obj{"PolicySummary": o.summary(p.config.Management), "Content": o.Content}}, nil
	}
	o := p.org.policies[in.PolicyID]
	if o == nil {
		return nil, refusef("PolicyNotFoundException", "%s", in.PolicyID)
	}
	switch r.Operation {
	case "DescribePolicy":
		return obj{"Policy": obj{"PolicySummary": o.summary(p.config.Management), "Content": o.Content}}, nil
	case "UpdatePolicy":
		next := *o
		if raw["Name"] != nil {
			next.Name = in.Name
		}
		if raw["Description"] != nil {
			next.Description = in.Description
		}
		if raw["Content"] != nil {
			next.Content = in.Content
		}
		if o.AWSManaged {
			return nil, refusef("PolicyChangesInProgressException", "an AWS managed policy")
		}
		if no := p.goodSCP(next.Name, next.Description, next.Content, o.ID); no != nil {
			return nil, no
		}
		*o = next
		return obj{"Policy": obj{"PolicySummary": o.summary(p.config.Management), "Content": o.Content}}, nil
	case "AttachPolicy":
		ids, ok := p.org.attached[in.TargetID]
		switch {
		case !ok:
			return nil, refusef("TargetNotFoundException", "%s", in.TargetID)
		case contains(ids, o.ID):
			return nil, refusef("DuplicatePolicyAttachmentException", "%s on %s", o.ID, in.TargetID)
		case len(ids) >= 5:
			return nil, refusef("ConstraintViolationException", "5 policies on a target")
		}
		p.org.attached[in.TargetID] = append(ids, o.ID)
		return obj{}, nil
	case "DetachPolicy":
		ids := p.org.attached[in.TargetID]
		for i := range ids {
			if ids[i] == o.ID {
				if len(ids) == 1 {
					return nil, refusef("ConstraintViolationException", "a target has one policy at least")
				}
				p.org.attached[in.TargetID] = append(append([]string{}, ids[:i]...), ids[i+1:]...)
				return obj{}, nil
			}
		}
		return nil, refusef("PolicyNotAttachedException", "%s on %s", o.ID, in.TargetID)
	case "DeletePolicy":
		for _, ids := range p.org.attached {
			if contains(ids, o.ID) {
				return nil, refusef("PolicyInUseException", "%s", o.ID)
			}
		}
		delete(p.org.policies, o.ID)
		return obj{}, nil
	}
	return nil, refusef("UnknownOperationException", "%s", r.Operation)
}

// goodSCP judges a service control policy: 5,120 characters as they are sent, blanks and all.
func (p *ControlPlane) goodSCP(name, description, content, id string) *refusal {
	if n := utf8.RuneCountInString(name); n < 1 || n > 128 || utf8.RuneCountInString(description) > 512 {
		return refusef("InvalidInputException", "Name 1 to 128, Description at most 512 characters")
	}
	if len(content) > 5120 {
		return refusef("ConstraintViolationException", "You have exceeded the allowed policy size: %d", len(content))
	}
	d, no := readPolicy(content)
	if no != nil {
		return refusef("MalformedPolicyDocumentException", "The provided policy document does not meet the requirements of the specified policy type.")
	}
	for _, s := range d.Statement {
		if len(s.Principal) > 0 {
			return refusef("MalformedPolicyDocumentException", "a service control policy has no Principal")
		}
	}
	for _, o := range p.org.policies {
		if o.Name == name && o.ID != id {
			return refusef("DuplicatePolicyException", "A policy with the name %s exists.", name)
		}
	}
	return nil
}
