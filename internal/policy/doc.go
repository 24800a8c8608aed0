// Package policy is the tag policy: which tag keys exist, where their values come
// from, which values they take, which of AWS's carriers they ride on, and what
// happens to a call that does not comply.
//
// It is pure: a decision depends on the policy and the request, and on nothing else
// (with a Guard, also on the values that were seen before). Whatever a request holds,
// what leaves Decide is within AWS's limits for its carrier. A policy that could exceed
// a limit is refused when it is parsed.
//
// A policy is written as a File, whose fields are the reference of the language.
package policy
