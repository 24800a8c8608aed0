// Package credential holds the power to assume roles: it gets role sessions from STS
// with the tags and the name they are to be billed by, keeps each until near its end,
// and signs requests with them. Callers of it see neither keys nor STS.
//
// Files: session.go is the cache, turns.go decides who may ask STS and when, assume.go
// asks, explain.go says what STS meant, signer.go, sigv4.go and bearer.go sign, broker.go hands
// sessions to people who call AWS themselves.
package credential
