package stamp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/smithy-go/middleware"

	"github.com/waybill-dev/waybill"
)

// Config says which tags a process puts on its calls.
type Config struct {
	// PolicyFile is the tag policy, the same file that a gateway reads. It is read once,
	// by New, with the files that it imports.
	PolicyFile string
	// Policy is the text of the tag policy, as of an embedded file. PolicyFile then only
	// names it in messages, and it can import nothing.
	Policy []byte
	// HashKey is the secret of `transform: hmac`, 16 bytes or more. Where gateways serve
	// the same policy it is theirs, so that one user has one pseudonym.
	HashKey []byte
	// HashKeysFile is the gateway's hashKeys: secrets that are rotated. It is read once, by
	// New: a program that runs over the day of a rotation changes with it, one that was
	// started before the new epoch was written does not know it.
	HashKeysFile string
	// Caller is the process: what the policy takes `from: caller.*` and `from: claims.*`
	// of. The process vouches for it; nothing proves it. Its Tags cannot be overridden by
	// a call, and its Models and Environments are kept to.
	Caller waybill.Principal
	// CallerOf says on whose behalf a call is made, from the context that the call was
	// given; false means the process itself. It is asked once a call, by many goroutines.
	// The role session of Credentials stays the process's own.
	CallerOf func(context.Context) (waybill.Principal, bool)
	// Tags are the application's: what a call has that brings no other value.
	Tags waybill.Tags
	// OnViolation is told of each call that does not comply, whether the policy's mode
	// refuses it or lets it pass: once a call, before it leaves, on its goroutine. The
	// operation is middleware.GetOperationName of the context.
	OnViolation func(context.Context, []Violation)
}

// A Violation is one way in which a call does not comply with the policy. Its texts
// never hold a value that was sent.
type Violation struct {
	Key     string // the tag key, where there is one
	Code    string // missing, not_allowed, forged, ...: the codes of the gateway's records
	Message string
	Remedy  string
	Mode    string // enforce: the call is refused; warn, observe: it passes
}

// A Stamper puts the tags of a tag policy on every call of a client.
type Stamper struct {
	rules       rules
	caller      waybill.Principal
	callerOf    func(context.Context) (waybill.Principal, bool)
	tags        waybill.Tags
	onViolation func(context.Context, []Violation)
}

// New reads the policy. Its error lists every mistake in it, with line and column.
func New(c Config) (*Stamper, error) {
	name, src := c.PolicyFile, c.Policy
	var open func(string) ([]byte, error)
	switch {
	case src == nil && name == "":
		return nil, errors.New("stamp: there is no tag policy: set Config.PolicyFile or Config.Policy")
	case src == nil:
		var err error
		if src, err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("stamp: read tag policy: %w", err)
		}
		open = os.ReadFile
	case name == "":
		name = "policy"
	}
	var epochs []byte
	if c.HashKeysFile != "" {
		var err error
		if epochs, err = os.ReadFile(c.HashKeysFile); err != nil {
			return nil, fmt.Errorf("stamp: read the secrets of hashing: %w", err)
		}
	}
	r, err := readRules(name, src, c.HashKey, c.HashKeysFile, epochs, open)
	if err != nil {
		return nil, fmt.Errorf("stamp: read tag policy:\n%w", err)
	}
	return &Stamper{rules: r, caller: c.Caller, callerOf: c.CallerOf, tags: c.Tags, onViolation: c.OnViolation}, nil
}

// Options makes a client stamp its calls; it is handed to the client's constructor:
//
//	client := bedrockruntime.NewFromConfig(cfg, stamper.Options)
//
// A call that the policy refuses returns an error in which errors.As finds a
// *waybill.Error; it lists every tag that is missing or bad, with what is allowed. What
// the caller hands to the client is never changed. One client takes one Stamper.
func (s *Stamper) Options(o *bedrockruntime.Options) {
	o.APIOptions = append(o.APIOptions, s.addTo)
}

type tagsKey struct{}

// WithTags gives tags to the calls that are made with the context. They go before the
// request metadata of the call itself and before Config.Tags, and where contexts are
// nested the inner tags go first. What the policy takes from the caller's identity they
// cannot change.
func WithTags(ctx context.Context, tags ...waybill.Tag) context.Context {
	var all []waybill.Tag
	for key, value := range waybill.NewTags(tags...).All() {
		all = append(all, waybill.Tag{Key: key, Value: value})
	}
	return context.WithValue(ctx, tagsKey{}, append(all, tagsOf(ctx)...))
}

func tagsOf(ctx context.Context) []waybill.Tag {
	tags, _ := ctx.Value(tagsKey{}).([]waybill.Tag)
	return tags
}

// decide holds a call against the policy, once: further attempts get the same answer.
// own are the tags that came with the call itself.
func (s *Stamper) decide(ctx context.Context, c *call, own ...source) (waybill.Tags, error) {
	if c.decided {
		return c.tags, c.err
	}
	c.decided = true
	caller := s.caller
	if s.callerOf != nil {
		if p, ok := s.callerOf(ctx); ok {
			caller = p
		}
	}
	sources := slices.Concat([]source{{"stamp.WithTags", slices.Values(tagsOf(ctx))}}, own, []source{{"stamp.Config.Tags", listed(s.tags)}})
	v := s.rules.judge(c, caller, sources)
	if len(v.violations) > 0 && s.onViolation != nil {
		s.onViolation(ctx, v.violations)
	}
	if v.refusal != nil {
		c.err = v.refusal
		return waybill.Tags{}, c.err
	}
	c.tags = v.tags
	return c.tags, nil
}

// addTo puts the steps into the stack of one operation.
func (s *Stamper) addTo(stack *middleware.Stack) error {
	if there, ok := stack.Serialize.Get(inputStep{}.ID()); ok {
		if there == (inputStep{s}) {
			return nil // handed over twice: to the client, and to the call
		}
		return errors.New("stamp: the client has a Stamper already: a call cannot follow two policies")
	}
	// As late as can be: what others add to the call is seen and held to the policy too.
	err := errors.Join(
		stack.Serialize.Insert(inputStep{s}, "OperationSerializer", middleware.Before),
		stack.Finalize.Insert(headerStep{s}, "Signing", middleware.Before))
	if stack.ID() == bidirectional {
		err = errors.Join(err, stack.Deserialize.Add(streamStep{s}, middleware.After))
	}
	if err != nil {
		return fmt.Errorf("stamp: the client's steps are not those of the SDK: %w", err)
	}
	return nil
}
