package credential

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/waybill-dev/waybill"
)

// A Signer signs requests to AWS under role sessions. It may be used from many
// goroutines.
type Signer struct {
	sessions *Sessions
	base     aws.CredentialsProvider
	own      atomic.Pointer[signingKeys] // the base credentials, as they were last
	now      func() time.Time
	keys     bool // short-term keys are sent, not signatures
}

// UseKeys makes the signer send a short-term Bedrock API key of the session, which is made
// once, in the place of a signature of each call. The role needs
// bedrock:CallWithBearerToken, and bedrock-mantle:CallWithBearerToken. It is called before
// the first call.
func (s *Signer) UseKeys() { s.keys = true }

// NewSigner makes a signer that takes its sessions from a cache, and signs under the
// base credentials where no role is named.
func NewSigner(sessions *Sessions, base aws.CredentialsProvider) *Signer {
	return &Signer{sessions: sessions, base: base, now: time.Now}
}

// Sign is SignCall for those who need the principal alone.
func (s *Signer) Sign(ctx context.Context, r *http.Request, body []byte, service, region string, session waybill.RoleSession) (principalARN string, err error) {
	signed, err := s.SignCall(ctx, r, body, service, region, session)
	return signed.PrincipalARN, err
}

// SignCall signs a request whose body is body, for a service and Region, under a role
// session, and says which principal AWS will see and which tags it will not. It must be
// the last change made to the request. Errors are *waybill.Error, without role ARNs.
//
// What is signed: host, content-type, content-length if there is one,
// anthropic-version and every x-amz header. Nothing that an intermediary changes is
// among them.
func (s *Signer) SignCall(ctx context.Context, r *http.Request, body []byte, service, region string, session waybill.RoleSession) (waybill.Signed, error) {
	var signed waybill.Signed
	var keys *signingKeys
	if session.RoleARN == "" {
		var err error
		if keys, err = s.baseKeys(ctx); err != nil {
			return signed, err
		}
	} else {
		held, err := s.sessions.Get(ctx, session)
		if err != nil {
			return signed, err
		}
		keys, signed.PrincipalARN, signed.Dropped = &held.keys, held.PrincipalARN, held.Dropped
	}
	if s.keys {
		return signed, keys.bearer(ctx, r, region, s.now())
	}
	keys.sign(r, sha256.Sum256(body), service, region, s.now())
	return signed, nil
}

// baseKeys are the base credentials, with what was derived from them while they are
// the same.
func (s *Signer) baseKeys(ctx context.Context) (*signingKeys, error) {
	if s.base == nil {
		return nil, unavailable("the gateway has no AWS credentials", errors.New("no base credentials are configured"))
	}
	c, err := s.base.Retrieve(ctx)
	if err != nil {
		return nil, unavailable("the gateway has no AWS credentials", err)
	}
	if k := s.own.Load(); k != nil && k.AccessKeyID == c.AccessKeyID && k.SecretAccessKey == c.SecretAccessKey && k.SessionToken == c.SessionToken {
		return k, nil
	}
	k := &signingKeys{Credentials: c}
	s.own.Store(k)
	return k, nil
}

// Forget drops a session that AWS has refused, so that the next call gets a new one. A
// session that was made only just now stays: another would be refused as well.
func (s *Signer) Forget(session waybill.RoleSession) {
	if s.sessions != nil {
		s.sessions.forget(session)
	}
}
