// Package fakeaws is an AWS small enough for a test: STS, bedrock-runtime,
// bedrock-mantle and S3 on loopback listeners, and the records AWS keeps of
// what they served, the model invocation log and the CUR 2.0 export.
//
// Its models answer a body with the same bytes each time, so that a call can
// be compared with the same call through something else.
//
// It is a second opinion. It imports none of Waybill's packages and shares no
// parser, encoder, limit or price with them, so that a mistake of ours cannot
// agree with itself. It refuses what AWS refuses, in AWS's shapes. Only tests
// and internal/demo import it; internal/archtest says so.
package fakeaws
