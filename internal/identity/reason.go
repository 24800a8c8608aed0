package identity

import (
	"slices"

	"github.com/waybill-dev/waybill"
)

// A Reason is a code for why a proof was refused. It is for the audit record and for
// metrics; the caller is never told.
type Reason string

// The closed list of reasons. Metrics may use them as label values.
const (
	ReasonNoProof      Reason = "no_proof"      // nothing that could be a credential came
	ReasonUnrecognized Reason = "unrecognized"  // a credential of a kind that nobody here knows
	ReasonTooMany      Reason = "too_many"      // more credentials than anyone needs
	ReasonDisagree     Reason = "disagree"      // two good proofs of two callers
	ReasonBedrockKey   Reason = "bedrock_key"   // a Bedrock API key was sent here
	ReasonRevoked      Reason = "revoked"       // on the deny list, or a key that was revoked
	ReasonExpired      Reason = "expired"       // token, key or certificate is past its time
	ReasonNotYet       Reason = "not_yet_valid" // before its time, or issued in the future
	ReasonUnknownKey   Reason = "unknown_key"   // no gateway key or signing key has that id
	ReasonSecret       Reason = "secret"        // the key is known, its secret is another
	ReasonSignature    Reason = "signature"     // the signature does not hold
	ReasonTooLarge     Reason = "too_large"
	ReasonMalformed    Reason = "malformed" // not the form of its kind, or read in two ways
	ReasonStale        Reason = "stale"     // what we know of keys is too old to rely on

	// Of OIDC tokens.
	ReasonEncrypted   Reason = "encrypted"    // a JWE
	ReasonCritical    Reason = "critical"     // a header extension that must be understood
	ReasonType        Reason = "type"         // a JWT that is no access or ID token
	ReasonAlgorithm   Reason = "algorithm"    // none, HS*, or not allowed for the issuer
	ReasonIssuer      Reason = "issuer"       // not one of ours
	ReasonKeyID       Reason = "key_id"       // the issuer has no such key for that algorithm
	ReasonKeySet      Reason = "key_set"      // the issuer's keys could not be had
	ReasonAudience    Reason = "audience"     // meant for somebody else
	ReasonParty       Reason = "party"        // asked for by somebody who may not
	ReasonNoExpiry    Reason = "no_expiry"    // good forever
	ReasonLife        Reason = "life"         // good for longer than the issuer is allowed
	ReasonClaim       Reason = "claim"        // a required claim is missing or another
	ReasonSubject     Reason = "subject"      // the claim that names the caller is missing or odd
	ReasonUnprovenKey Reason = "unproven_key" // bound to a key that the caller did not prove

	// Of client certificates.
	ReasonNoRule Reason = "no_rule" // a good certificate that no rule knows

	// Of signatures (SigV4) and AWS identities.
	ReasonClock    Reason = "clock"           // the signature's time is outside the window
	ReasonReplayed Reason = "replayed"        // seen before
	ReasonBody     Reason = "body"            // the body is not the one that was signed
	ReasonScope    Reason = "scope"           // signed for another Region, service or host
	ReasonPath     Reason = "path"            // clients and servers read it in several ways
	ReasonSealed   Reason = "sealed"          // a key of ours whose secret we cannot open
	ReasonUnsigned Reason = "unsigned_header" // a header that had to be signed was not

	ReasonOther Reason = "other" // a method gave none
)

// Reasons is the closed list: what a metric or a test may count on.
func Reasons() []Reason { return slices.Clone(reasons) }

var reasons = []Reason{ReasonNoProof, ReasonUnrecognized, ReasonTooMany, ReasonDisagree, ReasonBedrockKey, ReasonRevoked, ReasonExpired,
	ReasonNotYet, ReasonUnknownKey, ReasonSecret, ReasonSignature, ReasonTooLarge, ReasonMalformed, ReasonStale, ReasonEncrypted,
	ReasonCritical, ReasonType, ReasonAlgorithm, ReasonIssuer, ReasonKeyID, ReasonKeySet, ReasonAudience, ReasonParty,
	ReasonNoExpiry, ReasonLife, ReasonClaim, ReasonSubject, ReasonUnprovenKey, ReasonNoRule, ReasonClock, ReasonReplayed, ReasonBody,
	ReasonScope, ReasonPath, ReasonSealed, ReasonUnsigned, ReasonOther}

// A Refusal is the error of a proof that does not hold, with the reason for the audit
// record. As text, and as the *waybill.Error it wraps, every refusal is the same.
type Refusal struct {
	Reason Reason
	// What is known for sure about the proof, if anything: an issuer that we are
	// configured for, a subject whose signature held, a key id that exists. Never what
	// a stranger only claims.
	Subject, Issuer, KeyID string
}

// Error is the same text for every refusal.
func (*Refusal) Error() string { return refused().Error() }

// Unwrap is what the caller is told.
func (*Refusal) Unwrap() error { return refused() }

// refuse is the error of a proof that does not hold.
func refuse(reason Reason) error { return &Refusal{Reason: reason} }

// refused is the one answer to every proof that does not hold.
func refused() *waybill.Error {
	return &waybill.Error{Kind: waybill.Unauthenticated, Code: "WB1001", Message: "the caller is not known",
		Hint: "send a live gateway key or token as bearer token, x-api-key or api-key, or another proof that this gateway takes"}
}

// refusedBedrockKey is the answer to a Bedrock API key: told apart, since it must never
// be sent here.
func refusedBedrockKey() *waybill.Error {
	return &waybill.Error{Kind: waybill.Unauthenticated, Code: "WB1002",
		Message: "this is an Amazon Bedrock API key, and was not passed on", Hint: "use a gateway key; revoke the Bedrock key if it was shared"}
}
