package fakeaws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
)

// A ControlCall is one call to the control plane, before it takes effect.
type ControlCall struct {
	N         int // counts from 1
	Account   string
	Region    string
	Service   string // as the signature names it: bedrock, ce, iam, ...
	Operation string // as the API reference names it
	Write     bool   // it changes something
	Caller    string // ARN
}

// A ControlFault is what goes wrong with a call to the control plane.
type ControlFault struct {
	Status    int
	ErrorType string
	Message   string
	// Cut lets the call take effect and breaks the connection in the place of the answer.
	Cut bool
}

// ControlConfig describes the accounts of a control plane.
type ControlConfig struct {
	// Management is the account that pays, and manages the organisation.
	Management string
	// Members are the other accounts of the organisation.
	Members []string
	// NoOrganization leaves Management alone, outside any organisation.
	NoOrganization bool
	// Fault, if not nil, is asked about each call that is signed well.
	Fault func(ControlCall) *ControlFault
	// PageSize bounds the pages of lists, so that few things already make several; 0
	// means AWS's own sizes.
	PageSize int
	// FixedExports makes UpdateExport refuse to switch principal data on, as some report.
	FixedExports bool
	// NoPrincipalColumn makes exports refuse line_item_iam_principal in the query, as some
	// report: the table property alone brings the column.
	NoPrincipalColumn bool
	// Others answers what is signed for a service that is not of the control plane, such
	// as bedrock-mantle.
	Others http.Handler
}

// DenyAction refuses some actions, named as policies name them: bedrock:Get*, iam:GetRole.
func DenyAction(actions ...string) func(ControlCall) *ControlFault {
	return func(c ControlCall) *ControlFault {
		for _, a := range actions {
			if wild(a, c.action()) {
				return &ControlFault{Status: 403, ErrorType: "AccessDeniedException",
					Message: "User: " + c.Caller + " is not authorized to perform: " + c.action()}
			}
		}
		return nil
	}
}

// DenyWrites refuses everything that changes something.
func DenyWrites(c ControlCall) *ControlFault {
	if c.Write {
		return &ControlFault{Status: 403, ErrorType: "AccessDeniedException", Message: "nothing may be changed: " + c.action()}
	}
	return nil
}

// action is the call as IAM policies name it.
func (c ControlCall) action() string {
	prefix := c.Service
	switch c.Service {
	case "monitoring":
		prefix = "cloudwatch"
	}
	return prefix + ":" + c.Operation
}

// A ControlPlane is the part of AWS that sets things up: Bedrock's control plane, Cost
// Explorer, Data Exports, IAM, Organizations, CloudWatch, CloudTrail, Service Quotas and
// what S3 knows of buckets. It serves STS too. Everything is refused that AWS refuses.
type ControlPlane struct {
	world  *World
	config ControlConfig

	mu       sync.Mutex // guards all below
	calls    []ControlCall
	accounts map[string]*accountState
	buckets  map[string]*bucketState
	billing  billingState
	org      orgState
	fault    func(ControlCall) *ControlFault
}

// An accountState is what one account has in all Regions, and in each.
type accountState struct {
	id      string
	roles   map[string]*RoleState
	keys    []*ServiceCredential
	regions map[string]*regionState
}

type regionState struct {
	logging  json.RawMessage // nil while off
	profiles []*profileState
	groups   map[string]*logGroup
	metrics  []Metric
	trail    []json.RawMessage
	quotas   []Quota
}

// NewControlPlane makes the control plane of a world.
func NewControlPlane(w *World, c ControlConfig) *ControlPlane {
	p := &ControlPlane{world: w, config: c, fault: c.Fault, accounts: make(map[string]*accountState), buckets: make(map[string]*bucketState)}
	p.org.policies = map[string]*orgPolicy{"p-FullAWSAccess": {ID: "p-FullAWSAccess", Name: "FullAWSAccess", Description: "Allows access to every operation", AWSManaged: true,
		Content: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`}}
	p.org.attached = make(map[string][]string)
	for _, target := range append([]string{orgRoot, c.Management}, c.Members...) {
		p.org.attached[target] = []string{"p-FullAWSAccess"}
	}
	return p
}

// SetFault puts another fault in place, or none.
func (p *ControlPlane) SetFault(f func(ControlCall) *ControlFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Calls are the calls so far that were signed well.
func (p *ControlPlane) Calls() []ControlCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]ControlCall(nil), p.calls...)
}

// Writes are those of Calls that change something.
func (p *ControlPlane) Writes() []ControlCall {
	var out []ControlCall
	for _, c := range p.Calls() {
		if c.Write {
			out = append(out, c)
		}
	}
	return out
}

func (p *ControlPlane) account(id string) *accountState {
	a := p.accounts[id]
	if a == nil {
		a = &accountState{id: id, roles: make(map[string]*RoleState), regions: make(map[string]*regionState)}
		p.accounts[id] = a
	}
	return a
}

func (p *ControlPlane) region(account, region string) *regionState {
	a := p.account(account)
	r := a.regions[region]
	if r == nil {
		r = &regionState{groups: make(map[string]*logGroup)}
		a.regions[region] = r
	}
	return r
}

// Serve starts a listener on loopback and gives its URL and a function that stops it.
func (p *ControlPlane) Serve() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }() // it ends with Close
	return "http://" + l.Addr().String(), func() { s.Close() }, nil
}

// A controlRequest is one call that was signed well.
type controlRequest struct {
	ControlCall
	http *http.Request
	body []byte
	form url.Values // query protocol
	path []string   // what the operation's path names, decoded
}

// json reads the body strictly: a member that the operation does not have is refused.
func (r *controlRequest) json(v any) *refusal {
	if len(bytes.TrimSpace(r.body)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &refusal{400, "SerializationException", err.Error()}
	}
	return nil
}

// A protocol is how a service is spoken to.
type protocol struct {
	operation func(r *controlRequest) string
	answer    func(rw http.ResponseWriter, r *controlRequest, v any)
	refuse    func(rw http.ResponseWriter, r *controlRequest, no *refusal)
	do        func(p *ControlPlane, r *controlRequest) (any, *refusal)
}

var protocols = map[string]protocol{
	"bedrock":          {bedrockOperation, answerREST, refuseREST, (*ControlPlane).bedrock},
	"ce":               {targetOperation, answerJSON, refuseJSON, (*ControlPlane).costExplorer},
	"bcm-data-exports": {targetOperation, answerJSON, refuseJSON, (*ControlPlane).dataExports},
	"organizations":    {targetOperation, answerJSON, refuseJSON, (*ControlPlane).organizations},
	"cloudtrail":       {targetOperation, answerJSON, refuseJSON, (*ControlPlane).cloudTrail},
	"servicequotas":    {targetOperation, answerJSON, refuseJSON, (*ControlPlane).serviceQuotas},
	"logs":             {targetOperation, answerJSON, refuseJSON, (*ControlPlane).cloudWatchLogs},
	"iam":              {formOperation, answerXML, refuseXML, (*ControlPlane).iam},
	"monitoring":       {cborOperation, answerCBOR, refuseCBOR, (*ControlPlane).cloudWatch},
	"s3":               {s3Operation, answerS3, refuseS3, (*ControlPlane).s3},
}

// globals are the services whose calls are signed for us-east-1 whatever the Region.
var globals = map[string]bool{"ce": true, "bcm-data-exports": true, "organizations": true, "iam": true}

var credentialScope = regexp.MustCompile(`Credential=[^/]+/[0-9]{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request`)

func (p *ControlPlane) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	found := credentialScope.FindStringSubmatch(r.Header.Get("Authorization"))
	if found == nil || found[2] == "sts" {
		p.world.sts(rw, r)
		return
	}
	proto, ok := protocols[found[2]]
	if !ok {
		if p.config.Others != nil {
			p.config.Others.ServeHTTP(rw, r)
			return
		}
		http.Error(rw, "no service signs as "+found[2], http.StatusNotFound)
		return
	}
	req := &controlRequest{http: r, body: body}
	if found[2] == "s3" && r.Header.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" {
		proto.refuse(rw, req, &refusal{400, "InvalidRequest", "unsigned payloads are for https"})
		return
	}
	caller, scope, no := p.world.verify(r, body, found[2])
	if no != nil {
		proto.refuse(rw, req, no)
		return
	}
	req.ControlCall = ControlCall{Account: caller.account, Region: scope.region, Service: found[2], Caller: caller.arn}
	req.Operation = proto.operation(req)
	if req.Operation == "" {
		proto.refuse(rw, req, &refusal{400, "UnknownOperationException", r.Method + " " + r.RequestURI})
		return
	}
	if globals[req.Service] && req.Region != "us-east-1" {
		proto.refuse(rw, req, &refusal{403, "InvalidSignatureException", "Credential should be scoped to a valid region: us-east-1"})
		return
	}
	req.Write = writes(req.Operation)
	p.mu.Lock()
	defer p.mu.Unlock()
	req.N = len(p.calls) + 1
	p.calls = append(p.calls, req.ControlCall)
	var cut bool
	if p.fault != nil {
		if f := p.fault(req.ControlCall); f != nil {
			if cut = f.Cut; !cut {
				proto.refuse(rw, req, &refusal{f.Status, f.ErrorType, f.Message})
				return
			}
		}
	}
	v, no := proto.do(p, req)
	switch {
	case cut:
		panic(http.ErrAbortHandler)
	case no != nil:
		proto.refuse(rw, req, no)
	default:
		proto.answer(rw, req, v)
	}
}

// writes says whether an operation changes something.
func writes(operation string) bool {
	for _, verb := range []string{"Get", "List", "Describe", "Lookup", "Head"} {
		if strings.HasPrefix(operation, verb) {
			return false
		}
	}
	return true
}

// wild matches a policy's text with * in it, ignoring case as IAM does for actions.
func wild(pattern, text string) bool {
	parts := strings.Split(strings.ToLower(pattern), "*")
	text = strings.ToLower(text)
	if len(parts) == 1 {
		return parts[0] == text
	}
	if !strings.HasPrefix(text, parts[0]) || !strings.HasSuffix(text[len(parts[0]):], parts[len(parts)-1]) {
		return false
	}
	text = text[len(parts[0]) : len(text)-len(parts[len(parts)-1])]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}

// page cuts a list: token is the place to go on at.
func page[T any](all []T, token string, asked, most, mine int) (part []T, next string, no *refusal) {
	size := most
	if asked > 0 {
		size = min(asked, most)
	}
	if mine > 0 {
		size = min(size, mine)
	}
	start := 0
	if token != "" {
		if _, err := fmt.Sscanf(token, "at-%d", &start); err != nil || start > len(all) {
			return nil, "", &refusal{400, "ValidationException", "the token is not one of ours"}
		}
	}
	end := min(start+size, len(all))
	if end < len(all) {
		next = fmt.Sprintf("at-%d", end)
	}
	return all[start:end], next, nil
}

func refusef(kind, format string, args ...any) *refusal {
	return &refusal{400, kind, fmt.Sprintf(format, args...)}
}

// REST-JSON.

func answerREST(rw http.ResponseWriter, r *controlRequest, v any) {
	status := 200
	if r.Operation == "CreateInferenceProfile" {
		status = 201
	}
	writeBody(rw, status, "application/json", encode(v))
}

func refuseREST(rw http.ResponseWriter, _ *controlRequest, no *refusal) {
	rw.Header().Set("X-Amzn-Errortype", no.kind)
	writeBody(rw, no.status, "application/json", encode(obj{"message": no.message}))
}

// JSON 1.1.

func targetOperation(r *controlRequest) string {
	_, op, _ := strings.Cut(r.http.Header.Get("X-Amz-Target"), ".")
	if i := strings.LastIndexByte(op, '.'); i >= 0 { // CloudTrail's long form
		op = op[i+1:]
	}
	if r.http.Method != http.MethodPost || r.http.URL.Path != "/" {
		return ""
	}
	return op
}

func answerJSON(rw http.ResponseWriter, _ *controlRequest, v any) {
	writeBody(rw, 200, "application/x-amz-json-1.1", encode(v))
}

func refuseJSON(rw http.ResponseWriter, _ *controlRequest, no *refusal) {
	status := 400 // whatever the kind, but for those of the server
	if no.status >= 500 {
		status = no.status
	}
	writeBody(rw, status, "application/x-amz-json-1.1", encode(obj{"__type": "com.amazonaws#" + no.kind, "message": no.message}))
}

// CBOR.

func cborOperation(r *controlRequest) string {
	op, ok := strings.CutPrefix(r.http.URL.Path, "/service/GraniteServiceVersion20100801/operation/")
	if !ok || r.http.Method != http.MethodPost || r.http.Header.Get("Smithy-Protocol") != "rpc-v2-cbor" {
		return ""
	}
	return op
}

func answerCBOR(rw http.ResponseWriter, _ *controlRequest, v any) {
	rw.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	value, _ := v.(cbor.Value)
	writeBody(rw, 200, "application/cbor", cbor.Encode(value))
}

func refuseCBOR(rw http.ResponseWriter, _ *controlRequest, no *refusal) {
	rw.Header().Set("Smithy-Protocol", "rpc-v2-cbor")
	writeBody(rw, no.status, "application/cbor", cbor.Encode(cbor.Map{"__type": cbor.String("com.amazonaws.cloudwatch#" + no.kind), "message": cbor.String(no.message)}))
}

// Query.

func formOperation(r *controlRequest) string {
	form, err := url.ParseQuery(string(r.body))
	if err != nil || form.Get("Version") != "2010-05-08" {
		return ""
	}
	r.form = form
	return form.Get("Action")
}

func answerXML(rw http.ResponseWriter, r *controlRequest, v any) {
	inner, _ := v.(string)
	writeBody(rw, 200, "text/xml", []byte(fmt.Sprintf(`<%[1]sResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>%[3]s</RequestId></ResponseMetadata></%[1]sResponse>`,
		r.Operation, inner, newID())))
}

func refuseXML(rw http.ResponseWriter, _ *controlRequest, no *refusal) {
	kind := strings.TrimSuffix(no.kind, "Exception") // IAM's names have no such ending
	writeBody(rw, no.status, "text/xml", []byte(fmt.Sprintf(`<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>%s</RequestId></ErrorResponse>`,
		kind, escape(no.message), newID())))
}

func writeBody(rw http.ResponseWriter, status int, kind string, body []byte) {
	rw.Header().Set("Content-Type", kind)
	rw.Header().Set("X-Amzn-Requestid", newID())
	rw.WriteHeader(status)
	rw.Write(body) // the client may have left
}

// A policyDocument is what is read of a policy to judge whether a service may write
// somewhere: who, what, where, and the two conditions against the confused deputy.
type policyDocument struct {
	Version   string
	Statement []policyStatement
}

type policyStatement struct {
	Sid       string
	Effect    string
	Principal json.RawMessage
	Action    oneOrMany
	Resource  oneOrMany
	Condition map[string]map[string]oneOrMany
}

type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*o = oneOrMany{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// services are the service principals of a statement.
func (s *policyStatement) services() []string {
	var by struct{ Service oneOrMany }
	if json.Unmarshal(s.Principal, &by) != nil {
		return nil
	}
	return by.Service
}

// mayPut says whether a bucket policy lets a service put an object.
func (d *policyDocument) mayPut(service, object, account, sourceARN string) bool {
	for _, s := range d.Statement {
		if s.Effect != "Allow" || !contains(s.services(), service) || !anyWild(s.Action, "s3:PutObject") || !anyWild(s.Resource, object) {
			continue
		}
		good := true
		for operator, terms := range s.Condition {
			for key, values := range terms {
				switch strings.ToLower(key) {
				case "aws:sourceaccount":
					good = good && contains(values, account)
				case "aws:sourcearn":
					good = good && (strings.HasSuffix(operator, "Like") && anyWild(values, sourceARN) || contains(values, sourceARN))
				}
			}
		}
		if good {
			return true
		}
	}
	return false
}

func anyWild(patterns []string, text string) bool {
	for _, p := range patterns {
		if wild(p, text) {
			return true
		}
	}
	return false
}

func readPolicy(text string) (*policyDocument, *refusal) {
	var d policyDocument
	dec := json.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&d); err != nil {
		return nil, refusef("MalformedPolicyDocument", "%v", err)
	}
	if d.Version != "2012-10-17" || len(d.Statement) == 0 {
		return nil, refusef("MalformedPolicyDocument", "a policy has Version 2012-10-17 and a Statement")
	}
	for _, s := range d.Statement {
		if s.Effect != "Allow" && s.Effect != "Deny" || len(s.Action) == 0 {
			return nil, refusef("MalformedPolicyDocument", "statement %s", s.Sid)
		}
	}
	return &d, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
