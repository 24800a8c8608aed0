package credential

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aws/smithy-go"

	"github.com/waybill-dev/waybill"
)

// What an answer of STS calls for.
type answer int

const (
	refused    answer = iota // this session cannot be had
	throttled                // ask more slowly
	unanswered               // nothing can be had at the moment: STS is away, or does not know us
	tooLarge                 // the tags do not fit
	tooLong                  // the life does not
)

// meanings are STS's codes: what to do, what callers are told, and what the operator
// is. A code that is not here is a refusal.
var meanings = map[string]struct {
	answer       answer
	said, remedy string
}{
	"AccessDenied":            {refused, "the gateway may not assume the role for this call", ""}, // see denied
	"ValidationError":         {refused, "STS does not accept the role session", "a parameter is out of its limits: sessions.life is 15 minutes to the role's MaxSessionDuration, and an hour at most where the gateway's own credentials are a role session"},
	"InvalidParameterValue":   {refused, "STS does not accept the role session", "a session tag collides: with another key in a different case, or with a transitive tag of the gateway's own session, which cannot be set again"},
	"MalformedPolicyDocument": {refused, "STS does not accept the role session", "the session policy cannot be read"},
	"PackedPolicyTooLarge":    {tooLarge, "the tags of this call do not fit into a role session", "put fewer or shorter tags on the session carrier, or make some of them optional, so that they can be given up"},
	"RegionDisabledException": {unanswered, "no role session can be had at the moment", "STS is not active in this Region: activate it in the account settings of IAM, or set the gateway's region to one where it is"},

	"Throttling":               {throttled, "no role session can be had at the moment", "STS throttles the account: lower sessions.perSecond, or ask for more quota"},
	"ThrottlingException":      {throttled, "no role session can be had at the moment", "STS throttles the account: lower sessions.perSecond, or ask for more quota"},
	"RequestLimitExceeded":     {throttled, "no role session can be had at the moment", "STS throttles the account: lower sessions.perSecond, or ask for more quota"},
	"TooManyRequestsException": {throttled, "no role session can be had at the moment", "STS throttles the account: lower sessions.perSecond, or ask for more quota"},

	"ExpiredToken":                {unanswered, "the gateway's AWS credentials have expired", "refresh the gateway's base credentials: what provides them gave expired ones"},
	"ExpiredTokenException":       {unanswered, "the gateway's AWS credentials have expired", "the web identity token of the gateway's base credentials has expired"},
	"InvalidClientTokenId":        {unanswered, "AWS does not know the gateway's credentials", "the access key of the gateway's base credentials does not exist, is inactive, or lacks its session token"},
	"UnrecognizedClientException": {unanswered, "AWS does not know the gateway's credentials", "the access key of the gateway's base credentials does not exist, is inactive, or lacks its session token"},
	"SignatureDoesNotMatch":       {unanswered, "AWS does not accept the gateway's signature", "the gateway's secret access key is wrong, its clock is more than five minutes off, or a proxy changes its requests"},
	"MissingAuthenticationToken":  {unanswered, "AWS does not accept the gateway's signature", "the call to STS arrived unsigned: a proxy takes headers away"},
	"IncompleteSignature":         {unanswered, "AWS does not accept the gateway's signature", "the call to STS arrived with a broken signature: a proxy changes headers"},
	"InternalFailure":             {unanswered, "no role session can be had at the moment", "STS failed; it is asked again"},
	"ServiceUnavailable":          {unanswered, "no role session can be had at the moment", "STS is not available; it is asked again"},
	"InvalidIdentityToken":        {unanswered, "no role session can be had at the moment", "the web identity token of the gateway's base credentials is not accepted"},
	"IDPRejectedClaim":            {unanswered, "no role session can be had at the moment", "the identity provider behind the gateway's base credentials rejects their token"},
	"IDPCommunicationError":       {unanswered, "no role session can be had at the moment", "STS cannot reach the identity provider behind the gateway's base credentials; it is asked again"},
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

// status is the HTTP status of an answer, 0 if there was none.
func status(err error) int {
	if e, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok {
		return e.HTTPStatusCode()
	}
	return 0
}

// verdict says what an error of AssumeRole calls for.
func verdict(err error) answer {
	c := code(err)
	m, known := meanings[c]
	switch {
	case c == "ValidationError" && (strings.Contains(err.Error(), "DurationSeconds") || strings.Contains(err.Error(), "MaxSessionDuration")):
		return tooLong
	case known:
		return m.answer
	case c == "" || status(err) >= 500 || status(err) == 429:
		return unanswered // no answer at all, or not STS's
	}
	return refused
}

// explain turns what STS said into what a caller may see, and keeps the cause and its
// remedy for the operator.
func explain(err error, want *waybill.RoleSession) error {
	c := code(err)
	m := meanings[c]
	if c == "AccessDenied" {
		m.said, m.remedy = denied(err, want)
	}
	cause := err
	if m.remedy != "" {
		cause = fmt.Errorf("%s: %w", m.remedy, err)
	}
	switch {
	case m.answer == tooLarge && m.said != "":
		return &waybill.Error{Kind: waybill.Invalid, Code: "WB1404", Message: m.said, Hint: "use shorter tag values; the gateway's operator sees how much is too much", Err: cause}
	case m.said != "":
		return unavailable(m.said, cause)
	}
	return unavailable("no role session can be had at the moment", cause)
}

// denied reads which permission AccessDenied is about. It is also what STS says of a
// role that does not exist.
func denied(err error, want *waybill.RoleSession) (said, remedy string) {
	text := err.Error()
	where := "in the role's trust policy and, where the role is in another account, in the policies of the gateway's own principal"
	switch {
	case strings.Contains(text, "sts:TagSession"):
		return "the gateway may not tag the role session of this call", "allow sts:TagSession for these tag keys and values " + where
	case strings.Contains(text, "sts:SetSourceIdentity"):
		return "the gateway may not set the source identity of this call", "allow sts:SetSourceIdentity " + where + "; a source identity that the gateway's own session has cannot be changed"
	case assumesItself(text, want.RoleARN):
		remedy = "a role that assumes itself must name itself in its trust policy, with sts:AssumeRole and sts:TagSession"
	default:
		remedy = "check that the role exists, and allow sts:AssumeRole " + where
	}
	if want.ExternalID != "" {
		remedy += "; check the external id"
	} else {
		remedy += "; the role may demand an external id"
	}
	if strings.Contains(text, "explicit deny") {
		remedy += "; an explicit deny, as of a service control policy, is above all of these"
	}
	return "the gateway may not assume the role for this call", remedy
}

// assumesItself reports whether an AccessDenied names as its user a session of the very
// role that was asked for. A session's ARN has lost the role's path.
func assumesItself(text, roleARN string) bool {
	parts := strings.SplitN(roleARN, ":", 6)
	if len(parts) != 6 {
		return false
	}
	name := parts[5][strings.LastIndexByte(parts[5], '/')+1:]
	return strings.Contains(text, ":sts::"+parts[4]+":assumed-role/"+name+"/")
}

// plain reports whether a text is of ASCII letters, digits and some others.
func plain(s, others string) bool {
	for i := range len(s) {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(others, c) >= 0) {
			return false
		}
	}
	return true
}

// tagText reports whether a text may be a tag's key or value.
func tagText(s string, least, most int) bool {
	if n := utf8.RuneCountInString(s); n < least || n > most || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && !unicode.Is(unicode.Z, r) && !strings.ContainsRune("_.:/=+-@", r) {
			return false
		}
	}
	return true
}
