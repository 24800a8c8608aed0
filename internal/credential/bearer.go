package credential

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// A bearerKey is a short-term Bedrock API key: a presigned request that whoever holds it
// may make, in one Region. It acts for the session that signed it, so that the principal
// and its session name are the session's (user guide, "api-keys"). None is changed after.
type bearerKey struct {
	region string
	header []string // of Authorization
	until  time.Time
	next   *bearerKey
}

const (
	// keyLife is the longest that AWS takes (user guide, "api-keys-generate"); a key ends
	// with its session in any case.
	keyLife = 12 * time.Hour
	// keyMargin is how long before its end a key is replaced.
	keyMargin = time.Hour
	// emptyHash is the SHA-256 of nothing.
	emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// bearer puts a short-term key on a request, in the place of a signature. The first call
// of a session in a Region makes the key; the others share it.
func (k *signingKeys) bearer(ctx context.Context, r *http.Request, region string, now time.Time) error {
	first := k.bearers.Load()
	var key *bearerKey
	for b := first; b != nil; b = b.next {
		if b.region == region && now.Before(b.until) {
			key = b
			break
		}
	}
	if key == nil {
		text, err := shortTermKey(ctx, k.Credentials, region, now)
		if err != nil {
			return unavailable("the gateway cannot make a key", err)
		}
		key = &bearerKey{region: region, header: []string{"Bearer " + text}, until: now.Add(keyLife - keyMargin)}
		n := 1
		for b := first; b != nil && n < keptKeys; b = b.next {
			if b.region != region && now.Before(b.until) {
				key.next = &bearerKey{b.region, b.header, b.until, key.next}
				n++
			}
		}
		k.bearers.Store(key) // one that another call has put meanwhile is made again
	}
	if r.Header == nil {
		r.Header = make(http.Header, 1)
	}
	r.Header["Authorization"] = key.header[:1:1]
	delete(r.Header, "X-Amz-Date")
	delete(r.Header, "X-Amz-Security-Token")
	return nil
}

// shortTermKey is the key as AWS's token generators make it: the presigned POST of
// CallWithBearerToken without its scheme, with a version, in base64.
func shortTermKey(ctx context.Context, c aws.Credentials, region string, now time.Time) (string, error) {
	q := url.Values{"Action": {"CallWithBearerToken"}, "X-Amz-Expires": {strconv.Itoa(int(keyLife / time.Second))}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://bedrock.amazonaws.com/?"+q.Encode(), nil)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, c, r, emptyHash, "bedrock", region, now)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	return "bedrock-api-key-" + base64.StdEncoding.EncodeToString([]byte(strings.TrimPrefix(signed, "https://")+"&Version=1")), nil
}
