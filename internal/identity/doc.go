// Package identity says who is calling: it turns the proof that came with a request
// into a waybill.Principal, which never holds the proof itself. When unsure it
// refuses, in one shape, whatever was wrong; what was wrong is in the audit record.
//
// A Chain asks the Methods in order: OIDC tokens, gateway keys, requests signed with a
// signing key, AWS identities, client certificates. One caller may have several proofs:
// a Caller says which of them mean the same. What is revoked stands in a DenyList, a
// file that is read again when it changes.
package identity
