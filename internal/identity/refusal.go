package identity

import (
	"net/http"

	"github.com/waybill-dev/waybill"
)

// A Reason is a code for why a proof was refused. It is for the audit record and for
// metrics; the caller is never told.
type Reason string

// Reasons of refusals.
const (
	ReasonRevoked    Reason = "revoked"
	ReasonExpired    Reason = "expired"
	ReasonNotYet     Reason = "not_yet_valid"
	ReasonUnknownKey Reason = "unknown_key"
	ReasonSecret     Reason = "secret"
	ReasonSignature  Reason = "signature"
	ReasonTooLarge   Reason = "too_large"
	ReasonMalformed  Reason = "malformed"
	ReasonStale      Reason = "stale"
	ReasonNoRule     Reason = "no_rule"
	ReasonClock      Reason = "clock"
	ReasonReplayed   Reason = "replayed"
	ReasonBody       Reason = "body"
	ReasonScope      Reason = "scope"
	ReasonPath       Reason = "path"            // clients and servers read it in several ways
	ReasonSealed     Reason = "sealed"          // a key of ours whose secret we cannot open
	ReasonUnsigned   Reason = "unsigned_header" // a header that had to be signed was not
)

// A Refusal is the error of a proof that does not hold, with the reason for the audit
// record. As text, and as the *waybill.Error it wraps, every refusal is the same.
type Refusal struct {
	Reason Reason
	// What is known for sure about the proof, if anything.
	Subject, Issuer, KeyID string
}

// Error is the same text for every refusal.
func (*Refusal) Error() string { return refused().Error() }

// Unwrap is what the caller is told.
func (*Refusal) Unwrap() error { return refused() }

func refuse(reason Reason) error { return &Refusal{Reason: reason} }

// keyIssuer vouches for the subjects of gateway keys.
const keyIssuer = "gateway-key"

// A KeyStore finds a gateway key by its id. It is asked at every call, so it answers
// from memory. It answers nil where there is none.
type KeyStore interface {
	Lookup(id string) (*Key, error)
}

// Lookup finds a key by its id.
func (k *Keys) Lookup(id string) (*Key, error) { return k.fresh().byID[id], nil }

// A Method is one way of proving who calls.
type Method struct {
	Name         string
	Claims       func(*http.Request) bool
	Authenticate func(*http.Request) (waybill.Principal, error)
	Headers      []string
}
