package control

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/bcmdataexports"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/costexplorer"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
)

// An Access reaches the accounts of a declaration, each by the role declared for it. It
// cannot change anything: a call that would is refused before it leaves, unless the
// Access was made by ForChanges.
type Access struct {
	base     aws.Config
	roles    map[string]string
	writable bool
	// Mantle is the endpoint of bedrock-mantle; {region} stands for the Region.
	Mantle string
	// PathStyle asks for buckets by path, as stand-ins for S3 want it.
	PathStyle bool

	mu       sync.Mutex // guards all below
	accounts map[string]*account
	clients  map[[2]string]*clients
}

// An account is the credentials for an account, and whose they turned out to be.
type account struct {
	credentials aws.CredentialsProvider

	mu     sync.Mutex // guards caller
	caller string     // ARN; empty until AWS has said it
}

// NewAccess makes an Access that can only read.
func NewAccess(base aws.Config, d *Declaration) *Access {
	a := &Access{base: base, roles: make(map[string]string), accounts: make(map[string]*account), clients: make(map[[2]string]*clients), Mantle: "https://bedrock-mantle.{region}.api.aws"}
	for _, account := range d.Accounts {
		a.roles[account.ID] = account.Role
	}
	return a
}

// ForChanges is the same Access, and may change things.
func (a *Access) ForChanges() *Access {
	return &Access{base: a.base, roles: a.roles, writable: true, Mantle: a.Mantle, PathStyle: a.PathStyle, accounts: make(map[string]*account), clients: make(map[[2]string]*clients)}
}

// reads says whether an operation changes nothing, by its name: AWS keeps to these verbs.
func reads(operation string) bool {
	for _, verb := range []string{"Get", "List", "Describe", "Lookup", "Head"} {
		if strings.HasPrefix(operation, verb) {
			return true
		}
	}
	return false
}

// readOnly refuses whatever would change something.
func readOnly(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("waybill:ReadOnly", func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
		if op := awsmiddleware.GetOperationName(ctx); !reads(op) {
			return middleware.BuildOutput{}, middleware.Metadata{}, fmt.Errorf("%s would change the account, and nothing is changed without --apply", op)
		}
		return next.HandleBuild(ctx, in)
	}), middleware.After)
}

// account is the credentials for an account: of the role declared for it, or those at hand.
// The caller holds the lock.
func (a *Access) account(id string) *account {
	if a.accounts[id] == nil {
		c := a.base.Credentials
		if role := a.roles[id]; role != "" {
			c = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(a.base), role, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "waybill-control" }))
		}
		a.accounts[id] = &account{credentials: c}
	}
	return a.accounts[id]
}

// confirm says who asks, and that the credentials are of the account that is meant. Nothing
// else is asked, or changed, before: credentials of another account would answer for it.
func (c *clients) confirm(ctx context.Context) (string, error) {
	c.who.mu.Lock()
	defer c.who.mu.Unlock()
	if c.who.caller != "" {
		return c.who.caller, nil
	}
	out, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	if got := aws.ToString(out.Account); got != c.account {
		return "", fmt.Errorf("the credentials are of account %s, not %s: declare a role for the account", got, c.account)
	}
	c.who.caller = aws.ToString(out.Arn)
	return c.who.caller, nil
}

// clients ask one account in one Region.
type clients struct {
	account string
	who     *account
	bedrock *bedrock.Client
	s3      *s3.Client
	logs    *cloudwatchlogs.Client
	watch   *cloudwatch.Client
	trail   *cloudtrail.Client
	quotas  *servicequotas.Client
	sts     *sts.Client
	// Of the whole account, and asked in us-east-1 whatever the Region.
	iam     *iam.Client
	costs   *costexplorer.Client
	exports *bcmdataexports.Client
	mantle  *mantle
}

// at gives the clients for an account and a Region, always the same.
func (a *Access) at(account, region string) *clients {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{account, region}
	if a.clients[key] == nil {
		a.clients[key] = a.open(account, region)
	}
	return a.clients[key]
}

func (a *Access) open(account, region string) *clients {
	who := a.account(account)
	c := a.base.Copy()
	c.Region, c.Credentials = region, who.credentials
	if !a.writable {
		c.APIOptions = append(c.APIOptions, readOnly)
	}
	global := c.Copy()
	if partition(region) == "aws" {
		global.Region = "us-east-1"
	}
	return &clients{account: account, who: who,
		bedrock: bedrock.NewFromConfig(c),
		s3:      s3.NewFromConfig(c, func(o *s3.Options) { o.UsePathStyle = a.PathStyle }),
		logs:    cloudwatchlogs.NewFromConfig(c),
		watch:   cloudwatch.NewFromConfig(c),
		trail:   cloudtrail.NewFromConfig(c),
		quotas:  servicequotas.NewFromConfig(c),
		sts:     sts.NewFromConfig(c),
		iam:     iam.NewFromConfig(global),
		costs:   costexplorer.NewFromConfig(global),
		exports: bcmdataexports.NewFromConfig(global),
		mantle:  &mantle{endpoint: strings.ReplaceAll(a.Mantle, "{region}", region), region: region, config: c, writable: a.writable},
	}
}
