package credential

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/waybill-dev/waybill"
)

// A Signer signs requests to AWS under role sessions. It may be used from many
// goroutines.
type Signer struct {
	sessions *Sessions
	base     aws.CredentialsProvider
	v4       *v4.Signer
	now      func() time.Time
}

// NewSigner makes a signer that takes its sessions from a cache, and signs under the
// base credentials where no role is named.
func NewSigner(sessions *Sessions, base aws.CredentialsProvider) *Signer {
	return &Signer{sessions: sessions, base: base, v4: v4.NewSigner(), now: time.Now}
}

// signed are the headers besides x-amz ones that go into a signature. Nothing that an
// intermediary changes is among them. The SDK's signer signs every header it is
// shown, so it is shown only these.
var signed = map[string]bool{"Content-Type": true, "Host": true, "Anthropic-Version": true}

// Sign signs a request whose body is body, for a service and Region, under a role
// session, and says which principal AWS will see. It must be the last change made to
// the request. Errors are *waybill.Error of kind Unavailable, without role ARNs.
func (s *Signer) Sign(ctx context.Context, r *http.Request, body []byte, service, region string, session waybill.RoleSession) (principalARN string, err error) {
	var creds aws.Credentials
	if session.RoleARN == "" {
		creds, err = s.base.Retrieve(ctx)
		if err != nil {
			return "", unavailable("the gateway has no AWS credentials", err)
		}
	} else {
		held, err := s.sessions.Get(ctx, session)
		if err != nil {
			return "", err
		}
		creds, principalARN = held.credentials, held.arn
	}
	sum := sha256.Sum256(body)
	all := r.Header
	shown := make(http.Header, 8)
	for name, values := range all {
		if lower := strings.ToLower(name); signed[name] || strings.HasPrefix(lower, "x-amz") {
			shown[name] = values
		}
	}
	r.Header = shown
	err = s.v4.SignHTTP(ctx, creds, r, hex.EncodeToString(sum[:]), service, region, s.now())
	r.Header = all
	if err != nil {
		return "", fmt.Errorf("sign request: %w", err)
	}
	for name, values := range shown {
		all[name] = values
	}
	return principalARN, nil
}

// Forget drops a session that AWS has refused, so that the next call gets a new one.
func (s *Signer) Forget(session waybill.RoleSession) {
	if s.sessions != nil {
		s.sessions.forget(session)
	}
}

func unavailable(message string, err error) error {
	return &waybill.Error{Kind: waybill.Unavailable, Code: "WB1401", Message: message, Hint: "try again; the gateway's operator sees why", Err: err}
}
