package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/waybill-dev/waybill"
)

// An AWS identity is proven as EKS and Vault have it: the caller presigns a call of
// GetCallerIdentity, which nobody can forbid and which tells nothing but who signed,
// and the gateway makes the call. The secret never leaves the caller; what does is good
// for minutes, for this one call, and for this one gateway, whose name is signed too.

// proofPrefix begins a proof where a bearer token stands.
const proofPrefix = "wbaws-v1."

// ProofHeader is the header for a proof where there is no place for a bearer token.
const ProofHeader = "X-Waybill-Aws-Identity"

// gatewayHeader is signed into every proof, with the gateway's name.
const gatewayHeader = "x-waybill-gateway"

// The longest proof. A session token may have some 4 KB, which escapes make more of.
const (
	maxProofURL = 8 << 10
	maxProof    = len(proofPrefix) + (maxProofURL+2)/3*4
)

// AWSConfig says which AWS identities are taken as callers. Gateway, Accounts and Rules
// must be given.
type AWSConfig struct {
	// Gateway is this gateway's name, which callers sign: a proof made for another
	// gateway is worthless here, and theirs there. Give no two gateways that do not
	// trust each other one name.
	Gateway string
	// Accounts are the AWS accounts whose identities are taken at all.
	Accounts []string
	// Rules say who an identity is: the first that fits. Without one it is nobody.
	Rules []AWSRule
	// Regions whose STS may be asked; nil means all.
	Regions []string
	// MaxAge is how old a proof may be, whatever it says itself; 0 means 15 minutes,
	// which is also the most.
	MaxAge time.Duration
	// Keep is how long an answer of STS is relied on, at most until the proof's end; 0
	// means five minutes. So long may a role that is taken away still call.
	Keep time.Duration
	// KeepRefused is how long STS is not asked again about a proof that it refused; 0
	// means half a minute.
	KeepRefused time.Duration
	// Kept bounds how many answers are kept, good and bad ones apart; 0 means 10,000,
	// some 10 MB each.
	Kept int
	// PerSecond bounds the calls to STS on behalf of strangers; 0 means 20. Access keys
	// of callers that were taken within the hour have a bound of their own, five
	// times as high, so that strangers cannot crowd them out.
	PerSecond float64
	// PerSource bounds those from one address, or with one known access key; 0 means 1,
	// after a first ten.
	PerSource float64
	// Source is the address that a request comes from; nil means that of the
	// connection, which behind a load balancer is the balancer's.
	Source func(*http.Request) string
	// Timeout of one call to STS; 0 means five seconds.
	Timeout time.Duration
	// Client makes the calls to STS; nil means one that goes through the proxy of the
	// environment. Redirects are never followed.
	Client http.RoundTripper
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// An AWSRule says who AWS identities are that fit.
type AWSRule struct {
	// Principal is a pattern for the ARN of the IAM role or user:
	// arn:aws:iam::111122223333:role/ci-*, where * is any run of characters but : and
	// /. STS leaves the path of a role out (a user's is there), and so must the pattern.
	Principal string
	// RoleID, if given, is the unique id of the role or user (AROA...): a role that is
	// deleted and made anew under its name has another.
	RoleID string
	// Session, if given, is a pattern for the name of the role session.
	Session string
	// TrustSession says that the caller did not choose the name of the session: an
	// identity provider did (SSO), or the role's trust policy demands it. Without it
	// the name is not looked at but by Session, since whoever may assume a role may
	// call the session what they like.
	TrustSession bool
	// Subject is who the caller is; {account}, {name} (of the role or user) and, under
	// TrustSession, {session} are filled in. Empty means the ARN of the role or user.
	Subject string
	// Tags, Models and Environments are those of a key.
	Tags         waybill.Tags
	Models       []string
	Environments []string
}

// AWS knows callers by a proof of their AWS identity.
type AWS struct {
	config   AWSConfig
	rules    []awsRule
	flights  singleflight.Group
	good     *lru.Cache[proofID, kept]
	bad      *lru.Cache[proofID, kept]
	known    *lru.Cache[string, time.Time] // access key ids of callers that were taken, and when
	sources  *lru.Cache[string, *rate.Limiter]
	strange  *rate.Limiter
	familiar *rate.Limiter
}

type awsRule struct {
	AWSRule
	principal, session *regexp.Regexp
}

// proofID names a proof in caches: the hash of what STS would be asked.
type proofID [sha256.Size]byte

// kept is an answer, good or bad, and how long it is relied on.
type kept struct {
	principal waybill.Principal
	refusal   *Refusal
	until     time.Time
}

// NewAWS makes a verifier of AWS identities.
func NewAWS(c AWSConfig) (*AWS, error) {
	misused := func(hint, format string, a ...any) (*AWS, error) {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf(format, a...), Hint: hint}
	}
	if !gatewayName.MatchString(c.Gateway) {
		return misused("give it one, such as the host name callers use", "AWS identities need the gateway's name: 1 to 128 letters, digits and ._-:/")
	}
	if len(c.Accounts) == 0 {
		return misused("list the accounts that callers come from", "AWS identities need a list of accounts")
	}
	for _, account := range c.Accounts {
		if !accountID.MatchString(account) {
			return misused("write its 12 digits", "%q is no AWS account", account)
		}
	}
	for _, region := range c.Regions {
		if !regionName.MatchString(region) {
			return misused("write it as in us-east-1", "%q is no AWS Region", region)
		}
	}
	if len(c.Rules) == 0 {
		return misused("add a rule for each role that may call", "AWS identities need rules that say who they are")
	}
	p := &AWS{config: c}
	for i, r := range c.Rules {
		if !ruleARN.MatchString(r.Principal) {
			return misused("write arn:aws:iam::ACCOUNT:role/NAME or arn:aws:iam::ACCOUNT:user/NAME, with * for any characters but : and /", "rule %d: %q is no pattern for the ARN of a role or user", i+1, r.Principal)
		}
		rest := strings.NewReplacer("{account}", "", "{name}", "").Replace(r.Subject)
		if r.TrustSession {
			rest = strings.ReplaceAll(rest, "{session}", "")
		}
		if strings.ContainsAny(rest, "{}") {
			return misused("{account}, {name} and, with trustSession, {session} are filled in", "rule %d: subject %q has something in braces that is not filled in", i+1, r.Subject)
		}
		rule := awsRule{AWSRule: r, principal: starred(r.Principal)}
		if r.Session != "" {
			rule.session = starred(r.Session)
		}
		p.rules = append(p.rules, rule)
	}
	orDuration := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	orDuration(&p.config.MaxAge, 15*time.Minute)
	p.config.MaxAge = min(p.config.MaxAge, 15*time.Minute)
	orDuration(&p.config.Keep, 5*time.Minute)
	orDuration(&p.config.KeepRefused, 30*time.Second)
	orDuration(&p.config.Timeout, 5*time.Second)
	if p.config.Kept <= 0 {
		p.config.Kept = 10_000
	}
	if p.config.PerSecond <= 0 {
		p.config.PerSecond = 20
	}
	if p.config.PerSource <= 0 {
		p.config.PerSource = 1
	}
	if p.config.Source == nil {
		p.config.Source = connectionSource
	}
	if p.config.Client == nil {
		p.config.Client = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: p.config.Timeout,
			DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 16 << 10}
	}
	if p.config.Now == nil {
		p.config.Now = time.Now
	}
	p.good, _ = lru.New[proofID, kept](p.config.Kept) // it fails for sizes below one
	p.bad, _ = lru.New[proofID, kept](p.config.Kept)
	p.known, _ = lru.New[string, time.Time](p.config.Kept)
	p.sources, _ = lru.New[string, *rate.Limiter](p.config.Kept)
	p.strange = rate.NewLimiter(rate.Limit(p.config.PerSecond), burst(p.config.PerSecond))
	p.familiar = rate.NewLimiter(rate.Limit(5*p.config.PerSecond), burst(5*p.config.PerSecond))
	return p, nil
}

func burst(perSecond float64) int { return max(10, int(2*perSecond)) }

var (
	gatewayName = regexp.MustCompile(`^[A-Za-z0-9._:/-]{1,128}$`)
	accountID   = regexp.MustCompile(`^[0-9]{12}$`)
	ruleARN     = regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}|\*):(root|(role|user)/[\w+=,.@*/-]+)$|^arn:aws[a-z-]*:sts::([0-9]{12}|\*):federated-user/[\w+=,.@*-]+$`)
)

// starred is the regular expression of a pattern in which * is any run of characters
// but : and /.
func starred(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`^` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `[^:/]*`) + `$`)
}

// connectionSource is the address of the connection; of IPv6 the network, since one
// machine has a whole one.
func connectionSource(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() && !addr.Is4In6() {
		if network, err := addr.WithZone("").Prefix(64); err == nil {
			return network.String()
		}
	}
	return host
}

// Method is AWS identities as a way of proving who calls.
func (p *AWS) Method() Method {
	return Method{Name: "aws", Claims: BringsAWSIdentity, Authenticate: p.Authenticate, Headers: []string{ProofHeader}}
}

// BringsAWSIdentity reports whether a request brings a proof of an AWS identity, good
// or bad.
func BringsAWSIdentity(r *http.Request) bool {
	_, n := proofOf(r.Header)
	return n > 0
}

// proofOf is the proof among the headers, and how many there are that differ.
func proofOf(h http.Header) (proof string, n int) {
	count := func(s string) {
		if s != "" && s != proof {
			proof, n = s, n+1
		}
	}
	for _, v := range h[ProofHeader] {
		count(strings.TrimSpace(v))
	}
	for _, v := range h["Authorization"] {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") && strings.HasPrefix(strings.TrimSpace(token), proofPrefix) {
			count(strings.TrimSpace(token))
		}
	}
	for _, name := range []string{"X-Api-Key", "Api-Key"} {
		for _, v := range h[name] {
			if strings.HasPrefix(strings.TrimSpace(v), proofPrefix) {
				count(strings.TrimSpace(v))
			}
		}
	}
	return proof, n
}

// Authenticate asks STS who has signed the proof of a request, unless it was asked
// before. Everything that can be seen in the proof is checked first: a stranger makes
// us call STS, and nobody else, at a bounded rate. Where STS cannot be asked, the error
// is of kind Unavailable.
func (p *AWS) Authenticate(r *http.Request) (waybill.Principal, error) {
	text, n := proofOf(r.Header)
	if n != 1 {
		return waybill.Principal{}, refuse(ReasonMalformed)
	}
	now := p.config.Now()
	proof, why := p.read(text, now)
	if why != "" {
		return waybill.Principal{}, refuse(why)
	}
	source := p.config.Source(r)
	for range 2 {
		if k, ok := p.recall(proof.id, now); ok {
			return k.result()
		}
		mine := false
		answer := p.flights.DoChan(string(proof.id[:]), func() (any, error) {
			mine = true
			return p.ask(proof, source)
		})
		select {
		case <-r.Context().Done():
			return waybill.Principal{}, notAsked(r.Context().Err())
		case got := <-answer:
			if got.Err == nil {
				return got.Val.(kept).result()
			}
			if mine || !errors.Is(got.Err, errTooOften) {
				return waybill.Principal{}, got.Err
			}
			// Another source with the same proof has asked too often, not this one.
		}
	}
	return waybill.Principal{}, notAsked(errTooOften)
}

func (k kept) result() (waybill.Principal, error) {
	if k.refusal != nil {
		return waybill.Principal{}, k.refusal
	}
	return k.principal, nil
}

// recall is the answer that is still relied on, if there is one.
func (p *AWS) recall(id proofID, now time.Time) (kept, bool) {
	for _, answers := range []*lru.Cache[proofID, kept]{p.good, p.bad} {
		if k, ok := answers.Get(id); ok {
			if now.Before(k.until) {
				return k, true
			}
			answers.Remove(id)
		}
	}
	return kept{}, false
}

// errTooOften is why STS is not asked.
var errTooOften = errors.New("STS is asked too often on behalf of strangers")

func notAsked(err error) error {
	return &waybill.Error{Kind: waybill.Unavailable, Code: "WB1005", Message: "the AWS identity cannot be checked at this time", Hint: "try again", Err: err}
}

// ask asks STS and keeps the answer. It runs for all who wait for it, and so under a
// time of its own.
func (p *AWS) ask(proof *awsProof, source string) (kept, error) {
	now := p.config.Now()
	if k, ok := p.recall(proof.id, now); ok {
		return k, nil // it came between looking and asking
	}
	if !p.mayAsk(proof.keyID, source, now) {
		return kept{}, notAsked(errTooOften)
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.config.Timeout)
	defer cancel()
	who, err := p.call(ctx, proof)
	if why, ok := errors.AsType[*Refusal](err); ok {
		k := kept{refusal: why, until: now.Add(p.config.KeepRefused)}
		p.bad.Add(proof.id, k)
		return k, nil
	}
	if err != nil {
		return kept{}, notAsked(err) // not kept: the next one may fare better
	}
	k := kept{until: now.Add(p.config.Keep)}
	if proof.ends.Before(k.until) {
		k.until = proof.ends
	}
	if k.principal, k.refusal = p.match(who); k.refusal != nil {
		p.bad.Add(proof.id, k)
	} else {
		p.good.Add(proof.id, k)
		p.known.Add(proof.keyID, now)
	}
	return k, nil
}

// mayAsk counts a call to STS, and reports whether it is one too many: of its source or,
// if it is known, its access key; and of all of the kind.
func (p *AWS) mayAsk(keyID, source string, now time.Time) bool {
	all := p.strange
	if at, ok := p.known.Get(keyID); ok && now.Sub(at) < time.Hour {
		all, source = p.familiar, "key "+keyID // its id is no secret: whoever abuses it harms only it
	}
	limiter, ok := p.sources.Get(source)
	if !ok {
		limiter = rate.NewLimiter(rate.Limit(p.config.PerSource), burst(p.config.PerSource))
		if other, was, _ := p.sources.PeekOrAdd(source, limiter); was {
			limiter = other
		}
	}
	return limiter.AllowN(now, 1) && all.AllowN(now, 1)
}

// An awsProof is a proof whose every part is one that we would have written.
type awsProof struct {
	id    proofID
	url   string // put together anew from its parts
	host  string
	part  string // partition
	keyID string
	ends  time.Time
}

// proofKeys are the parameters of a proof: all of them, and no others. The last may be
// missing: users have no session token.
var proofKeys = []string{"Action", "Version", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token"}

var (
	regionName  = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]{2,12}){1,2}-[1-9][0-9]?$`)
	accessKeyID = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
	tokenText   = regexp.MustCompile(`^[A-Za-z0-9+/=_-]+$`)
)

// read takes a proof apart. Nothing of it is used but parts that are on a list or have
// a narrow form, and the URL that is called is put together from those.
func (p *AWS) read(text string, now time.Time) (*awsProof, Reason) {
	if len(text) > maxProof {
		return nil, ReasonTooLarge
	}
	encoded, ok := strings.CutPrefix(text, proofPrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(raw) > maxProofURL || strings.ContainsAny(encoded, "\r\n") {
		return nil, ReasonMalformed
	}
	rest, ok := strings.CutPrefix(string(raw), "https://")
	host, query, asked := strings.Cut(rest, "?")
	host = strings.TrimSuffix(host, "/")
	region, partition, known := stsHost(host)
	if !ok || !asked {
		return nil, ReasonMalformed
	}
	if !known || p.config.Regions != nil && !slices.Contains(p.config.Regions, region) {
		return nil, ReasonScope
	}
	values := make(map[string]string, len(proofKeys))
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		value, err := url.PathUnescape(value)
		if _, twice := values[name]; err != nil || twice || !slices.Contains(proofKeys, name) || strings.Contains(part, "+") {
			return nil, ReasonMalformed
		}
		values[name] = value
	}
	var s signature
	seconds, ok := number(values["X-Amz-Expires"], 900)
	token, hasToken := values["X-Amz-Security-Token"]
	if values["Action"] != "GetCallerIdentity" || values["Version"] != "2011-06-15" || values["X-Amz-Algorithm"] != algorithm ||
		values["X-Amz-SignedHeaders"] != "host;"+gatewayHeader || !s.readCredential(values["X-Amz-Credential"]) || !s.readSum(values["X-Amz-Signature"]) ||
		!accessKeyID.MatchString(s.keyID) || hasToken && !tokenText.MatchString(token) || !ok || seconds == 0 {
		return nil, ReasonMalformed
	}
	if s.scope.service != "sts" || s.scope.region != region {
		return nil, ReasonScope
	}
	at, err := time.Parse(dateFormat, values["X-Amz-Date"])
	if err != nil || values["X-Amz-Date"][:8] != s.scope.date {
		return nil, ReasonMalformed
	}
	proof := &awsProof{host: host, part: partition, keyID: s.keyID, ends: at.Add(min(p.config.MaxAge, time.Duration(seconds)*time.Second))}
	if at.After(now.Add(5 * time.Minute)) {
		return nil, ReasonNotYet
	}
	if !now.Before(proof.ends) {
		return nil, ReasonExpired
	}
	var b strings.Builder
	b.WriteString("https://" + host + "/")
	for i, name := range proofKeys {
		value, ok := values[name]
		if !ok {
			continue
		}
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(name + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20"))
	}
	proof.url = b.String()
	proof.id = sha256.Sum256([]byte(proof.url))
	return proof, ""
}

// stsHost knows the hosts of STS, exactly: the global one, and those of a Region, plain,
// FIPS and dual-stack, of the partitions that have one.
func stsHost(host string) (region, partition string, ok bool) {
	if host == "sts.amazonaws.com" {
		return "us-east-1", "aws", true
	}
	name, rest, _ := strings.Cut(host, ".")
	region, suffix, _ := strings.Cut(rest, ".")
	if name != "sts" && name != "sts-fips" || !regionName.MatchString(region) {
		return "", "", false
	}
	var suffixes []string
	switch {
	case strings.HasPrefix(region, "cn-"):
		partition, suffixes = "aws-cn", []string{"amazonaws.com.cn", "api.amazonwebservices.com.cn"}
	case strings.HasPrefix(region, "eusc-"):
		partition, suffixes = "aws-eusc", []string{"amazonaws.eu", "api.amazonwebservices.eu"}
	case strings.HasPrefix(region, "us-gov-"):
		partition, suffixes = "aws-us-gov", []string{"amazonaws.com", "api.aws"}
	default:
		partition, suffixes = "aws", []string{"amazonaws.com", "api.aws"}
	}
	return region, partition, slices.Contains(suffixes, suffix)
}

// maxIdentityAnswer is more than STS's answer ever is.
const maxIdentityAnswer = 16 << 10

// call makes the call that a proof is. Its error is a *Refusal if STS says no.
func (p *AWS) call(ctx context.Context, proof *awsProof) (*awsIdentity, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, proof.url, nil)
	if err != nil {
		return nil, fmt.Errorf("ask STS: %w", err)
	}
	r.Header.Set(gatewayHeader, p.config.Gateway)
	r.Header.Set("Accept", "text/xml") // it answers in JSON if it is let
	r.Header.Set("User-Agent", "waybill")
	resp, err := p.config.Client.RoundTrip(r) // which follows no redirect
	if err != nil {
		// The text of a *url.Error would hold the proof; a RoundTripper's does not.
		return nil, fmt.Errorf("ask STS at %s: %w", proof.host, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIdentityAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of STS at %s: %w", proof.host, err)
	}
	switch {
	case len(body) > maxIdentityAnswer:
		return nil, fmt.Errorf("the answer of STS at %s is too long", proof.host)
	case resp.StatusCode == http.StatusOK:
		who, err := parseIdentity(body)
		if err == nil && who.partition != proof.part {
			err = errors.New("it is of another partition")
		}
		if err != nil {
			return nil, fmt.Errorf("read the answer of STS at %s: %w", proof.host, err)
		}
		return who, nil
	case resp.StatusCode >= 400 && resp.StatusCode < 500 && resp.StatusCode != http.StatusRequestTimeout && resp.StatusCode != http.StatusTooManyRequests && !throttled(body):
		return nil, &Refusal{Reason: ReasonSignature}
	}
	return nil, fmt.Errorf("STS at %s answers %d", proof.host, resp.StatusCode)
}

// throttled reports whether an error of STS is one that goes away.
func throttled(body []byte) bool {
	var answer struct {
		Code string `xml:"Error>Code"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return false
	}
	return slices.Contains([]string{"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException", "RequestTimeout", "ServiceUnavailable", "InternalFailure"}, answer.Code)
}

// An awsIdentity is who STS says has signed.
type awsIdentity struct {
	partition, account string
	principal          string // ARN of the role or user
	name               string // of the role or user
	session            string // name of the role session
	uniqueID           string // of the role or user
}

var callerARN = regexp.MustCompile(`^arn:(aws|aws-cn|aws-us-gov|aws-eusc):(?:` +
	`sts::([0-9]{12}):assumed-role/([\w+=,.@-]{1,64})/([\w+=,.@-]{2,64})|` +
	`iam::([0-9]{12}):user/((?:[!-.0-~]+/){0,64}[\w+=,.@-]{1,64})|` +
	`iam::([0-9]{12}):root|` +
	`sts::([0-9]{12}):federated-user/([\w+=,.@-]{2,32}))$`)

var userID = regexp.MustCompile(`^[A-Z0-9]{12,128}(:[\w+=,.@-]{2,64})?$`)

// parseIdentity reads STS's answer, strictly: one ARN, one user id, one account, which
// agree with each other.
func parseIdentity(body []byte) (*awsIdentity, error) {
	var answer struct {
		XMLName xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
		Result  []struct {
			ARN     []string `xml:"Arn"`
			UserID  []string `xml:"UserId"`
			Account []string `xml:"Account"`
		} `xml:"GetCallerIdentityResult"`
	}
	d := xml.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(&answer); err != nil {
		return nil, errors.New("it is not the XML of a GetCallerIdentity")
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if text, ok := t.(xml.CharData); err != nil || !ok || len(bytes.TrimSpace(text)) > 0 {
			return nil, errors.New("something follows it")
		}
	}
	if len(answer.Result) != 1 || len(answer.Result[0].ARN) != 1 || len(answer.Result[0].UserID) != 1 || len(answer.Result[0].Account) != 1 {
		return nil, errors.New("it does not have one ARN, one user id and one account")
	}
	arn, id, account := answer.Result[0].ARN[0], answer.Result[0].UserID[0], answer.Result[0].Account[0]
	m := callerARN.FindStringSubmatch(arn)
	if m == nil || !userID.MatchString(id) {
		return nil, errors.New("its ARN or user id has an unknown form")
	}
	who := &awsIdentity{partition: m[1], account: account}
	var session string
	who.uniqueID, session, _ = strings.Cut(id, ":")
	told := m[2] + m[5] + m[7] + m[8]
	switch {
	case m[2] != "":
		who.name, who.session = m[3], m[4]
		who.principal = "arn:" + who.partition + ":iam::" + account + ":role/" + who.name
		if session != who.session {
			return nil, errors.New("its user id is of another session")
		}
	case m[5] != "":
		who.name, who.principal = m[6][strings.LastIndexByte(m[6], '/')+1:], arn
	case m[7] != "":
		who.name, who.principal = "root", arn
	default:
		who.name, who.principal = m[9], arn
	}
	if told != account {
		return nil, errors.New("its ARN is of another account")
	}
	return who, nil
}

// match says which caller an identity is.
func (p *AWS) match(who *awsIdentity) (waybill.Principal, *Refusal) {
	if !slices.Contains(p.config.Accounts, who.account) {
		return waybill.Principal{}, &Refusal{Reason: ReasonNoRule, Issuer: awsIssuer, Subject: who.principal}
	}
	for i := range p.rules {
		r := &p.rules[i]
		if !r.principal.MatchString(who.principal) || r.RoleID != "" && r.RoleID != who.uniqueID || r.session != nil && !r.session.MatchString(who.session) {
			continue
		}
		claims := map[string]string{"aws_account": who.account, "aws_principal": who.principal, "aws_unique_id": who.uniqueID}
		session := ""
		if r.TrustSession && who.session != "" {
			session = who.session
			claims["aws_session"] = session
		}
		subject := who.principal
		if r.Subject != "" {
			if strings.Contains(r.Subject, "{session}") && session == "" {
				continue // a user, under a rule for sessions
			}
			subject = strings.NewReplacer("{account}", who.account, "{name}", who.name, "{session}", session).Replace(r.Subject)
		}
		return waybill.Principal{Subject: subject, Issuer: awsIssuer, Method: "aws", Claims: claims, Tags: r.Tags, Models: r.Models, Environments: r.Environments}, nil
	}
	return waybill.Principal{}, &Refusal{Reason: ReasonNoRule, Issuer: awsIssuer, Subject: who.principal}
}

// awsIssuer vouches for AWS identities.
const awsIssuer = "sts.amazonaws.com"

// PresignIdentity makes a proof for a gateway of who the credentials are: what goes to
// it as a bearer token. It makes no call but those that the credentials need. The proof
// is good for the time given, 15 minutes at most.
func PresignIdentity(ctx context.Context, credentials aws.CredentialsProvider, gateway, region string, life time.Duration, now time.Time) (string, error) {
	if !gatewayName.MatchString(gateway) {
		return "", &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%q is no name of a gateway", gateway), Hint: "ask its operator"}
	}
	if !regionName.MatchString(region) {
		return "", &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%q is no AWS Region", region), Hint: "set AWS_REGION"}
	}
	if life < time.Second || life > 15*time.Minute {
		return "", &waybill.Error{Kind: waybill.Misused, Message: "a proof is good for a second to 15 minutes"}
	}
	creds, err := credentials.Retrieve(ctx)
	if err != nil {
		return "", fmt.Errorf("get AWS credentials: %w", err)
	}
	host := "sts." + region + ".amazonaws.com"
	switch _, partition, _ := stsHost(host); partition {
	case "aws-cn":
		host += ".cn"
	case "aws-eusc":
		host = "sts." + region + ".amazonaws.eu"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=%d", host, int(life/time.Second)), nil)
	if err != nil {
		return "", fmt.Errorf("presign AWS identity: %w", err)
	}
	r.Header.Set(gatewayHeader, gateway)
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of no body
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, creds, r, nothing, "sts", region, now)
	if err != nil {
		return "", fmt.Errorf("presign AWS identity: %w", err)
	}
	return proofPrefix + base64.RawURLEncoding.EncodeToString([]byte(signed)), nil
}
