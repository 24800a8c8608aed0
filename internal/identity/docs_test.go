package identity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/waybill-dev/waybill"
)

const callersPage = "../../docs/operate/callers.md"

// A block is a fenced part of a page.
type block struct {
	section, kind, text string
}

func blocks(t *testing.T) (list []block) {
	t.Helper()
	raw, err := os.ReadFile(callersPage)
	if err != nil {
		t.Fatal(err)
	}
	section, kind, text := "", "", ""
	for line := range strings.Lines(string(raw)) {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && kind == "":
			kind, text = fence, ""
		case isFence:
			list, kind = append(list, block{section, kind, text}), ""
		case kind != "":
			text += line
		case strings.HasPrefix(line, "#"):
			section = strings.TrimSpace(strings.TrimLeft(line, "#"))
		}
	}
	return list
}

// issuerSettings are the settings of an issuer as the page has them.
type issuerSettings struct {
	Issuer        string              `yaml:"issuer"`
	Audiences     []string            `yaml:"audiences"`
	AudienceClaim string              `yaml:"audienceClaim"`
	Parties       []string            `yaml:"parties"`
	PartyClaim    string              `yaml:"partyClaim"`
	Algorithms    []string            `yaml:"algorithms"`
	Subject       string              `yaml:"subject"`
	Require       map[string][]string `yaml:"require"`
	Claims        map[string]string   `yaml:"claims"`
	Tags          map[string]string   `yaml:"tags"`
}

// The settings on the page take the token on the page, and make it the caller on the
// page; and each thing that the settings require is required.
func TestCallersPage(t *testing.T) {
	sections := make(map[string]map[string]string)
	for _, b := range blocks(t) {
		if sections[b.section] == nil {
			sections[b.section] = make(map[string]string)
		}
		if sections[b.section][b.kind] != "" {
			t.Errorf("%s has two blocks of %s", b.section, b.kind)
		}
		sections[b.section][b.kind] = b.text
	}
	is := newTestIssuer(t)
	is.publish(jwkOf("issuers-key-1", "RS256", testKeys().rsa.Public()))
	for _, name := range []string{"Okta", "Microsoft Entra ID", "Auth0", "Amazon Cognito", "Keycloak", "GitHub Actions", "Kubernetes service accounts"} {
		t.Run(name, func(t *testing.T) {
			s := sections[name]
			var settings issuerSettings
			if err := yaml.Load([]byte(s["yaml"]), &settings, yaml.WithKnownFields()); err != nil {
				t.Fatal(err)
			}
			var header, claims obj
			var want waybill.Principal
			for kind, v := range map[string]any{"json header": &header, "json claims": &claims, "json caller": &want} {
				d := json.NewDecoder(strings.NewReader(s[kind]))
				if kind == "json caller" {
					d.DisallowUnknownFields()
				}
				if err := d.Decode(v); err != nil {
					t.Fatalf("%s: %v", kind, err)
				}
			}
			// The token of the page, made again now.
			shift := float64(time.Now().Unix()) - claims["iat"].(float64)
			for _, name := range []string{"iat", "nbf", "exp", "auth_time"} {
				if at, ok := claims[name].(float64); ok {
					claims[name] = int64(at + shift)
				}
			}
			c := OIDCConfig{Issuers: []Issuer{{URL: settings.Issuer, Audiences: settings.Audiences, AudienceClaim: settings.AudienceClaim, Parties: settings.Parties, PartyClaim: settings.PartyClaim,
				Algorithms: settings.Algorithms, Subject: settings.Subject, Require: settings.Require, Claims: settings.Claims, Tags: settings.Tags, Keys: is.URL + "/keys"}}, Wait: 5 * time.Second}
			o := newTestOIDC(t, c)
			chain, kept := newTestChain(t, ChainConfig{Methods: []Method{o.Method()}})
			got, err := chain.Authenticate(bring(rs256(header, claims)))
			if err != nil {
				t.Fatalf("refused: %+v", kept.last())
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(waybill.Tags.Equal)); diff != "" {
				t.Error(diff)
			}
			narrowing := map[string]Reason{"exp": ReasonNoExpiry, "iss": ReasonIssuer}
			note := func(claim, fallback string, why Reason) {
				if claim == "" {
					claim = fallback
				}
				if strings.Contains(claim, ".") {
					claim, _, _ = strings.Cut(claim, ".")
				}
				narrowing[claim] = why
			}
			for claim := range settings.Require {
				note(claim, "", ReasonClaim)
			}
			note(settings.Subject, "sub", ReasonSubject)
			note(settings.AudienceClaim, "aud", ReasonAudience)
			if len(settings.Parties) > 0 {
				note(settings.PartyClaim, "azp", ReasonParty)
			}
			for claim, why := range narrowing {
				less := obj{}
				for n, v := range claims {
					if n != claim {
						less[n] = v
					}
				}
				p, err := chain.Authenticate(bring(rs256(header, less)))
				mustRefuse(t, p, err)
				if kept.last().Reason != why {
					t.Errorf("without %s: recorded %+v, want %q", claim, kept.last(), why)
				}
			}
		})
	}

	path := filepath.Join(t.TempDir(), "denied.jsonl")
	write(t, path, sections["Revoke"]["json denied"])
	if d, err := OpenDenyList(path); err != nil || d.Len() != 5 {
		t.Errorf("the deny list of the page: %v", err)
	}
	var example struct {
		Callers struct {
			Keys         string                     `yaml:"keys"`
			Denied       string                     `yaml:"denied"`
			Audit        string                     `yaml:"audit"`
			OIDC         []issuerSettings           `yaml:"oidc"`
			Certificates []certificateRuleOfThePage `yaml:"certificates"`
			Known        []struct {
				Subject string            `yaml:"subject"`
				Tags    map[string]string `yaml:"tags"`
				By      []struct {
					Issuer  string `yaml:"issuer"`
					Subject string `yaml:"subject"`
				} `yaml:"by"`
			} `yaml:"known"`
		} `yaml:"callers"`
	}
	if err := yaml.Load([]byte(sections["Who may call"]["yaml callers"]), &example, yaml.WithKnownFields()); err != nil || len(example.Callers.Known) == 0 {
		t.Fatal(err)
	}
	var rules []CertificateRule
	for _, r := range example.Callers.Certificates {
		rules = append(rules, CertificateRule{URI: r.URI, Subject: r.Subject, Tags: r.Tags})
	}
	if _, err := NewCertificates(rules); err != nil {
		t.Error(err)
	}
}

type certificateRuleOfThePage struct {
	URI     string            `yaml:"uri"`
	Subject string            `yaml:"subject"`
	Tags    map[string]string `yaml:"tags"`
}

// The page explains every reason of the audit file.
func TestReasonsAreExplained(t *testing.T) {
	raw, err := os.ReadFile(callersPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Reasons() {
		if !strings.Contains(string(raw), "`"+string(r)+"`") {
			t.Errorf("%s does not say what %q means", callersPage, r)
		}
	}
}
