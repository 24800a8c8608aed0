package policy

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
)

// A CasesFile is what a policy is expected to say of some calls: the policy's own
// tests, kept beside it in a text that a finance colleague can read.
type CasesFile struct {
	// Cases in the order in which they are told.
	Cases []CaseFile `yaml:"cases"`
}

// A CaseFile is one call and what is expected of it.
type CaseFile struct {
	At Node `yaml:"-"`
	// Name says what is true.
	Name string `yaml:"name"`
	// Caller is who calls.
	Caller CallerFile `yaml:"caller"`
	// Model that is called, as the caller names it.
	Model string `yaml:"model"`
	// Operation, such as Converse or InvokeModel.
	Operation string `yaml:"operation"`
	// Endpoint is bedrock-runtime or bedrock-mantle.
	Endpoint string `yaml:"endpoint" jsonschema:"enum=bedrock-runtime,enum=bedrock-mantle"`
	// Region that is called.
	Region string `yaml:"region"`
	// On is the day of the call, for reorganisations.
	On Date `yaml:"on"`
	// Sends are the tags that the request brings in X-Waybill-Tags.
	Sends Ordered[string] `yaml:"sends"`
	// Headers that the request brings: those of other gateways, for instance.
	Headers Ordered[string] `yaml:"headers"`
	// Outcome is allowed, warned or refused.
	Outcome string `yaml:"outcome" jsonschema:"enum=allowed,enum=warned,enum=refused"`
	// Because lists every violation that is not merely observed: KEY missing, KEY
	// not_allowed, ... An empty list means none.
	Because *Texts `yaml:"because"`
	// Notes lists every violation that is merely observed, in the same words.
	Notes *Texts `yaml:"notes"`
	// Tags that the call has at the end, among others. A value may hold *.
	Tags Ordered[string] `yaml:"tags"`
	// Without names keys that the call has not.
	Without Texts `yaml:"without"`
	// Request names exactly the keys that ride on request metadata.
	Request *Texts `yaml:"request"`
	// Session names exactly the keys that ride on the role session.
	Session *Texts `yaml:"session"`
	// SessionName of the role session. It may hold *.
	SessionName string `yaml:"sessionName"`
}

// A CallerFile is who calls in a case: a subject, or more of it.
type CallerFile struct {
	// Subject names the caller.
	Subject string `yaml:"subject"`
	// Issuer vouches for the subject.
	Issuer string `yaml:"issuer"`
	// Key is the id of the gateway key.
	Key string `yaml:"key"`
	// Claims of the caller's token.
	Claims Ordered[string] `yaml:"claims"`
	// Tags of the caller's registration.
	Tags Ordered[string] `yaml:"tags"`
}

func (c *CallerFile) fromNode(n Node) bool {
	if n.IsMapping() {
		return false
	}
	c.Subject = n.Text()
	return true
}

// A CaseResult is how one case came out.
type CaseResult struct {
	Name     string   `json:"name"`
	Position string   `json:"position"`
	Failures []string `json:"failures,omitempty"` // what was expected and did not come; none if all is well
}

// RunCases holds a policy against its cases. The error is the mistakes of the file.
func (p *Policy) RunCases(file string, src []byte) ([]CaseResult, error) {
	d, err := ReadYAML(file, src)
	if err != nil {
		return nil, err
	}
	var f CasesFile
	decode(d.Root(), &f)
	names := make(map[string]string)
	for i := range f.Cases {
		c := &f.Cases[i]
		if c.Name == "" {
			c.At.Mistake("add name: what is true", "the case has no name")
		} else if other, twice := names[c.Name]; twice {
			c.At.Field("name").Mistake("name each case", "%s has the same name", other)
		}
		names[c.Name] = c.At.Position()
		if !c.At.Has("outcome") && c.Because == nil && c.Notes == nil && len(c.Tags) == 0 && len(c.Without) == 0 && c.Request == nil && c.Session == nil && c.SessionName == "" {
			c.At.Mistake("add outcome, because, tags, ...", "the case expects nothing")
		}
		for _, e := range c.Tags {
			if !p.Declares(e.Name) && p.unknown != "pass" {
				p.undeclaredKey(e.At, e.Name)
			}
		}
		for _, name := range c.Without { // that a misspelt key is not there proves nothing
			if _, sent := c.Sends.Get(name); !p.Declares(name) && p.unknown != "pass" && !sent && len(c.Headers) == 0 {
				p.undeclaredKey(c.At.Field("without"), name)
			}
		}
	}
	if err := d.Err(); err != nil {
		return nil, err
	}
	out := make([]CaseResult, len(f.Cases))
	for i := range f.Cases {
		c := &f.Cases[i]
		out[i] = CaseResult{Name: c.Name, Position: c.At.Position()}
		req, err := c.request()
		if err != nil {
			out[i].Failures = []string{"the headers of the call cannot be read: " + err.Error()}
			continue
		}
		out[i].Failures = c.check(p.Decide(req))
	}
	return out, nil
}

// request is the call of a case.
func (c *CaseFile) request() (*Request, error) {
	req := &Request{CallID: "0195e000-0000-7000-8000-000000000001", Operation: c.Operation, Endpoint: waybill.Endpoint(c.Endpoint), Region: c.Region, Model: waybill.ModelID(c.Model),
		Principal: waybill.Principal{Subject: c.Caller.Subject, Issuer: c.Caller.Issuer, KeyID: c.Caller.Key, Claims: make(map[string]string)}}
	for _, e := range c.Caller.Claims {
		req.Principal.Claims[e.Name] = e.Value
	}
	var tags []waybill.Tag
	for _, e := range c.Caller.Tags {
		tags = append(tags, waybill.Tag{Key: e.Name, Value: e.Value})
	}
	req.Principal.Tags = waybill.NewTags(tags...)
	if c.On.Day != 0 {
		req.At = c.On.Start()
	}
	h := make(http.Header)
	for _, e := range c.Headers {
		h[e.Name] = append(h[e.Name], e.Value)
	}
	asked, err := TakeAsked(h)
	if err != nil {
		return nil, err
	}
	for _, e := range c.Headers {
		if _, left := h[e.Name]; left {
			return nil, fmt.Errorf("%s brings no tags", e.Name)
		}
	}
	for _, e := range c.Sends {
		req.Asked = append(req.Asked, Asked{e.Name, e.Value, TagsHeader})
	}
	req.Asked = append(req.Asked, asked...)
	Order(req.Asked)
	return req, nil
}

// check says what a decision lacks of what a case expects.
func (c *CaseFile) check(d *Decision) []string {
	var out []string
	fail := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if c.Outcome != "" && c.Outcome != string(d.Outcome) {
		why := ""
		if len(d.Violations) > 0 {
			why = ": " + strings.Join(reasons(d, true), ", ")
		}
		fail("outcome is %s, expected %s%s", d.Outcome, c.Outcome, why)
	}
	compare := func(what string, got []string, want *Texts) {
		if want == nil {
			return
		}
		plain := func(texts []string) []string {
			out := make([]string, len(texts))
			for i, w := range texts {
				out[i] = strings.Join(strings.FieldsFunc(w, func(r rune) bool { return r == ' ' || r == ':' }), " ")
			}
			slices.Sort(out)
			return slices.Compact(out) // as records have them: each once
		}
		got, wanted := plain(got), plain(*want)
		if !slices.Equal(got, wanted) {
			fail("%s: [%s], expected [%s]", what, strings.Join(got, ", "), strings.Join(wanted, ", "))
		}
	}
	compare("because", reasons(d, false), c.Because)
	compare("notes", notes(d), c.Notes)
	for _, e := range c.Tags {
		if got, there := d.Tags.Get(e.Name); !there {
			fail("tag %s is not there, expected %s", e.Name, e.Value)
		} else if !MatchPattern(e.Value, got) {
			fail("tag %s is %s, expected %s", e.Name, got, e.Value)
		}
	}
	for _, name := range c.Without {
		if got, there := d.Tags.Get(name); there {
			fail("tag %s is %s, expected none", name, got)
		}
	}
	keys := func(t waybill.Tags) []string {
		var out []string
		for k := range t.All() {
			out = append(out, k)
		}
		return out
	}
	compare("request", keys(d.Request), c.Request)
	compare("session", keys(d.Session), c.Session)
	if c.SessionName != "" && !MatchPattern(c.SessionName, d.SessionName) {
		fail("session name is %s, expected %s", d.SessionName, c.SessionName)
	}
	return out
}

func reasons(d *Decision, observed bool) []string {
	var out []string
	for _, v := range d.Violations {
		if v.Mode != Observe || observed {
			out = append(out, strings.TrimSpace(v.Key+" "+v.Code))
		}
	}
	return out
}

func notes(d *Decision) []string {
	var out []string
	for _, v := range d.Violations {
		if v.Mode == Observe {
			out = append(out, strings.TrimSpace(v.Key+" "+v.Code))
		}
	}
	return out
}
