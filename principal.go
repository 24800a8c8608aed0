package waybill

// A Principal is who made a call, as the gateway knows them. It never holds the
// credential they came with.
type Principal struct {
	// Subject names the caller: stable, unique within Issuer.
	Subject string `json:"subject"`
	// Issuer is who vouches for Subject: an OIDC issuer URL, "gateway-key", ...
	Issuer string `json:"issuer"`
	// Method is the proof that was given: "oidc", "key", "sigv4", "aws", "mtls".
	Method string `json:"method"`
	// KeyID is the public id of the gateway key or signing key, if one was used.
	KeyID string `json:"key_id,omitempty"`
	// Claims are values the issuer vouches for, by name; lists are joined in Groups.
	Claims map[string]string `json:"claims,omitempty"`
	// Tags were derived from the identity by the caller's registration. A request
	// can never override them.
	Tags Tags `json:"tags"`
	// Models and Environments restrict what the credential may be used for; nil
	// means no restriction. A pattern may end in "*".
	Models       []string `json:"models,omitempty"`
	Environments []string `json:"environments,omitempty"`
}

// A RoleSession says which role a call is made under, and how the session is
// named and tagged: what AWS bills by.
type RoleSession struct {
	RoleARN        string
	SessionName    string   // 2-64 characters of [\w+=,.@-]
	Tags           Tags     // session tags
	Transitive     []string // keys that pass on to further sessions
	SourceIdentity string
	ExternalID     string
	// Drop lists optional tag keys in the order in which they are given up when STS
	// says that the packed tags are too large.
	Drop []string
}

// A Signed says as whom a request was signed, and what of the session that was asked
// for AWS will not see.
type Signed struct {
	// PrincipalARN is whom AWS sees; empty where that is not known.
	PrincipalARN string
	// Dropped are keys of optional session tags that the session does not carry: STS
	// had no room for them.
	Dropped []string
}
