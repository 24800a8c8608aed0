// Package credential holds the power to assume roles: it gets role sessions from STS
// with the tags and the name they are to be billed by, keeps each until near its end,
// and signs requests with them. Callers of it see neither keys nor STS.
package credential
