// Package stamp puts the tags of a tag policy on the calls of the AWS SDK for Go, for
// programs that cannot send them through the gateway. It is middleware for a client of
// bedrock-runtime: it resolves the tags of each call under the same policy file as the
// gateway, stamps them where the operation takes them, before the call is signed, and
// stops a call that the policy refuses before it leaves the process.
//
//	stamper, err := stamp.New(stamp.Config{PolicyFile: "policy.yaml", Caller: waybill.Principal{Subject: "checkout"}})
//	client := bedrockruntime.NewFromConfig(cfg, stamper.Options)
//
// It meters nothing, and nobody proves who the caller is: the process vouches for
// itself. docs/stamp.md says when that is enough.
//
// There is no global state: a [Stamper] is immutable and may be shared by clients and
// goroutines.
package stamp
