package fakeaws

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A RoleState is an IAM role with its documents.
type RoleState struct {
	Path       string // begins and ends with a slash
	Name       string
	Trust      string // the trust policy
	MaxSession int    // seconds
	Tags       map[string]string
	Policies   map[string]string // inline, by name
}

// A ServiceCredential is a long-term Bedrock API key of an IAM user.
type ServiceCredential struct {
	ID, User, Status string
	Service          string // bedrock.amazonaws.com
	Created          time.Time
	Expires          time.Time // zero: never
}

// PutRole puts a role into an account as it is.
func (p *ControlPlane) PutRole(account string, r RoleState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Path == "" {
		r.Path = "/"
	}
	if r.MaxSession == 0 {
		r.MaxSession = 3600
	}
	if r.Tags == nil {
		r.Tags = make(map[string]string)
	}
	if r.Policies == nil {
		r.Policies = make(map[string]string)
	}
	p.account(account).roles[r.Name] = &r
}

// PutServiceCredential puts a long-term Bedrock API key into an account.
func (p *ControlPlane) PutServiceCredential(account string, c ServiceCredential) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.account(account)
	a.keys = append(a.keys, &c)
}

var (
	iamName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	iamPath = regexp.MustCompile(`^/([\x21-\x7e]+/)?$`)
)

func (p *ControlPlane) iam(r *controlRequest) (any, *refusal) {
	a := p.account(r.Account)
	f := r.form
	switch r.Operation {
	case "ListServiceSpecificCredentials":
		return p.listServiceCredentials(r, a)
	case "UpdateServiceSpecificCredential":
		for _, k := range a.keys {
			if k.ID == f.Get("ServiceSpecificCredentialId") && (f.Get("UserName") == "" || f.Get("UserName") == k.User) {
				if s := f.Get("Status"); s != "Active" && s != "Inactive" {
					return nil, refusef("InvalidInput", "Status %q", s)
				}
				k.Status = f.Get("Status")
				return "", nil
			}
		}
		return nil, &refusal{404, "NoSuchEntity", "The credential does not exist."}
	case "CreateRole":
		return p.createRole(r, a)
	}
	role := a.roles[f.Get("RoleName")]
	if role == nil {
		return nil, &refusal{404, "NoSuchEntity", "The role with name " + f.Get("RoleName") + " cannot be found."}
	}
	switch r.Operation {
	case "GetRole":
		return role.xml(a.id, true), nil
	case "ListRoleTags":
		part, next, no := page(sortedKeys(role.Tags), f.Get("Marker"), atoi(f.Get("MaxItems")), 100, p.config.PageSize)
		if no != nil {
			return nil, no
		}
		return "<Tags>" + tagMembers(role.Tags, part) + "</Tags>" + truncated(next), nil
	case "TagRole":
		tags, no := formTags(f)
		if no != nil {
			return nil, no
		}
		return "", role.tag(tags)
	case "UntagRole":
		for i := 1; f.Get(fmt.Sprintf("TagKeys.member.%d", i)) != ""; i++ {
			delete(role.Tags, f.Get(fmt.Sprintf("TagKeys.member.%d", i)))
		}
		return "", nil
	case "UpdateAssumeRolePolicy":
		if no := trustDocument(f.Get("PolicyDocument")); no != nil {
			return nil, no
		}
		role.Trust = f.Get("PolicyDocument")
		return "", nil
	case "UpdateRole":
		if text := f.Get("MaxSessionDuration"); text != "" {
			n := atoi(text)
			if n < 3600 || n > 43200 {
				return nil, refusef("ValidationError", "MaxSessionDuration %s", text)
			}
			role.MaxSession = n
		}
		return "", nil
	case "PutRolePolicy":
		if _, no := readPolicy(f.Get("PolicyDocument")); no != nil {
			return nil, no
		}
		size := len(stripBlanks(f.Get("PolicyDocument")))
		for name, text := range role.Policies {
			if name != f.Get("PolicyName") {
				size += len(stripBlanks(text))
			}
		}
		if size > 10240 {
			return nil, &refusal{409, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role " + role.Name}
		}
		role.Policies[f.Get("PolicyName")] = f.Get("PolicyDocument")
		return "", nil
	case "GetRolePolicy":
		text, ok := role.Policies[f.Get("PolicyName")]
		if !ok {
			return nil, &refusal{404, "NoSuchEntity", "The role policy with name " + f.Get("PolicyName") + " cannot be found."}
		}
		return fmt.Sprintf("<RoleName>%s</RoleName><PolicyName>%s</PolicyName><PolicyDocument>%s</PolicyDocument>", role.Name, escape(f.Get("PolicyName")), escape(url.QueryEscape(text))), nil
	case "ListRolePolicies":
		part, next, no := page(sortedKeys(role.Policies), f.Get("Marker"), atoi(f.Get("MaxItems")), 100, p.config.PageSize)
		if no != nil {
			return nil, no
		}
		var b strings.Builder
		for _, name := range part {
			b.WriteString("<member>" + escape(name) + "</member>")
		}
		return "<PolicyNames>" + b.String() + "</PolicyNames>" + truncated(next), nil
	}
	return nil, refusef("InvalidAction", "Could not find operation %s", r.Operation)
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s) // absent or wrong is none
	return n
}

func stripBlanks(s string) string { return strings.Join(strings.Fields(s), "") }

func truncated(next string) string {
	if next == "" {
		return "<IsTruncated>false</IsTruncated>"
	}
	return "<IsTruncated>true</IsTruncated><Marker>" + next + "</Marker>"
}

// trustDocument judges a trust policy. 2,048 characters are the default quota; blanks count.
func trustDocument(text string) *refusal {
	if len(text) > 2048 {
		return &refusal{409, "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048"}
	}
	d, no := readPolicy(text)
	if no != nil {
		return no
	}
	for _, s := range d.Statement {
		if len(s.Principal) == 0 || len(s.Resource) > 0 {
			return refusef("MalformedPolicyDocument", "a trust policy has a Principal and no Resource")
		}
		for _, a := range s.Action {
			if !strings.HasPrefix(a, "sts:") && a != "*" {
				return refusef("MalformedPolicyDocument", "AssumeRole policy may only specify STS AssumeRole actions: %s", a)
			}
		}
	}
	return nil
}

func formTags(f url.Values) (map[string]string, *refusal) {
	tags := make(map[string]string)
	for i := 1; ; i++ {
		key := f.Get(fmt.Sprintf("Tags.member.%d.Key", i))
		if key == "" {
			return tags, nil
		}
		value := f.Get(fmt.Sprintf("Tags.member.%d.Value", i))
		if !tagText(key, 1, 128) || !tagText(value, 0, 256) || strings.HasPrefix(strings.ToLower(key), "aws:") {
			return nil, refusef("InvalidInput", "tag %q", key)
		}
		for other := range tags {
			if strings.EqualFold(other, key) {
				return nil, refusef("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
			}
		}
		tags[key] = value
	}
}

// tag puts tags on a role: keys ignore case, so another spelling replaces.
func (role *RoleState) tag(tags map[string]string) *refusal {
	for k, v := range tags {
		for old := range role.Tags {
			if strings.EqualFold(old, k) {
				delete(role.Tags, old)
			}
		}
		role.Tags[k] = v
	}
	if len(role.Tags) > 50 {
		return &refusal{409, "LimitExceeded", "Cannot exceed quota for TagsPerRole: 50"}
	}
	return nil
}

func (p *ControlPlane) createRole(r *controlRequest, a *accountState) (any, *refusal) {
	f := r.form
	name, path := f.Get("RoleName"), f.Get("Path")
	if path == "" {
		path = "/"
	}
	if !iamName.MatchString(name) || !iamPath.MatchString(path) || utf8.RuneCountInString(f.Get("Description")) > 1000 {
		return nil, refusef("ValidationError", "RoleName %q, Path %q", name, path)
	}
	if a.roles[name] != nil {
		return nil, &refusal{409, "EntityAlreadyExists", "Role with name " + name + " already exists."}
	}
	if no := trustDocument(f.Get("AssumeRolePolicyDocument")); no != nil {
		return nil, no
	}
	tags, no := formTags(f)
	if no != nil {
		return nil, no
	}
	role := &RoleState{Path: path, Name: name, Trust: f.Get("AssumeRolePolicyDocument"), MaxSession: 3600, Tags: make(map[string]string), Policies: make(map[string]string)}
	if text := f.Get("MaxSessionDuration"); text != "" {
		if role.MaxSession = atoi(text); role.MaxSession < 3600 || role.MaxSession > 43200 {
			return nil, refusef("ValidationError", "MaxSessionDuration %s", text)
		}
	}
	if no := role.tag(tags); no != nil {
		return nil, no
	}
	a.roles[name] = role
	return role.xml(a.id, false), nil
}

func tagMembers(tags map[string]string, keys []string) string {
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "<member><Key>%s</Key><Value>%s</Value></member>", escape(k), escape(tags[k]))
	}
	return b.String()
}

func (role *RoleState) xml(account string, full bool) string {
	s := fmt.Sprintf("<Path>%s</Path><RoleName>%s</RoleName><RoleId>AROA%017d</RoleId><Arn>arn:aws:iam::%s:role%s%s</Arn><CreateDate>2026-01-02T03:04:05Z</CreateDate><AssumeRolePolicyDocument>%s</AssumeRolePolicyDocument>",
		role.Path, role.Name, len(role.Name), account, role.Path, role.Name, escape(url.QueryEscape(role.Trust)))
	if full {
		s += fmt.Sprintf("<MaxSessionDuration>%d</MaxSessionDuration><Tags>%s</Tags>", role.MaxSession, tagMembers(role.Tags, sortedKeys(role.Tags)))
	}
	return "<Role>" + s + "</Role>"
}

func (p *ControlPlane) listServiceCredentials(r *controlRequest, a *accountState) (any, *refusal) {
	f := r.form
	if f.Get("AllUsers") == "true" && f.Get("UserName") != "" {
		return nil, refusef("InvalidInput", "UserName and AllUsers exclude one another")
	}
	var mine []*ServiceCredential
	for _, k := range a.keys {
		if (f.Get("AllUsers") == "true" || f.Get("UserName") == k.User) && (f.Get("ServiceName") == "" || f.Get("ServiceName") == k.Service) {
			mine = append(mine, k)
		}
	}
	part, next, no := page(mine, f.Get("Marker"), atoi(f.Get("MaxItems")), 100, p.config.PageSize)
	if no != nil {
		return nil, no
	}
	var b strings.Builder
	for _, k := range part {
		fmt.Fprintf(&b, "<member><UserName>%s</UserName><Status>%s</Status><ServiceName>%s</ServiceName><ServiceSpecificCredentialId>%s</ServiceSpecificCredentialId><ServiceCredentialAlias>%s</ServiceCredentialAlias><CreateDate>%s</CreateDate>",
			escape(k.User), k.Status, k.Service, k.ID, escape(k.User+"-at-"+a.id), k.Created.UTC().Format(time.RFC3339))
		if !k.Expires.IsZero() {
			b.WriteString("<ExpirationDate>" + k.Expires.UTC().Format(time.RFC3339) + "</ExpirationDate>")
		}
		b.WriteString("</member>")
	}
	return "<ServiceSpecificCredentials>" + b.String() + "</ServiceSpecificCredentials>" + truncated(next), nil
}
