package gateway_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/policy"
)

// An idp is an issuer of tokens: its discovery document, its key, and what it signs.
type idp struct {
	url string
	key *rsa.PrivateKey
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &idp{key: key}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

// token is signed by the issuer. more are claims that the user can set in their profile.
func (i *idp) token(t *testing.T, more map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": i.url, "aud": "waybill", "sub": "user-17", "team": "search", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	for k, v := range more {
		claims[k] = v
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = "1"
	text, err := token.SignedString(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const forgePolicy = `
session: {name: '{user}'}
unknown: pass
tags:
  keys:
    team:  {required: true, from: claims.team, values: [search, ads], carriers: [session, request]}
    user:  {from: caller.subject, carriers: [session, request]}
    unit:  {keyAliases: [org_unit], carriers: [session, request]}
    stage: {values: [prod, dev], default: dev, carriers: [session, request]}
    squad: {deprecated: {use: unit}}
applications:
  - {name: all of search, when: {claims.team: search}, tags: {unit: u-1}}
`

// A caller who tries to choose their own user, team, session name or role by any header,
// field or claim that they control fails. What identity and application give stays what
// it is, on every carrier, whatever is tried.
func TestCallersCannotChooseWhoTheyAre(t *testing.T) {
	issuer := newIDP(t)
	s := newStand(t, func(f *fakeaws.Config, c *gateway.Config) {
		p, err := policy.Parse("policy.yaml", []byte(forgePolicy), policy.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c.Policy = p
		admin := "arn:aws:iam::111122223333:role/waybill/admin"
		f.Roles = append(f.Roles, fakeaws.Role{ARN: admin, Trusted: []string{gatewayUser}})
		condition := func(text string) policy.Condition {
			d, err := policy.ReadYAML("when", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			return policy.ReadCondition(d.Root())
		}
		c.Roles = []gateway.Role{{When: condition("{caller: admin}"), ARN: admin}, {When: condition("{claims.role: admin}"), ARN: admin},
			{When: condition("{team: ads}"), ARN: admin}, {When: condition("{issuer: root}"), ARN: admin}, {ARN: prodRole}}
	})
	tokens, err := identity.NewOIDC(identity.OIDCConfig{Issuers: []identity.Issuer{{URL: issuer.url, Audiences: []string{"waybill"}, Claims: map[string]string{"team": "team", "role": "role"}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	keys, ok := s.gw.Callers.(*identity.Keys)
	if !ok {
		t.Fatalf("callers are %T", s.gw.Callers)
	}
	chain, err := identity.NewChain(identity.ChainConfig{Methods: []identity.Method{keys.Method(), tokens.Method()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(chain.Close)
	s.gw.Callers = chain
	other := s.token // a key of user-17, as the stand makes it: another issuer's user-17
	good := issuer.token(t, nil)

	converse, invoke := "/model/"+nova+"/converse", "/model/"+claude+"/invoke"
	claudeBody := `{"anthropic_version":"bedrock-2023-05-31","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}`
	h := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	const forged = `{"team":"ads","user":"admin","unit":"u-2"}`
	attempts := []struct {
		name, path, body string
		header           map[string]string
		claims           map[string]any
		refused          bool // it may be refused, as long as it does not work
	}{
		{name: "X-Waybill-Tags", header: h("X-Waybill-Tags", "team=ads,user=admin,unit=u-2")},
		{name: "X-Waybill-Tags as an object", header: h("X-Waybill-Tags", forged)},
		{name: "in other case", header: h("x-waybill-tags", "TEAM=ads,USER=admin,Unit=u-2")},
		{name: "with underscores", header: h("X_Waybill_Tags", "team=ads,user=admin,unit=u-2")},
		{name: "by an alias of the key", header: h("X-Waybill-Tags", "ORG_UNIT=u-2")},
		{name: "by a deprecated key", header: h("X-Waybill-Tags", "squad=u-2")},
		{name: "request metadata in the body", body: `{"requestMetadata":` + forged + `,` + hello[1:]},
		{name: "the same, escaped", body: `{"requestM\u0065tadata":` + forged + `,` + hello[1:]},
		{name: "the same, twice", body: `{"requestMetadata":{},"requestMetadata":` + forged + `,` + hello[1:], refused: true},
		{name: "the same, nested", body: `{"system":[{"text":"{\"requestMetadata\":{\"team\":\"ads\"}}"}],` + hello[1:]},
		{name: "request metadata in the header", path: invoke, body: claudeBody, header: h("X-Amzn-Bedrock-Request-Metadata", forged)},
		{name: "the same in lower case", path: invoke, body: claudeBody, header: h("x-amzn-bedrock-request-metadata", forged)},
		{name: "the same with underscores", path: invoke, body: claudeBody, header: h("X_Amzn_Bedrock_Request_Metadata", forged)},
		{name: "the header on Converse", header: h("X-Amzn-Bedrock-Request-Metadata", forged)},
		{name: "LiteLLM's tags", header: h("x-litellm-tags", "team:ads,user:admin,unit:u-2")},
		{name: "LiteLLM's metadata", header: h("x-litellm-spend-logs-metadata", forged)},
		{name: "Portkey's metadata", header: h("x-portkey-metadata", forged)},
		{name: "Cloudflare's metadata", header: h("cf-aig-metadata", forged)},
		{name: "Open WebUI's user", header: h("X-OpenWebUI-User-Id", "admin")},
		{name: "Open WebUI's user, with underscores", header: h("x_openwebui_user_id", "admin")},
		{name: "a tag named like a fact", header: h("X-Waybill-Tags", "caller=admin,issuer=root")},
		{name: "a tag named like a claim", header: h("X-Waybill-Tags", "claims.role=admin,claims.team=ads")},
		{name: "a tag with an invisible character", header: h("X-Waybill-Tags", "team\u200b=ads,user\u00a0=admin")},
		{name: "AWS headers for role and session", header: h("X-Amz-Security-Token", "x", "X-Amz-Role-Arn", "arn:aws:iam::111122223333:role/waybill/admin", "X-Amz-Role-Session-Name", "admin")},
		{name: "our own headers for role and session", header: h("X-Waybill-Role", "admin", "X-Waybill-Session-Name", "admin", "X-Waybill-Caller", "admin", "X-Forwarded-User", "admin")},
		{name: "a signature beside the token", header: h("X-Amz-Date", "20260101T000000Z", "X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")},
		{name: "project and workspace", header: h("OpenAI-Project", "proj_other", "anthropic-workspace", "proj_other", "anthropic-workspace-id", "proj_other")},
		{name: "the project of InvokeModel", header: h("X-Amzn-Bedrock-ProjectIdentifier", "proj_other")},
		{name: "the project of Converse", body: `{"projectIdentifier":"proj_other","messages":[{"role":"user","content":[{"text":"hi"}]}]}`, refused: true},
		{name: "the query", path: converse + "?team=ads&user=admin&X-Waybill-Tags=team=ads", refused: true},
		{name: "a claim named like a tag", claims: map[string]any{"user": "admin", "unit": "u-2", "tags": map[string]any{"team": "ads"}}},
		{name: "AWS's claim for session tags", claims: map[string]any{"https://aws.amazon.com/tags": map[string]any{"principal_tags": map[string]any{"team": []string{"ads"}}}}},
		{name: "names and preferred names", claims: map[string]any{"name": "admin", "preferred_username": "admin", "email": "admin@example.com", "nickname": "admin"}},
		{name: "a claim in other case", claims: map[string]any{"Team": "ads", "SUB": "admin", "Role": "admin"}},
		{name: "roles in other places", claims: map[string]any{"roles": []string{"admin"}, "realm_access": map[string]any{"role": "admin"}}},
		{name: "a key of another issuer beside the token", header: h("x-api-key", other), refused: true},
		{name: "a token of nobody's beside the token", header: h("api-key", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiIsInRlYW0iOiJhZHMifQ."), refused: true},
	}
	if len(attempts) < 25 {
		t.Fatalf("%d attempts", len(attempts))
	}
	for _, a := range attempts {
		s.token = good
		if a.claims != nil {
			s.token = issuer.token(t, a.claims)
		}
		if a.path == "" {
			a.path = converse
		}
		if a.body == "" {
			a.body = hello
		}
		before := len(s.world.Calls())
		answer, text := s.post(t, a.path, a.body, a.header)
		calls := s.world.Calls()[before:]
		if answer.StatusCode != 200 {
			if !a.refused || len(calls) != 0 {
				t.Errorf("%s: %d, %d calls: %s", a.name, answer.StatusCode, len(calls), text)
			}
			continue
		}
		c := calls[0]
		for name, values := range c.Header {
			if strings.Contains(strings.Join(values, " "), "proj_other") {
				t.Errorf("%s: AWS saw %s: %s", a.name, name, values)
			}
		}
		want := map[string]string{"team": "search", "user": "user-17", "unit": "u-1", "stage": "dev"}
		for k, v := range want {
			if c.Metadata[k] != v || c.SessionTags[k] != v {
				t.Errorf("%s: AWS saw %s=%s on the request, %s on the session", a.name, k, c.Metadata[k], c.SessionTags[k])
			}
		}
		for k := range c.SessionTags {
			if want[k] == "" {
				t.Errorf("%s: a tag of the caller's own is on the session: %s", a.name, k)
			}
		}
		if !strings.HasSuffix(c.PrincipalARN, ":assumed-role/bedrock-prod/user-17") {
			t.Errorf("%s: AWS saw %s", a.name, c.PrincipalARN)
		}
	}
	for _, a := range s.world.Assumptions() {
		if a.RoleARN != prodRole || a.SessionName != "user-17" {
			t.Errorf("role %s was assumed as %s", a.RoleARN, a.SessionName)
		}
	}
}
