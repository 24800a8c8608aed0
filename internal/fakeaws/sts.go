package fakeaws

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// sts answers the query protocol of the Security Token Service.
func (w *World) sts(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	text := string(body)
	if r.Method == http.MethodGet {
		text = r.URL.RawQuery
	}
	form, formErr := url.ParseQuery(text)
	var caller *credential
	var where scope
	var no *refusal
	switch {
	case r.Method == http.MethodGet:
		caller, where, no = w.verifyPresigned(r, body)
	case form.Get("Action") != "AssumeRoleWithWebIdentity": // the one call that nobody signs
		caller, where, no = w.verify(r, body, "sts")
	}
	if no == nil {
		no = w.stsLimits(where.region)
	}
	if no != nil {
		if kind, ok := stsNames[no.kind]; ok {
			no.kind = kind
		}
		w.stsError(rw, no)
		return
	}
	if formErr != nil || form.Get("Version") != "2011-06-15" {
		w.stsError(rw, &refusal{400, "InvalidAction", "Could not find operation for version " + form.Get("Version")})
		return
	}
	switch form.Get("Action") {
	case "AssumeRole":
		w.assumeRole(rw, caller, form, where.region)
	case "AssumeRoleWithWebIdentity":
		w.assumeRoleWithWebIdentity(rw, form)
	case "GetCallerIdentity":
		w.xml(rw, 200, fmt.Sprintf(`<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
			`<Arn>%s</Arn><UserId>%s</UserId><Account>%s</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></GetCallerIdentityResponse>`,
			escape(caller.arn), escape(caller.userID()), caller.account, newID()))
	default:
		w.stsError(rw, &refusal{400, "InvalidAction", "Could not find operation " + form.Get("Action")})
	}
}

// userID is the unique id of a principal: of a role's session with the session's name.
// A role or user that is made anew under the same name would have another.
func (c *credential) userID() string {
	unique := func(prefix, of string) string {
		sum := sha256.Sum256([]byte(of))
		return prefix + base32.StdEncoding.EncodeToString(sum[:])[:17]
	}
	if !c.isRole {
		return unique("AIDA", c.arn)
	}
	at := strings.LastIndexByte(c.arn, '/')
	return unique("AROA", c.arn[:at]) + ":" + c.arn[at+1:]
}

// stsNames are STS's names of the refusals of a signature.
var stsNames = map[string]string{"InvalidSignatureException": "SignatureDoesNotMatch", "UnrecognizedClientException": "InvalidClientTokenId",
	"ExpiredTokenException": "ExpiredToken", "MissingAuthenticationTokenException": "MissingAuthenticationToken", "IncompleteSignatureException": "IncompleteSignature"}

func (w *World) stsLimits(region string) *refusal {
	if contains(w.config.STSOff, region) {
		return &refusal{403, "RegionDisabledException", "STS is not activated in this region for account"}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stsDown {
		return &refusal{503, "ServiceUnavailable", "Service Unavailable"}
	}
	if second := w.config.RealNow().Unix(); second != w.stsSecond {
		w.stsSecond, w.stsCount = second, 0
	}
	if w.stsCount++; w.stsCount > w.config.STSPerSecond {
		w.refusedSTS++
		return &refusal{400, "Throttling", "Rate exceeded"}
	}
	return nil
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

func (w *World) xml(rw http.ResponseWriter, status int, body string) {
	rw.Header().Set("Content-Type", "text/xml")
	rw.Header().Set("Date", w.config.RealNow().UTC().Format(http.TimeFormat))
	rw.WriteHeader(status)
	io.WriteString(rw, body) // the client may have left
}

func (w *World) stsError(rw http.ResponseWriter, no *refusal) {
	w.xml(rw, no.status, fmt.Sprintf(`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>%s</RequestId></ErrorResponse>`,
		no.kind, escape(no.message), newID()))
}

const sessionNameChars = "_+=,.@-"

func sessionText(s string, least, most int) bool {
	if n := len(s); n < least || n > most {
		return false
	}
	for _, c := range s {
		if c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune(sessionNameChars, c) {
			return false
		}
	}
	return true
}

func tagText(s string, least, most int) bool {
	if n := utf8.RuneCountInString(s); n < least || n > most || !utf8.ValidString(s) {
		return false
	}
	for _, c := range s {
		if !unicode.IsLetter(c) && !unicode.IsNumber(c) && !unicode.Is(unicode.Z, c) && !strings.ContainsRune("_.:/=+-@", c) {
			return false
		}
	}
	return true
}

func invalid(format string, a ...any) *refusal {
	return &refusal{400, "ValidationError", fmt.Sprintf(format, a...)}
}

// sessionTags reads Tags.member.N.{Key,Value} and holds them against STS's rules.
func sessionTags(form url.Values) (map[string]string, *refusal) {
	tags, folded := make(map[string]string), make(map[string]bool)
	for n := 1; ; n++ {
		key, ok := form[fmt.Sprintf("Tags.member.%d.Key", n)]
		if !ok {
			break
		}
		k, v := key[0], form.Get(fmt.Sprintf("Tags.member.%d.Value", n))
		switch {
		case n > 50:
			return nil, invalid("1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50")
		case !tagText(k, 1, 128):
			return nil, invalid("1 validation error detected: Value '%s' at 'tags.%d.member.key' failed to satisfy constraint", k, n)
		case !tagText(v, 0, 256):
			return nil, invalid("1 validation error detected: Value '%s' at 'tags.%d.member.value' failed to satisfy constraint", v, n)
		case strings.HasPrefix(strings.ToLower(k), "aws:"):
			return nil, invalid("System tags cannot be added/updated by requester")
		case folded[strings.ToLower(k)]:
			return nil, &refusal{400, "InvalidParameterValue", "Duplicate tag keys found. Please note that Tag keys are case insensitive."}
		}
		folded[strings.ToLower(k)] = true
		tags[k] = v
	}
	return tags, nil
}

// packedSize is our own model of the space that tags take, which AWS does not publish:
// 1,200 bytes, four of them for each tag, fill it.
func packedSize(tags map[string]string) int {
	n := 0
	for k, v := range tags {
		n += len(k) + len(v) + 4
	}
	return n * 100 / 1200
}

func (w *World) assumeRole(rw http.ResponseWriter, caller *credential, form url.Values, region string) {
	session, packed, no := w.newSession(caller, form, region)
	if no != nil {
		w.stsError(rw, no)
		return
	}
	w.xml(rw, 200, fmt.Sprintf(`<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>%s</AssumeRoleResult>`+
		`<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></AssumeRoleResponse>`, sessionXML(session, packed), newID()))
}

// sessionXML is what the answers of both calls share.
func sessionXML(session *credential, packed int) string {
	source := ""
	if session.sourceIdentity != "" {
		source = "<SourceIdentity>" + escape(session.sourceIdentity) + "</SourceIdentity>"
	}
	return source + fmt.Sprintf(`<AssumedRoleUser><AssumedRoleId>%s</AssumedRoleId><Arn>%s</Arn></AssumedRoleUser>`+
		`<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>`+
		`<PackedPolicySize>%d</PackedPolicySize><SessionTokenSize>%d</SessionTokenSize><SessionTokenUtilization>%d</SessionTokenUtilization>`, escape(session.userID()), escape(session.arn), session.id, session.secret, session.token,
		session.expires.UTC().Format(time.RFC3339), packed, len(session.token), packed)
}

// A request for a session, as both calls make one.
type sessionRequest struct {
	who            string // for the record and for refusals
	role           *Role
	name           string
	tags           map[string]string
	transitive     []string
	sourceIdentity string
	inherited      map[string]string // transitive tags of the session that asks
	chained        bool
}

func sessionName(form url.Values) *refusal {
	if name := form.Get("RoleSessionName"); !sessionText(name, 2, 64) {
		return invalid("1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*", name)
	}
	if n := len(form.Get("RoleArn")); n < 20 || n > 2048 {
		return invalid("1 validation error detected: Value at 'roleArn' failed to satisfy constraint: Member must have length greater than or equal to 20")
	}
	return nil
}

func sourceIdentity(s string) *refusal {
	if s != "" && (!sessionText(s, 2, 64) || strings.HasPrefix(strings.ToLower(s), "aws:")) {
		return invalid("1 validation error detected: Value '%s' at 'sourceIdentity' failed to satisfy constraint", s)
	}
	return nil
}

func (w *World) roleOf(arn string) *Role {
	for i := range w.config.Roles {
		if w.config.Roles[i].ARN == arn {
			return &w.config.Roles[i]
		}
	}
	return nil
}

func (w *World) newSession(caller *credential, form url.Values, region string) (*credential, int, *refusal) {
	roleARN := form.Get("RoleArn")
	if no := sessionName(form); no != nil {
		return nil, 0, no
	}
	if no := sourceIdentity(form.Get("SourceIdentity")); no != nil {
		return nil, 0, no
	}
	if id := form.Get("ExternalId"); form.Has("ExternalId") && !externalID(id) {
		return nil, 0, invalid("1 validation error detected: Value at 'externalId' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@:\\/-]*")
	}
	tags, no := sessionTags(form)
	if no != nil {
		return nil, 0, no
	}
	role := w.roleOf(roleARN)
	denied := func(action string) *refusal {
		return &refusal{403, "AccessDenied", fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s", caller.arn, action, roleARN)}
	}
	if role == nil || !trusts(role.Trusted, caller.arn) || role.ExternalID != form.Get("ExternalId") {
		return nil, 0, denied("sts:AssumeRole")
	}
	if len(tags) > 0 && role.NoTagging {
		return nil, 0, denied("sts:TagSession")
	}
	source := form.Get("SourceIdentity")
	if source != "" && (role.NoSourceID || caller.sourceIdentity != "" && caller.sourceIdentity != source) {
		return nil, 0, denied("sts:SetSourceIdentity")
	}
	if caller.sourceIdentity != "" {
		source = caller.sourceIdentity
	}
	var transitive []string
	for n := 1; ; n++ {
		k, ok := form[fmt.Sprintf("TransitiveTagKeys.member.%d", n)]
		if !ok {
			break
		}
		transitive = append(transitive, k[0])
	}
	return w.issue(form, region, sessionRequest{who: caller.arn, role: role, name: form.Get("RoleSessionName"), tags: tags, transitive: transitive,
		sourceIdentity: source, inherited: caller.transitive, chained: caller.isRole})
}

func externalID(s string) bool {
	if len(s) < 2 || len(s) > 1224 {
		return false
	}
	for _, c := range s {
		if c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("_+=,.@:/-", c) {
			return false
		}
	}
	return true
}

// issue makes the session that both calls ask for, within the limits of its life and of
// its tags.
func (w *World) issue(form url.Values, region string, q sessionRequest) (*credential, int, *refusal) {
	seconds := 3600
	if text := form.Get("DurationSeconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 900 || n > 43200 {
			return nil, 0, invalid("1 validation error detected: Value '%s' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900", text)
		}
		seconds = n
	}
	longest := 3600
	if q.role.MaxSession > 0 {
		longest = int(q.role.MaxSession / time.Second)
	}
	if seconds > longest {
		return nil, 0, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if q.chained && seconds > 3600 {
		return nil, 0, invalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	}
	for k := range q.inherited {
		for own := range q.tags {
			if strings.EqualFold(k, own) {
				return nil, 0, &refusal{400, "InvalidParameterValue", "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session"}
			}
		}
	}
	packed := packedSize(q.tags)
	if packed > 100 {
		return nil, 0, &refusal{400, "PackedPolicyTooLarge", fmt.Sprintf("Packed size of session tags consumes %d%% of allotted space.", packed)}
	}
	if len(q.transitive) > 50 {
		return nil, 0, invalid("1 validation error detected: Value at 'transitiveTagKeys' failed to satisfy constraint: Member must have length less than or equal to 50")
	}
	transitive := make(map[string]string)
	for k, v := range q.inherited {
		transitive[k] = v
	}
	for _, k := range q.transitive {
		v, there := q.tags[k]
		if !there {
			return nil, 0, invalid("The specified transitive tag key must be included in the requested tags.")
		}
		transitive[k] = v
	}
	all := make(map[string]string)
	for k, v := range q.role.Tags {
		all[k] = v
	}
	for _, more := range []map[string]string{q.inherited, q.tags} {
		for k, v := range more {
			for old := range all {
				if strings.EqualFold(old, k) {
					delete(all, old)
				}
			}
			all[k] = v
		}
	}
	roleARN := q.role.ARN
	account := accountOf(roleARN)
	c := &credential{
		id: token("ASIAEXAMPLE", 5), secret: token("", 20), token: token("FwoGZXIvYXdzE", 300), account: account,
		arn:     fmt.Sprintf("arn:aws:sts::%s:assumed-role/%s/%s", account, roleARN[strings.LastIndexByte(roleARN, '/')+1:], q.name),
		expires: w.config.RealNow().Add(time.Duration(seconds) * time.Second).Truncate(time.Second),
		tags:    all, transitive: transitive, sourceIdentity: q.sourceIdentity, isRole: true, denyBedrock: q.role.DenyBedrock,
	}
	passed := append([]string(nil), q.transitive...)
	sort.Strings(passed)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byID[c.id] = c
	w.assumptions = append(w.assumptions, Assumption{At: w.config.RealNow(), Caller: q.who, RoleARN: roleARN, SessionName: q.name,
		SourceIdentity: q.sourceIdentity, Tags: q.tags, Transitive: passed, Seconds: seconds, Region: region})
	return c, packed, nil
}

// trusts reports whether a trust policy names a principal: itself, or the role that a
// session is of. A role is not trusted by itself unless it is named.
func trusts(trusted []string, arn string) bool {
	for _, t := range trusted {
		if t == arn {
			return true
		}
		role := t[strings.LastIndexByte(t, '/')+1:]
		if strings.HasPrefix(arn, "arn:aws:sts::"+accountOf(t)+":assumed-role/"+role+"/") {
			return true
		}
	}
	return false
}
