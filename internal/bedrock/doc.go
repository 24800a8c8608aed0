// Package bedrock knows Amazon Bedrock's wire format and nothing else: which path is
// which operation, where request metadata goes, how streams are framed, where each
// operation reports its usage, and what an error looks like to each kind of client.
// It opens no connection, reads no clock and keeps no state beyond one call.
package bedrock
