// Package signin gets AWS credentials for a person: it signs them in with their OpenID
// Connect provider, by browser or by device code, exchanges the token for a role session
// with STS or with a gateway as broker, and keeps both until they end. It is what
// `waybill credentials` does, without the command line.
//
// Files: profile.go says what is configured, signin.go is the flow, provider.go speaks
// OpenID Connect, browser.go and device.go ask the person, tags.go reads the token's
// session tags, exchange.go gets the session, store.go keeps it.
package signin
