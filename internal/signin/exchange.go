package signin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/waybill-dev/waybill"
)

// A session is what an exchange gives.
type session struct {
	credentials  Credentials
	principalARN string
	tags         map[string]string
	dropped      []string
}

func denied(hint, format string, a ...any) error {
	return &waybill.Error{Kind: waybill.Denied, Message: fmt.Sprintf(format, a...), Hint: hint}
}

// assume exchanges a token for a session with STS. The call is not signed: the token is
// its proof.
func (s *SignIn) assume(ctx context.Context, t *tokens) (*session, error) {
	p := &s.Profile
	tags, err := readTags(t.claims)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTags, denied(howToAddTags, "the session tags in the token of %s cannot be: %v", p.Issuer, err))
	}
	if missing := tags.missing(p.Tags); len(missing) > 0 {
		return nil, fmt.Errorf("%w: %w", errTags, denied(howToAddTags, "the token of %s lacks the tag %s, without which calls would have no owner", p.Issuer, strings.Join(missing, ", ")))
	}
	if len(tags.tags) == 0 {
		s.say("The token of %s carries no session tags: calls are attributed to the session's name alone.\n%s\n", p.Issuer, howToAddTags)
	}
	name, err := sessionName(p.SessionName, t.claims)
	if err != nil {
		return nil, err
	}
	options := sts.Options{Region: p.Region, Credentials: aws.AnonymousCredentials{}, HTTPClient: s.client(),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = s.pause() })}
	if p.STSEndpoint != "" {
		options.BaseEndpoint = aws.String(p.STSEndpoint)
	}
	client := sts.New(options)
	in := &sts.AssumeRoleWithWebIdentityInput{RoleArn: &p.Role, RoleSessionName: &name, WebIdentityToken: &t.raw}
	if p.Life > 0 {
		in.DurationSeconds = aws.Int32(int32(time.Duration(p.Life) / time.Second))
	}
	out, err := client.AssumeRoleWithWebIdentity(ctx, in)
	if err != nil && strings.Contains(err.Error(), "MaxSessionDuration") {
		s.say("The role does not give a session of %s: an hour is asked for.\n", time.Duration(p.Life))
		in.DurationSeconds = nil
		out, err = client.AssumeRoleWithWebIdentity(ctx, in)
	}
	if err != nil {
		return nil, s.explainSTS(err)
	}
	c := out.Credentials
	if c == nil || c.Expiration == nil || out.AssumedRoleUser == nil {
		return nil, &waybill.Error{Kind: waybill.Unavailable, Message: "STS answered without credentials", Hint: "check stsEndpoint, and try again"}
	}
	return &session{credentials: Credentials{Version: 1, AccessKeyID: aws.ToString(c.AccessKeyId), SecretAccessKey: aws.ToString(c.SecretAccessKey),
		SessionToken: aws.ToString(c.SessionToken), Expiration: c.Expiration.UTC()}, principalARN: aws.ToString(out.AssumedRoleUser.Arn), tags: tags.tags}, nil
}

// explainSTS says what a refusal of STS means for the person.
func (s *SignIn) explainSTS(err error) error {
	p := &s.Profile
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return &waybill.Error{Kind: waybill.Unavailable, Message: "STS of " + p.Region + " does not answer", Hint: "check the network and --region, and try again", Err: err}
	}
	provider := strings.TrimPrefix(strings.TrimPrefix(p.Issuer, "https://"), "http://")
	switch api.ErrorCode() {
	case "AccessDenied":
		if strings.Contains(api.ErrorMessage(), "TagSession") {
			return denied("ask AWS's administrator to allow sts:TagSession in the role's trust policy, beside sts:AssumeRoleWithWebIdentity", "%s does not let its sessions be tagged", p.Role)
		}
		if strings.Contains(api.ErrorMessage(), "SetSourceIdentity") {
			return denied("ask AWS's administrator to allow sts:SetSourceIdentity in the role's trust policy", "%s does not let its sessions have a source identity", p.Role)
		}
		return denied(fmt.Sprintf("ask AWS's administrator: the role must exist, and its trust policy must allow sts:AssumeRoleWithWebIdentity and sts:TagSession to the federated principal oidc-provider/%s, with %s:aud = %s and your subject", provider, provider, p.ClientID),
			"%s does not trust your sign-in", p.Role)
	case "InvalidIdentityToken":
		return fmt.Errorf("%w: %w", errToken, denied(fmt.Sprintf("ask AWS's administrator: the account of the role needs an OpenID Connect provider for %s with the client id %s", p.Issuer, p.ClientID),
			"AWS does not take the token of %s: %s", p.Issuer, clean(api.ErrorMessage())))
	case "ExpiredTokenException", "ExpiredToken":
		return fmt.Errorf("%w: %w", errToken, denied("run it again, and check the clock of this machine", "AWS says that the sign-in has expired"))
	case "IDPRejectedClaim":
		return denied("ask the provider's administrator", "%s says that your sign-in is not valid any more", p.Issuer)
	case "IDPCommunicationError":
		return &waybill.Error{Kind: waybill.Unavailable, Message: "AWS cannot reach " + p.Issuer, Hint: "try again; the provider's key set must be reachable from the internet", Err: err}
	case "PackedPolicyTooLarge":
		return denied("ask the provider's administrator for fewer or shorter tags in the token", "the tags in your token are too large for a session")
	case "RegionDisabledException":
		return denied("use another --region, or ask AWS's administrator to activate STS there", "STS is not active in %s", p.Region)
	case "ValidationError", "InvalidParameterValue":
		return denied("check --role, --session-name and the session's life", "STS does not take the request: %s", clean(api.ErrorMessage()))
	}
	answered, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err)
	if ok && answered.HTTPStatusCode() >= 500 || api.ErrorCode() == "Throttling" {
		return &waybill.Error{Kind: waybill.Unavailable, Message: "STS of " + p.Region + " fails at the moment", Hint: "try again", Err: err}
	}
	return denied("ask AWS's administrator", "STS refuses: %s", clean(api.ErrorMessage()))
}

// brokerPath is where a gateway gives sessions; internal/credential has its side.
const brokerPath = "/waybill/credentials"

// broker gets a session from a gateway, which chooses role and tags under its policy.
// The proof is a token of the sign-in, or a gateway key.
func (s *SignIn) broker(ctx context.Context, proof string) (*session, error) {
	p := &s.Profile
	body, err := json.Marshal(map[string]any{"version": 1, "tags": p.Ask})
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(p.Broker, "/")+brokerPath, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request to the broker: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+proof)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	a, err := s.client().Do(r)
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Unavailable, Message: "the gateway " + p.Broker + " does not answer", Hint: "check --broker and the network, and try again", Err: err}
	}
	defer a.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Unavailable, Message: "the gateway " + p.Broker + " broke off its answer", Hint: "try again", Err: err}
	}
	if a.StatusCode != http.StatusOK {
		return nil, s.explainBroker(a.StatusCode, raw, proof)
	}
	var got struct {
		Credentials
		PrincipalARN string            `json:"PrincipalArn"`
		Tags         map[string]string `json:"Tags"`
		Dropped      []string          `json:"Dropped"`
	}
	if json.Unmarshal(raw, &got) != nil || got.Version != 1 || got.AccessKeyID == "" || got.SecretAccessKey == "" || got.SessionToken == "" || got.Expiration.IsZero() {
		return nil, &waybill.Error{Kind: waybill.Unavailable, Message: "what " + p.Broker + " answers is not a session", Hint: "check --broker: it is the URL of a Waybill gateway"}
	}
	if missing := (sessionTags{tags: got.Tags}).missing(p.Tags); len(missing) > 0 {
		return nil, denied("ask the gateway's operator", "the session of %s lacks the tag %s, without which calls would have no owner", p.Broker, strings.Join(missing, ", "))
	}
	return &session{credentials: got.Credentials, principalARN: got.PrincipalARN, tags: got.Tags, dropped: got.Dropped}, nil
}

// explainBroker says what a refusal of the gateway means for the person.
func (s *SignIn) explainBroker(status int, raw []byte, proof string) error {
	var told struct {
		Error struct{ Code, Message, Hint string } `json:"error"`
	}
	_ = json.Unmarshal(raw, &told) // what is no JSON tells nothing
	text, hint := clean(without(told.Error.Message, proof)), clean(without(told.Error.Hint, proof))
	if text == "" {
		text = fmt.Sprintf("HTTP status %d", status)
	}
	if code := clean(told.Error.Code); code != "" {
		text += " [" + code + "]"
	}
	or := func(other string) string {
		if hint != "" {
			return hint
		}
		return other
	}
	switch {
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", errToken, signInFailed(or("ask the gateway's operator whether it knows "+s.Profile.Issuer), "the gateway %s does not know you: %s", s.Profile.Broker, text))
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return denied("check --broker; ask the gateway's operator whether it gives sessions", "%s gives no sessions", s.Profile.Broker)
	case status >= 500 || status == http.StatusTooManyRequests:
		return &waybill.Error{Kind: waybill.Unavailable, Message: fmt.Sprintf("the gateway %s cannot give a session at the moment: %s", s.Profile.Broker, text), Hint: or("try again")}
	}
	return denied(or("ask the gateway's operator"), "the gateway %s refuses: %s", s.Profile.Broker, text)
}
