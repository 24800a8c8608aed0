// Package identity says who is calling: it turns the proof that came with a request
// into a waybill.Principal, which never holds the proof itself. When unsure it
// refuses, in one shape, whatever was wrong.
package identity
