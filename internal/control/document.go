package control

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill/internal/policy"
)

// A document is a policy of AWS as far as it is judged here. Statements are kept as they
// are written, so that what is not ours goes back unchanged.
type document struct {
	Version   string            `json:"Version"`
	ID        string            `json:"Id,omitempty"`
	Statement []json.RawMessage `json:"Statement"`
}

// A policyEntry is what is read of a statement of a policy.
type policyEntry struct {
	Sid          string
	Effect       string
	Principal    principals
	NotPrincipal json.RawMessage
	Action       several
	NotAction    several
	Resource     several
	Condition    map[string]map[string]several
}

// several is one text or a list of them.
type several []string

func (s *several) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*s = several{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// principals are those of a statement, by kind. "*" is all of kind AWS.
type principals map[string]several

func (p *principals) UnmarshalJSON(b []byte) error {
	var all string
	if json.Unmarshal(b, &all) == nil {
		*p = principals{"AWS": {all}}
		return nil
	}
	return json.Unmarshal(b, (*map[string]several)(p))
}

// readDocument reads a policy; an empty text is an empty policy.
func readDocument(text string) (*document, []policyEntry, error) {
	d := &document{Version: "2012-10-17"}
	if strings.TrimSpace(text) == "" {
		return d, nil, nil
	}
	var raw struct {
		Version   string
		ID        string `json:"Id"`
		Statement json.RawMessage
	}
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, nil, fmt.Errorf("read a policy: %w", err)
	}
	// A policy that names no version is of the first, and stays so: an empty one is none.
	d.Version, d.ID = cmp.Or(raw.Version, "2008-10-17"), raw.ID
	if json.Unmarshal(raw.Statement, &d.Statement) != nil {
		d.Statement = []json.RawMessage{raw.Statement} // one statement need not be in a list
	}
	list := make([]policyEntry, len(d.Statement))
	for i := range d.Statement {
		if err := json.Unmarshal(d.Statement[i], &list[i]); err != nil {
			return nil, nil, fmt.Errorf("read statement %d of a policy: %w", i+1, err)
		}
	}
	return d, list, nil
}

// with is the document with a statement of ours in it: in the place of that with the same
// Sid, or at the end.
func (d *document) with(sid string, ours map[string]any) (string, error) {
	ours["Sid"] = sid
	b, err := json.Marshal(ours)
	if err != nil {
		return "", err
	}
	out := *d
	out.Statement = slices.DeleteFunc(slices.Clone(d.Statement), func(raw json.RawMessage) bool {
		var s policyEntry
		return json.Unmarshal(raw, &s) == nil && s.Sid == sid
	})
	out.Statement = append(out.Statement, b)
	text, err := json.Marshal(out)
	return string(text), err
}

// addStatements is a policy with the statements of another that it does not have. A
// policy that cannot be read adds nothing.
func addStatements(policy, other string) string {
	d, list, err := readDocument(policy)
	if err != nil {
		return other
	}
	o, added, err := readDocument(other)
	if err != nil {
		return policy
	}
	for i, s := range o.Statement {
		has := slices.ContainsFunc(d.Statement, func(raw json.RawMessage) bool { return bytes.Equal(raw, s) }) ||
			added[i].Sid != "" && slices.ContainsFunc(list, func(e policyEntry) bool { return e.Sid == added[i].Sid })
		if !has {
			d.Statement = append(d.Statement, s)
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		return policy
	}
	return string(b)
}

func matchAny(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return policy.MatchPattern(strings.ToLower(p), strings.ToLower(text)) })
}

// lets says whether a bucket policy lets an AWS service put an object for an account. It
// is an estimate: of conditions it knows the two against a confused deputy, and takes
// others for granted; what is denied it believes.
func lets(list []policyEntry, service, bucket, key, account, source string) bool {
	allowed := false
	for _, s := range list {
		who := s.Principal["Service"]
		if !slices.Contains(who, service) && !slices.Contains(who, "*") && !slices.Contains(s.Principal["AWS"], "*") {
			continue
		}
		if !matchAny(s.Action, "s3:PutObject") || !matchAny(s.Resource, "arn:aws:s3:::"+bucket+"/"+key) && !matchAny(s.Resource, "arn:aws-cn:s3:::"+bucket+"/"+key) && !matchAny(s.Resource, "arn:aws-us-gov:s3:::"+bucket+"/"+key) {
			continue
		}
		applies := true
		for operator, terms := range s.Condition {
			for name, values := range terms {
				not := strings.Contains(operator, "Not") // StringNotEquals, ArnNotLike
				switch strings.ToLower(name) {
				case "aws:sourceaccount":
					applies = applies && matchAny(values, account) != not
				case "aws:sourcearn":
					applies = applies && (matchAny(values, source) || slices.Contains(values, source)) != not
				case "aws:securetransport", "aws:principalisawsservice":
					// It is a service that calls, and services speak TLS.
					applies = applies && (strings.HasPrefix(operator, "Null") || slices.Contains(values, "true"))
				}
			}
		}
		if !applies {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		allowed = allowed || s.Effect == "Allow"
	}
	return allowed
}
