package signin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/waybill-dev/waybill"
)

// A Profile says how a person gets credentials: who signs them in, and who gives the
// role session, STS or a gateway as broker.
type Profile struct {
	// Issuer is the OpenID Connect provider; ClientID is what it knows us as.
	Issuer   string `yaml:"issuer,omitempty"`
	ClientID string `yaml:"clientId,omitempty"`
	// ClientSecretEnv names the environment variable with the client's secret, for
	// providers that demand one of a program on a desk, where it is no secret.
	ClientSecretEnv string `yaml:"clientSecretEnv,omitempty"`
	// Scopes are asked for; empty means openid, and offline_access if the provider has it.
	Scopes []string `yaml:"scopes,omitempty"`
	// Params are further parameters of the sign-in, such as audience.
	Params map[string]string `yaml:"params,omitempty"`
	// Port is of the loopback redirect; 0 means any, which a provider must allow
	// (RFC 8252).
	Port int `yaml:"port,omitempty"`
	// Device signs in by device code.
	Device bool `yaml:"device,omitempty"`

	// Role is assumed with the token, at the STS of Region.
	Role   string `yaml:"role,omitempty"`
	Region string `yaml:"region,omitempty"`
	// SessionName is a text with claims in braces; empty means {sub}.
	SessionName string `yaml:"sessionName,omitempty"`
	// Life of the session; 0 means an hour.
	Life Duration `yaml:"life,omitempty"`
	// Tags are keys of session tags that the token must bring.
	Tags []string `yaml:"tags,omitempty"`
	// STSEndpoint takes the place of AWS's own.
	STSEndpoint string `yaml:"stsEndpoint,omitempty"`

	// Broker is the URL of a gateway that gives the session, under its policy.
	Broker string `yaml:"broker,omitempty"`
	// KeyEnv names the environment variable with a gateway key, for a broker that is
	// shown one in the place of a sign-in.
	KeyEnv string `yaml:"keyEnv,omitempty"`
	// Ask are tags that the broker is asked for; its policy decides.
	Ask map[string]string `yaml:"ask,omitempty"`

	// Store is where credentials are kept: file or keyring.
	Store string `yaml:"store,omitempty"`
}

// A Duration is a time.Duration that is written as 1h or 30m.
type Duration time.Duration

// UnmarshalYAML reads a duration.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %q is not a duration: write a number with m or h", n.Line, n.Value)
	}
	*d = Duration(v)
	return nil
}

// ReadProfiles reads a file of profiles: a mapping profiles, by name. What is not known
// is a mistake.
func ReadProfiles(name string, src []byte) (map[string]Profile, error) {
	var file struct {
		Profiles map[string]Profile `yaml:"profiles"`
	}
	d := yaml.NewDecoder(bytes.NewReader(src))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, misused("correct the file; docs/operate/credentials.md lists what a profile may say", "%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return file.Profiles, nil
}

func misused(hint, format string, a ...any) error {
	return &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf(format, a...), Hint: hint}
}

// With is the profile with another's settings over it, where the other has any. A
// broker takes the place of a role, and a role that of a broker.
func (p Profile) With(over Profile) Profile {
	text := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	if over.Broker != "" {
		p.Role = ""
	}
	if over.Role != "" {
		p.Broker = ""
	}
	text(&p.Issuer, over.Issuer)
	text(&p.ClientID, over.ClientID)
	text(&p.ClientSecretEnv, over.ClientSecretEnv)
	text(&p.Role, over.Role)
	text(&p.Region, over.Region)
	text(&p.SessionName, over.SessionName)
	text(&p.STSEndpoint, over.STSEndpoint)
	text(&p.Broker, over.Broker)
	text(&p.KeyEnv, over.KeyEnv)
	text(&p.Store, over.Store)
	if len(over.Scopes) > 0 {
		p.Scopes = over.Scopes
	}
	if len(over.Tags) > 0 {
		p.Tags = over.Tags
	}
	if len(over.Params) > 0 {
		p.Params = over.Params
	}
	if len(over.Ask) > 0 {
		p.Ask = over.Ask
	}
	if over.Port != 0 {
		p.Port = over.Port
	}
	if over.Life != 0 {
		p.Life = over.Life
	}
	p.Device = p.Device || over.Device
	return p
}

var roleARN = regexp.MustCompile(`^arn:aws[a-z-]*:iam::\d{12}:role/\S+$`)

// Check says what is wrong with a profile.
func (p *Profile) Check() error {
	brokered := p.Broker != ""
	switch {
	case p.Issuer == "" && !(brokered && p.KeyEnv != ""):
		return misused("give --issuer and --client-id, or issuer and clientId in the profile", "nobody is named to sign you in")
	case p.Issuer != "" && p.ClientID == "":
		return misused("give --client-id, or clientId in the profile: the provider's administrator knows it", "the provider must know this program by a client id")
	case !brokered && p.Role == "":
		return misused("give --role arn:aws:iam::ACCOUNT:role/NAME, or --broker URL", "no role is named")
	case brokered && p.Role != "":
		return misused("leave out one of --role and --broker: the broker chooses the role", "a role and a broker are both named")
	case !brokered && !roleARN.MatchString(p.Role):
		return misused("write arn:aws:iam::ACCOUNT:role/NAME", "%q is not the ARN of a role", p.Role)
	case !brokered && p.Region == "":
		return misused("give --region: the STS of that Region is asked", "no Region is named")
	case p.Life != 0 && (time.Duration(p.Life) < 15*time.Minute || time.Duration(p.Life) > 12*time.Hour):
		return misused("write 15m to 12h, and not more than the role's MaxSessionDuration", "a session of %s cannot be had", time.Duration(p.Life))
	case p.Port < 0 || p.Port > 65535:
		return misused("write 1 to 65535, or leave it out for any", "%d is not a port", p.Port)
	case p.Store != "" && p.Store != "file" && p.Store != "keyring":
		return misused("write file or keyring", "store %q is not known", p.Store)
	}
	for what, text := range map[string]string{"issuer": p.Issuer, "broker": p.Broker, "stsEndpoint": p.STSEndpoint} {
		if text != "" && !safeURL(text) {
			return misused("write https://HOST...; plain http is for this machine only", "%s %q is not the URL of a server that can be trusted with a secret", what, text)
		}
	}
	return nil
}

// safeURL reports whether a URL is https, or http on this machine.
func safeURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	if u.Scheme == "https" {
		return true
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// key names what is kept for a profile: another provider, client, role or broker is
// another sign-in.
func (p *Profile) key() string {
	q := *p
	q.Port, q.Device, q.Store = 0, false, "" // ways to the same
	q.Tags = nil
	q.Scopes = slices.Clone(q.Scopes)
	b, err := json.Marshal(q)
	if err != nil {
		panic(err) // texts and numbers
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}
