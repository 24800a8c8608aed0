package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/identity/pgkeys"
	"github.com/waybill-dev/waybill/internal/policy"
)

// callersConfig is who may call: docs/operate/callers.md describes it.
type callersConfig struct {
	keysFile     string
	postgres     string
	oidc         []identity.Issuer
	certificates []identity.CertificateRule
	known        []identity.Caller
	denied       string
	audit        string
	sealing      []string // keys that seal the secrets of signing keys
	signing      identity.SigV4Config
	aws          *identity.AWSConfig
	authorities  []string          // files of authorities that issuers are verified with
	read         [sha256.Size]byte // what was in them: whoever has read them once does not look again
}

// fill reads the mapping `callers`. file makes a path absolute.
func (c *callersConfig) fill(n policy.Node, file func(policy.Node) string) {
	n.Fields(map[string]func(policy.Node){
		"keys": func(n policy.Node) {
			if !n.IsMapping() {
				c.keysFile = file(n)
				return
			}
			n.Fields(map[string]func(policy.Node){
				"file":     func(n policy.Node) { c.keysFile = file(n) },
				"postgres": func(n policy.Node) { c.postgres = reference(n) },
			})
			if (c.keysFile == "") == (c.postgres == "") {
				n.Mistake("keep one of the two", "keys are in a file or in PostgreSQL")
			}
		},
		"denied": func(n policy.Node) { c.denied = file(n) },
		"audit":  func(n policy.Node) { c.audit = file(n) },
		"oidc": func(n policy.Node) {
			for _, item := range n.List() {
				i := readIssuer(item, file)
				if c.oidc = append(c.oidc, i); i.CAFile != "" {
					c.authorities = append(c.authorities, i.CAFile)
				}
			}
			c.read = digest(c.authorities)
		},
		"certificates": func(n policy.Node) {
			for _, item := range n.List() {
				c.certificates = append(c.certificates, readCertificateRule(item))
			}
		},
		"signing": func(n policy.Node) { c.readSigning(n) },
		"aws":     func(n policy.Node) { c.readAWS(n) },
		"known": func(n policy.Node) {
			for _, item := range n.List() {
				c.known = append(c.known, readKnown(item))
			}
		},
	})
}

// readSigning reads the mapping `signing`: docs/operate/signing-keys.md.
func (c *callersConfig) readSigning(n policy.Node) {
	n.Fields(map[string]func(policy.Node){
		"sealingKeys": func(n policy.Node) {
			for _, item := range n.List() {
				c.sealing = append(c.sealing, reference(item))
			}
		},
		"services":      func(n policy.Node) { c.signing.Services = n.Texts() },
		"regions":       func(n policy.Node) { c.signing.Regions = n.Texts() },
		"window":        func(n policy.Node) { c.signing.Window = duration(n) },
		"maxExpires":    func(n policy.Node) { c.signing.MaxExpires = duration(n) },
		"repeats":       func(n policy.Node) { c.signing.Repeats = int(number(n)) },
		"unsignedEmpty": func(n policy.Node) { c.signing.UnsignedEmpty = n.Bool() },
		"addedHeaders":  func(n policy.Node) { c.signing.Added = n.Texts() },
	})
	if len(c.sealing) == 0 {
		n.Mistake("add sealingKeys: ['${WAYBILL_SEALING_KEY}']; openssl rand -base64 32 makes one", "signing keys need the key that their secrets are sealed with")
	}
}

// readAWS reads the mapping `aws`: docs/operate/aws-identity.md.
func (c *callersConfig) readAWS(n policy.Node) {
	c.aws = new(identity.AWSConfig)
	n.Fields(map[string]func(policy.Node){
		"gateway":  func(n policy.Node) { c.aws.Gateway = reference(n) },
		"accounts": func(n policy.Node) { c.aws.Accounts = n.Texts() },
		"regions":  func(n policy.Node) { c.aws.Regions = n.Texts() },
		"maxAge":   func(n policy.Node) { c.aws.MaxAge = duration(n) },
		"keep":     func(n policy.Node) { c.aws.Keep = duration(n) },
		"rules": func(n policy.Node) {
			for _, item := range n.List() {
				var r identity.AWSRule
				text := func(to *string) func(policy.Node) { return func(n policy.Node) { *to = n.Text() } }
				item.Fields(map[string]func(policy.Node){
					"principal": text(&r.Principal), "roleId": text(&r.RoleID), "session": text(&r.Session), "subject": text(&r.Subject),
					"trustSession": func(n policy.Node) { r.TrustSession = n.Bool() },
					"tags":         func(n policy.Node) { r.Tags = waybill.TagsFromMap(textsOf(n)) },
					"models":       func(n policy.Node) { r.Models = n.Texts() },
					"environments": func(n policy.Node) { r.Environments = n.Texts() },
				})
				c.aws.Rules = append(c.aws.Rules, r)
			}
		},
	})
}

// any reports whether there is a way of proving who calls.
func (c *callersConfig) any() bool {
	return c.keysFile != "" || c.postgres != "" || len(c.oidc) > 0 || len(c.certificates) > 0 || c.aws != nil
}

func textsOf(n policy.Node) map[string]string {
	out := make(map[string]string)
	n.Each(func(name string, _, v policy.Node) { out[name] = v.Text() })
	return out
}

func readIssuer(item policy.Node, file func(policy.Node) string) identity.Issuer {
	var i identity.Issuer
	text := func(to *string) func(policy.Node) { return func(n policy.Node) { *to = reference(n) } }
	texts := func(to *[]string) func(policy.Node) { return func(n policy.Node) { *to = n.Texts() } }
	item.Fields(map[string]func(policy.Node){
		"issuer":        text(&i.URL),
		"audiences":     texts(&i.Audiences),
		"audienceClaim": text(&i.AudienceClaim),
		"parties":       texts(&i.Parties),
		"partyClaim":    text(&i.PartyClaim),
		"algorithms":    texts(&i.Algorithms),
		"skew":          func(n policy.Node) { i.Skew = duration(n) },
		"maxLife":       func(n policy.Node) { i.MaxLife = duration(n) },
		"require": func(n policy.Node) {
			i.Require = make(map[string][]string)
			n.Each(func(name string, _, v policy.Node) { i.Require[name] = v.Texts() })
		},
		"subject":   text(&i.Subject),
		"claims":    func(n policy.Node) { i.Claims = textsOf(n) },
		"tags":      func(n policy.Node) { i.Tags = textsOf(n) },
		"discovery": text(&i.Discovery),
		"keys":      text(&i.Keys),
		"ca":        func(n policy.Node) { i.CAFile = file(n) },
		"tokenFile": func(n policy.Node) { i.TokenFile = file(n) },
		"allowHTTP": func(n policy.Node) { i.AllowHTTP = n.Bool() },
	})
	if i.URL == "" || len(i.Audiences) == 0 {
		item.Mistake("add issuer: and audiences:", "an issuer lacks its URL or its audiences")
	}
	return i
}

func readCertificateRule(item policy.Node) identity.CertificateRule {
	var r identity.CertificateRule
	text := func(to *string) func(policy.Node) { return func(n policy.Node) { *to = n.Text() } }
	item.Fields(map[string]func(policy.Node){
		"uri": text(&r.URI), "dns": text(&r.DNS), "commonName": text(&r.CommonName), "unit": text(&r.Unit), "ca": text(&r.CA),
		"subject": text(&r.Subject), "issuer": text(&r.Issuer),
		"tags": func(n policy.Node) { r.Tags = textsOf(n) },
	})
	return r
}

func readKnown(item policy.Node) identity.Caller {
	var c identity.Caller
	item.Fields(map[string]func(policy.Node){
		"subject": func(n policy.Node) { c.Subject = n.Text() },
		"issuer":  func(n policy.Node) { c.Issuer = n.Text() },
		"tags":    func(n policy.Node) { c.Tags = waybill.TagsFromMap(textsOf(n)) },
		"by": func(n policy.Node) {
			for _, item := range n.List() {
				var k identity.Known
				item.Fields(map[string]func(policy.Node){
					"issuer":  func(n policy.Node) { k.Issuer = n.Text() },
					"subject": func(n policy.Node) { k.Subject = n.Text() },
				})
				c.Known = append(c.Known, k)
			}
		},
	})
	return c
}

// callers is who may call, at work.
type callers struct {
	*identity.Chain
	audit   *identity.AuditFile
	ready   []check
	closers []func()
}

// A check says what keeps the gateway from being ready.
type check struct {
	what string
	err  func() error
}

// open builds the ways of proving who calls: certificates before keys before tokens.
func (c *callersConfig) open(ctx context.Context) (_ *callers, err error) {
	out := new(callers)
	defer func() {
		if err != nil {
			out.Close()
		}
	}()
	chain := identity.ChainConfig{Callers: c.known}
	if len(c.certificates) > 0 {
		m, err := identity.NewCertificates(c.certificates)
		if err != nil {
			return nil, err
		}
		chain.Methods = append(chain.Methods, m)
	}
	var store interface {
		identity.KeyStore
		List() []identity.Key
	}
	switch {
	case c.keysFile != "":
		keys, err := identity.OpenKeys(c.keysFile)
		if err != nil {
			return nil, err
		}
		store = keys
		chain.Methods = append(chain.Methods, keys.Method())
		out.ready = append(out.ready, check{"the gateway keys cannot be read again", keys.Err})
	case c.postgres != "":
		database, err := pgkeys.Open(ctx, pgkeys.Config{URL: c.postgres})
		if err != nil {
			return nil, err
		}
		store = database
		out.closers = append(out.closers, database.Close)
		chain.Methods = append(chain.Methods, database.Method())
		out.ready = append(out.ready, check{"the database of gateway keys cannot be read", database.Ready})
	}
	if len(c.sealing) > 0 {
		if store == nil {
			return nil, &waybill.Error{Kind: waybill.Misused, Message: "callers.signing has no keys", Hint: "add callers: {keys: keys.jsonl}"}
		}
		sealer, err := identity.NewSealer(c.sealing...)
		if err != nil {
			return nil, err
		}
		if err := sealer.Check(store.List(), time.Now()); err != nil {
			return nil, err
		}
		c.signing.BodyRefused = func(r *http.Request, why *identity.Refusal) { // the caller was accepted before the body was read
			if out.audit != nil {
				out.audit.Record(identity.Attempt{At: time.Now().UTC(), Outcome: identity.Refused, Method: "sigv4", Reason: why.Reason, Subject: why.Subject, Issuer: why.Issuer, KeyID: why.KeyID, RemoteAddr: r.RemoteAddr})
			}
		}
		signed := identity.NewSigV4(identity.NewSigningKeys(store, sealer), c.signing)
		chain.Methods = append(chain.Methods, signed.Method())
	}
	if c.aws != nil {
		who, err := identity.NewAWS(*c.aws)
		if err != nil {
			return nil, err
		}
		chain.Methods = append(chain.Methods, who.Method())
	}
	if len(c.oidc) > 0 {
		tokens, err := identity.NewOIDC(identity.OIDCConfig{Issuers: c.oidc})
		if err != nil {
			return nil, err
		}
		out.closers = append(out.closers, tokens.Close)
		chain.Methods = append(chain.Methods, tokens.Method())
		out.ready = append(out.ready, check{"the keys of an issuer cannot be had", tokens.Ready})
	}
	if c.denied != "" {
		if chain.Denied, err = identity.OpenDenyList(c.denied); err != nil {
			return nil, err
		}
		out.ready = append(out.ready, check{"the deny list cannot be read again", chain.Denied.Err})
	}
	if c.audit != "" {
		if out.audit, err = identity.OpenAuditFile(c.audit, identity.AuditFileConfig{}); err != nil {
			return nil, err
		}
		chain.Record = out.audit.Record
		out.ready = append(out.ready, check{"the audit file cannot be written", out.audit.Err})
	}
	out.Chain, err = identity.NewChain(chain)
	return out, err
}

// check says what is wrong with the settings, without beginning to work by them.
func (c callersConfig) check() error {
	c.audit = "" // a check leaves no file behind
	who, err := c.open(context.Background())
	if err == nil {
		who.Close()
	}
	return err
}

// given records a role session that a caller asked for. Without a record none is given.
func (c *callers) given(_ context.Context, to waybill.Principal, of waybill.RoleSession, principalARN string, refused error) error {
	if to.Subject == "" {
		return nil // the refusal of the proof is recorded already
	}
	if c.audit == nil {
		return errors.New("callers.audit names no file")
	}
	a := identity.Attempt{At: time.Now().UTC(), Outcome: identity.SessionGiven, Method: to.Method, Subject: to.Subject, Issuer: to.Issuer, KeyID: to.KeyID,
		Role: of.RoleARN, SessionName: of.SessionName, PrincipalARN: principalARN}
	if refused != nil {
		a.Outcome = identity.SessionDenied
		if e, ok := errors.AsType[*waybill.Error](refused); ok {
			a.Code = e.Code
		}
	}
	c.audit.Record(a)
	return c.audit.Err()
}

// Close ends what open began.
func (c *callers) Close() {
	if c.Chain != nil {
		c.Chain.Close()
	}
	for _, f := range c.closers {
		f()
	}
	if c.audit != nil {
		_ = c.audit.Close() // Err has told what could not be written
	}
}
