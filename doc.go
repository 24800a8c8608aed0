// Package waybill holds the nouns that every part of Waybill speaks in: tags and
// the principal they belong to, a call to a model and what it used, a line item
// of the bill, and exact money.
//
// It imports the standard library only, does no I/O and declares no interface.
// Words are AWS's own wherever AWS has one; docs/glossary.md lists them.
package waybill
