package stamp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"github.com/waybill-dev/waybill"
)

// sessionLife is the longest that a process under a role of its own can get.
const sessionLife = time.Hour

// Credentials are those of a role session that is named and tagged by the policy for
// this process: what AWS bills the calls by. The session is made on first use and kept
// for an hour. Where the policy refuses the session, the error lists what is missing or
// bad.
//
// The role's trust policy must allow sts:AssumeRole and sts:TagSession to whoever client
// signs as. An option can set the external id or a longer duration; the name and the
// tags stay the policy's.
func (s *Stamper) Credentials(client stscreds.AssumeRoleAPIClient, roleARN string, optFns ...func(*stscreds.AssumeRoleOptions)) (*aws.CredentialsCache, error) {
	want, err := s.rules.session(s.caller, s.tags)
	if err != nil {
		return nil, err
	}
	provider := func(tags []types.Tag) *stscreds.AssumeRoleProvider {
		return stscreds.NewAssumeRoleProvider(client, roleARN, func(o *stscreds.AssumeRoleOptions) {
			o.Duration = sessionLife
			for _, fn := range optFns {
				fn(o)
			}
			o.RoleSessionName, o.Tags = want.name, tags
			o.TransitiveTagKeys = slices.DeleteFunc(slices.Clone(o.TransitiveTagKeys), func(key string) bool {
				return !slices.ContainsFunc(tags, func(t types.Tag) bool { return *t.Key == key })
			})
		})
	}
	p := &sessionProvider{roleARN: roleARN, full: provider(sessionTags(want.tags, nil))}
	if len(want.drop) > 0 {
		p.short = provider(sessionTags(want.tags, want.drop))
	}
	return aws.NewCredentialsCache(p, func(o *aws.CredentialsCacheOptions) {
		o.ExpiryWindow = time.Minute // a call and its retries end in the session they began in
	}), nil
}

func sessionTags(tags waybill.Tags, without []string) []types.Tag {
	var out []types.Tag
	for key, value := range tags.All() {
		if !slices.Contains(without, key) {
			out = append(out, types.Tag{Key: aws.String(key), Value: aws.String(value)})
		}
	}
	return out
}

// sessionProvider assumes the role. Its cache calls it from one goroutine at a time.
type sessionProvider struct {
	roleARN string
	full    *stscreds.AssumeRoleProvider
	short   *stscreds.AssumeRoleProvider // without optional tags; nil where there are none
}

// Retrieve makes a session. STS packs tags into a space of its own, which cannot be
// reckoned beforehand; where they do not fit, the optional ones are given up.
func (p *sessionProvider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := p.full.Retrieve(ctx)
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorCode() == "PackedPolicyTooLarge" && p.short != nil {
		c, err = p.short.Retrieve(ctx)
	}
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("stamp: assume %s with the policy's tags: %w", p.roleARN, err)
	}
	return c, nil
}
