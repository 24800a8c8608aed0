package fakeaws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// tagsClaim is where a token carries session tags: as an object, or flattened into
// claims whose names begin with it.
const (
	tagsClaim           = "https://aws.amazon.com/tags"
	sourceIdentityClaim = "https://aws.amazon.com/source_identity"
)

// assumeRoleWithWebIdentity answers the call that carries a token in the place of a
// signature.
func (w *World) assumeRoleWithWebIdentity(rw http.ResponseWriter, form url.Values) {
	claims, provider, no := w.webIdentity(form)
	if no != nil {
		w.stsError(rw, no)
		return
	}
	session, packed, no := w.webSession(form, claims, provider)
	if no != nil {
		w.stsError(rw, no)
		return
	}
	w.xml(rw, 200, fmt.Sprintf(`<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>%s`+
		`<SubjectFromWebIdentityToken>%s</SubjectFromWebIdentityToken><Audience>%s</Audience><Provider>%s</Provider>`+
		`</AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>`,
		sessionXML(session, packed), escape(claims.subject), escape(claims.audience), escape(provider.ARN), newID()))
}

// webClaims are what a token says, once its signature holds.
type webClaims struct {
	subject, audience string
	all               map[string]json.RawMessage
}

func badToken(format string, a ...any) *refusal {
	return &refusal{400, "InvalidIdentityToken", fmt.Sprintf(format, a...)}
}

// webIdentity verifies the token of a request.
func (w *World) webIdentity(form url.Values) (*webClaims, *OIDCProvider, *refusal) {
	raw := form.Get("WebIdentityToken")
	if len(raw) < 4 || len(raw) > 20000 {
		return nil, nil, invalid("1 validation error detected: Value at 'webIdentityToken' failed to satisfy constraint: Member must have length between 4 and 20000")
	}
	if form.Has("Tags.member.1.Key") || form.Has("SourceIdentity") || form.Has("ExternalId") || form.Has("TransitiveTagKeys.member.1") {
		return nil, nil, invalid("the tags of a web identity come from its token")
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, nil, badToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	var header struct {
		Alg  string `json:"alg"`
		Kid  string `json:"kid"`
		Crit []string
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	headerText, headerErr := base64.RawURLEncoding.DecodeString(parts[0])
	signature, signatureErr := base64.RawURLEncoding.DecodeString(parts[2])
	c := &webClaims{}
	if errors.Join(err, headerErr, signatureErr) != nil || json.Unmarshal(headerText, &header) != nil || json.Unmarshal(payload, &c.all) != nil || len(header.Crit) > 0 {
		return nil, nil, badToken("The ID Token provided is not a valid JWT.")
	}
	text := func(name string) (s string) {
		_ = json.Unmarshal(c.all[name], &s) // what is no text is empty
		return s
	}
	issuer := text("iss")
	var provider *OIDCProvider
	for i := range w.config.Providers {
		if p := &w.config.Providers[i]; p.Issuer == issuer && p.ARN == "arn:aws:iam::"+accountOf(form.Get("RoleArn"))+":oidc-provider/"+strings.TrimPrefix(strings.TrimPrefix(issuer, "https://"), "http://") {
			provider = p
		}
	}
	if provider == nil {
		return nil, nil, badToken("No OpenIDConnect provider found in your account for %s", issuer)
	}
	keys, err := provider.Keys()
	if err != nil {
		return nil, nil, &refusal{400, "IDPCommunicationError", "Could not retrieve the key set of the identity provider"}
	}
	if err := verifyJWS(keys, header.Alg, header.Kid, []byte(parts[0]+"."+parts[1]), signature); err != nil {
		return nil, nil, badToken("%v", err)
	}
	now := w.config.RealNow()
	instant := func(name string) (time.Time, bool) {
		var f float64
		if json.Unmarshal(c.all[name], &f) != nil {
			return time.Time{}, false
		}
		return time.Unix(int64(f), 0), true
	}
	expires, ok := instant("exp")
	issued, ok2 := instant("iat")
	if !ok || !ok2 || text("sub") == "" || issued.After(now.Add(5*time.Minute)) {
		return nil, nil, badToken("The token lacks exp, iat or sub, or was issued in the future")
	}
	if !now.Before(expires) {
		return nil, nil, &refusal{400, "ExpiredTokenException", fmt.Sprintf("Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), expires.Unix())}
	}
	audiences, single := []string(nil), ""
	if json.Unmarshal(c.all["aud"], &single) == nil {
		audiences = []string{single}
	} else if json.Unmarshal(c.all["aud"], &audiences) != nil {
		audiences = nil
	}
	if azp := text("azp"); azp != "" { // STS takes it for the audience
		audiences = []string{azp}
	}
	for _, a := range audiences {
		if contains(provider.ClientIDs, a) {
			c.audience = a
		}
	}
	if c.audience == "" {
		return nil, nil, badToken("Incorrect token audience")
	}
	c.subject = text("sub")
	return c, provider, nil
}

// webSession holds the claims against the role's trust policy and makes the session.
func (w *World) webSession(form url.Values, claims *webClaims, provider *OIDCProvider) (*credential, int, *refusal) {
	if no := sessionName(form); no != nil {
		return nil, 0, no
	}
	denied := func(action string) *refusal {
		return &refusal{403, "AccessDenied", "Not authorized to perform " + action}
	}
	role := w.roleOf(form.Get("RoleArn"))
	trusted := false
	if role != nil {
		for _, f := range role.Federated {
			trusted = trusted || f.Provider == provider.ARN && (len(f.Audiences) == 0 || contains(f.Audiences, claims.audience)) && (len(f.Subjects) == 0 || contains(f.Subjects, claims.subject))
		}
	}
	if !trusted {
		return nil, 0, denied("sts:AssumeRoleWithWebIdentity")
	}
	tags, transitive, err := claimedTags(claims.all)
	if err != nil {
		return nil, 0, badToken("The token's session tags cannot be read: %v", err)
	}
	checked := make(url.Values)
	n := 0
	for k, v := range tags {
		n++
		checked.Set(fmt.Sprintf("Tags.member.%d.Key", n), k)
		checked.Set(fmt.Sprintf("Tags.member.%d.Value", n), v)
	}
	if _, no := sessionTags(checked); no != nil {
		return nil, 0, no
	}
	if len(tags) > 0 && role.NoTagging {
		return nil, 0, denied("sts:TagSession")
	}
	var source string
	if raw, ok := claims.all[sourceIdentityClaim]; ok {
		if source, err = one(raw); err != nil {
			return nil, 0, badToken("The token's source identity cannot be read: %v", err)
		}
		if no := sourceIdentity(source); no != nil {
			return nil, 0, no
		}
		if role.NoSourceID {
			return nil, 0, denied("sts:SetSourceIdentity")
		}
	}
	return w.issue(form, "", sessionRequest{who: provider.ARN + "#" + claims.subject, role: role, name: form.Get("RoleSessionName"),
		tags: tags, transitive: transitive, sourceIdentity: source})
}

// claimedTags reads the tags of a token, nested or flattened. A tag has one value.
func claimedTags(claims map[string]json.RawMessage) (tags map[string]string, transitive []string, err error) {
	tags = make(map[string]string)
	add := func(k string, raw json.RawMessage) error {
		v, err := one(raw)
		if _, twice := tags[k]; err == nil && twice {
			err = errors.New("a tag is given twice")
		}
		tags[k] = v
		return err
	}
	if raw, ok := claims[tagsClaim]; ok {
		var nested struct {
			Principal  map[string]json.RawMessage `json:"principal_tags"`
			Transitive []string                   `json:"transitive_tag_keys"`
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&nested); err != nil {
			return nil, nil, err
		}
		for k, v := range nested.Principal {
			if err := add(k, v); err != nil {
				return nil, nil, err
			}
		}
		transitive = nested.Transitive
	}
	for name, raw := range claims {
		if k, ok := strings.CutPrefix(name, tagsClaim+"/principal_tags/"); ok {
			if err := add(k, raw); err != nil {
				return nil, nil, err
			}
		} else if name == tagsClaim+"/transitive_tag_keys" {
			var list []string
			if err := json.Unmarshal(raw, &list); err != nil {
				return nil, nil, err
			}
			transitive = append(transitive, list...)
		}
	}
	return tags, transitive, nil
}

// one is a text, or a list of one text.
func one(raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil || len(list) != 1 {
		return "", errors.New("a value is not one text")
	}
	return list[0], nil
}

// verifyJWS checks a signature against a key set, by the algorithms that STS takes.
func verifyJWS(keySet []byte, alg, kid string, signed, signature []byte) error {
	var set struct {
		Keys []struct {
			Kty, Kid, Use, Alg, Crv, N, E, X, Y string
		}
	}
	if err := json.Unmarshal(keySet, &set); err != nil {
		return errors.New("Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements")
	}
	hash, ok := map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
		"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512}[alg]
	if !ok {
		return errors.New("Token signature algorithm is not supported")
	}
	h := hash.New()
	h.Write(signed)
	sum := h.Sum(nil)
	number := func(s string) *big.Int {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || len(b) > 1024 {
			return new(big.Int)
		}
		return new(big.Int).SetBytes(b)
	}
	for _, k := range set.Keys {
		if k.Kid != kid || k.Use != "" && k.Use != "sig" || k.Alg != "" && k.Alg != alg {
			continue
		}
		switch {
		case k.Kty == "RSA" && alg[0] == 'R':
			key := &rsa.PublicKey{N: number(k.N), E: int(number(k.E).Int64())}
			if key.N.BitLen() >= 2048 && rsa.VerifyPKCS1v15(key, hash, sum, signature) == nil {
				return nil
			}
		case k.Kty == "EC" && alg[0] == 'E':
			curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
			if curve == nil || len(signature) == 0 || len(signature)%2 != 0 {
				continue
			}
			half, size := len(signature)/2, (curve.Params().BitSize+7)/8
			point := append([]byte{4}, append(number(k.X).FillBytes(make([]byte, size)), number(k.Y).FillBytes(make([]byte, size))...)...)
			key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
			if err == nil && ecdsa.Verify(key, sum, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])) {
				return nil
			}
		}
		return errors.New("Provided Token is not signed by the identity provider's key")
	}
	return errors.New("Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements")
}
