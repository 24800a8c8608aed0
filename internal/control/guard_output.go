package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/waybill-dev/waybill/internal/iam"
)

// commented is a document's policy as indented JSON with, before each statement, a
// comment that says why it is there: for languages that hold JSON and have comments.
func (d *Document) commented(indent string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "{\n%s  \"Version\": \"2012-10-17\",\n%s  \"Statement\": [\n", indent, indent)
	for i, s := range d.Policy.Statement {
		flat, err := plainJSON(s)
		if err != nil {
			return "", fmt.Errorf("write %s: %w", d.Name, err)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, flat, indent+"    ", "  "); err != nil {
			return "", fmt.Errorf("write %s: %w", d.Name, err)
		}
		comma := ","
		if i == len(d.Policy.Statement)-1 {
			comma = ""
		}
		fmt.Fprintf(&b, "%s    # %s\n%s    %s%s\n", indent, s.why, indent, pretty.String(), comma)
	}
	fmt.Fprintf(&b, "%s  ]\n%s}", indent, indent)
	return b.String(), nil
}

// roleName is the path and name of the first of the gateway's roles, without wildcards.
func (g *Guard) roleName() (path, name string) {
	full := strings.SplitN(instance(g.Roles[0], g.Account), ":role", 2)[1]
	at := strings.LastIndexByte(full, '/')
	return full[:at+1], full[at+1:]
}

// Terraform writes the policies as a Terraform configuration for the AWS provider.
func (p *Policies) Terraform() ([]byte, error) {
	var b strings.Builder
	path, name := p.Guard.roleName()
	fmt.Fprintf(&b, `# Written by waybill guard. The service control policies belong in the organization's
# management account or its delegated administrator; the role and the endpoint policies in
# the account that calls Bedrock.

variable "waybill_scp_targets" {
  description = "Ids of the organization root, units or accounts to which the service control policies are attached"
  type        = set(string)
  default     = []
}

variable "waybill_vpc_endpoints" {
  description = "Ids of the VPC endpoints of bedrock-runtime and bedrock-mantle"
  type        = set(string)
  default     = []
}

variable "waybill_role_name" {
  description = "Name of the role under which the gateway calls Bedrock; one that the guard's roles match"
  type        = string
  default     = %q
}
`, name)
	for i := range p.Documents {
		d := &p.Documents[i]
		policy, err := d.commented("  ")
		if err != nil {
			return nil, err
		}
		policy = strings.NewReplacer("${", "$${", "%{", "%%{").Replace(policy)
		label := "waybill_" + strings.ReplaceAll(d.Name, "-", "_")
		fmt.Fprintf(&b, "\n# %s.\n", upperFirst(d.Why))
		switch d.Kind {
		case iam.ServiceControl:
			fmt.Fprintf(&b, `resource "aws_organizations_policy" %q {
  name        = %q
  description = %q
  type        = "SERVICE_CONTROL_POLICY"
  content = jsonencode(%s)
}

resource "aws_organizations_policy_attachment" %q {
  for_each  = var.waybill_scp_targets
  policy_id = aws_organizations_policy.%s.id
  target_id = each.value
}
`, label, "waybill-"+d.Name, upperFirst(d.Why), policy, label, label)
		case iam.Trust:
			fmt.Fprintf(&b, `resource "aws_iam_role" "waybill_bedrock" {
  name        = var.waybill_role_name
  path        = %q
  description = %q
  assume_role_policy = jsonencode(%s)
}
`, path, upperFirst(d.Why), policy)
		case iam.Identity:
			fmt.Fprintf(&b, `resource "aws_iam_role_policy" %q {
  name = %q
  role = aws_iam_role.waybill_bedrock.id
  policy = jsonencode(%s)
}
`, label, "waybill-"+d.Name, policy)
		case iam.Endpoint:
			fmt.Fprintf(&b, `resource "aws_vpc_endpoint_policy" %q {
  for_each        = var.waybill_vpc_endpoints
  vpc_endpoint_id = each.value
  policy = jsonencode(%s)
}
`, label, policy)
		}
	}
	return []byte(b.String()), nil
}

// CloudFormation writes the policies as a template. It leaves out what no parameter is
// given for: the policies of the organization, and the endpoints.
func (p *Policies) CloudFormation() ([]byte, error) {
	var b strings.Builder
	path, name := p.Guard.roleName()
	fmt.Fprintf(&b, `# Written by waybill guard. Give ScpTargets in the organization's management account, RoleName
# and the parameters of the VPC in the account that calls Bedrock.
AWSTemplateFormatVersion: '2010-09-09'
Description: The gateway is the only way to Amazon Bedrock
Parameters:
  ScpTargets:
    Type: CommaDelimitedList
    Default: ''
    Description: Ids of the organization root, units or accounts to which the service control policies are attached
  RoleName:
    Type: String
    Default: %s
    Description: The role under which the gateway calls Bedrock; empty for none
  VpcId:
    Type: String
    Default: ''
    Description: The VPC of the gateway, where it reaches Bedrock by endpoints
  SubnetIds:
    Type: CommaDelimitedList
    Default: ''
  SecurityGroupIds:
    Type: CommaDelimitedList
    Default: ''
Conditions:
  HasTargets: !Not [!Equals [!Join ['', !Ref ScpTargets], '']]
  HasRole: !Not [!Equals [!Ref RoleName, '']]
  HasVpc: !Not [!Equals [!Ref VpcId, '']]
  HasSecurityGroups: !Not [!Equals [!Join ['', !Ref SecurityGroupIds], '']]
Resources:
`, name)
	var trust *Document
	for i := range p.Documents {
		d := &p.Documents[i]
		policy, err := d.commented("        ")
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "  # %s.\n", upperFirst(d.Why))
		switch d.Kind {
		case iam.ServiceControl:
			fmt.Fprintf(&b, `  Waybill%s:
    Type: AWS::Organizations::Policy
    Condition: HasTargets
    Properties:
      Name: waybill-%s
      Description: %s
      Type: SERVICE_CONTROL_POLICY
      TargetIds: !Ref ScpTargets
      Content:
        %s
`, strings.ReplaceAll(sidName(d.Name), "-", ""), d.Name, upperFirst(d.Why), policy)
		case iam.Trust:
			trust = d
			fmt.Fprintf(&b, `  WaybillBedrock:
    Type: AWS::IAM::Role
    Condition: HasRole
    Properties:
      RoleName: !Ref RoleName
      Path: %s
      AssumeRolePolicyDocument:
        %s
`, path, policy)
		case iam.Identity:
			fmt.Fprintf(&b, `  WaybillRolePermissions:
    Type: AWS::IAM::RolePolicy
    Condition: HasRole
    Properties:
      PolicyName: waybill-role-permissions
      RoleName: !Ref WaybillBedrock
      PolicyDocument:
        %s
`, policy)
		case iam.Endpoint:
			for _, service := range []string{"runtime", "mantle"} {
				fmt.Fprintf(&b, `  Waybill%sEndpoint:
    Type: AWS::EC2::VPCEndpoint
    Condition: HasVpc
    Properties:
      ServiceName: !Sub 'com.amazonaws.${AWS::Region}.bedrock-%s'
      VpcEndpointType: Interface
      PrivateDnsEnabled: true
      VpcId: !Ref VpcId
      SubnetIds: !Ref SubnetIds
      SecurityGroupIds: !If [HasSecurityGroups, !Ref SecurityGroupIds, !Ref 'AWS::NoValue']
      PolicyDocument:
        %s
`, upperFirst(service), service, policy)
			}
		}
	}
	if trust == nil {
		return nil, fmt.Errorf("write CloudFormation: there is no trust policy")
	}
	return []byte(b.String()), nil
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// Diff shows how a policy that is in force differs from the document: what is to go and
// what is to come. It is empty if they say the same in the same order; the order within
// lists, and white space, make no difference.
func (d *Document) Diff(name string, inForce []byte) ([]byte, error) {
	if _, err := iam.Parse(name, d.Kind, inForce); err != nil {
		return nil, err
	}
	before, err := canonical(inForce)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	after, err := canonical(d.JSON)
	if err != nil {
		return nil, err
	}
	return diff.Diff(name, before, d.Name, after), nil
}

func canonical(policy []byte) ([]byte, error) {
	var v any
	if err := json.Unmarshal(policy, &v); err != nil {
		return nil, err
	}
	if m, ok := v.(map[string]any); ok {
		if one, ok := m["Statement"].(map[string]any); ok {
			m["Statement"] = []any{one}
		}
	}
	flat, err := plainJSON(ordered(v))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, flat, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// ordered sorts lists of texts, and makes a text of a list of one.
func ordered(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = ordered(v[k])
		}
	case []any:
		var list []string
		for i := range v {
			v[i] = ordered(v[i])
			if s, ok := v[i].(string); ok {
				list = append(list, s)
			}
		}
		if len(list) == len(v) && len(v) == 1 {
			return list[0]
		}
		if len(list) == len(v) {
			slices.Sort(list)
			return list
		}
	}
	return v
}
