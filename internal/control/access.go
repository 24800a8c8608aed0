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

	mu       sync.Mutex // guards accounts
	accounts map[string]aws.CredentialsProvider
}

// NewAccess makes an Access that can only read.
func NewAccess(base aws.Config, d *Declaration) *Access {
	a := &Access{base: base, roles: make(map[string]string), accounts: make(map[string]aws.CredentialsProvider), Mantle: "https://bedrock-mantle.{region}.api.aws"}
	for _, account := range d.Accounts {
		a.roles[account.ID] = account.Role
	}
	return a
}

// ForChanges is the same Access, and may change things.
func (a *Access) ForChanges() *Access {
	b := &Access{base: a.base, roles: a.roles, writable: true, Mantle: a.Mantle, PathStyle: a.PathStyle, accounts: make(map[string]aws.CredentialsProvider)}
	return b
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

// config is the configuration for an account and a Region.
func (a *Access) config(account, region string) aws.Config {
	c := a.base.Copy()
	c.Region = region
	if role := a.roles[account]; role != "" {
		a.mu.Lock()
		if a.accounts[account] == nil {
			a.accounts[account] = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(a.base), role, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "waybill-control" }))
		}
		c.Credentials = a.accounts[account]
		a.mu.Unlock()
	}
	if !a.writable {
		c.APIOptions = append(c.APIOptions, readOnly)
	}
	return c
}

// clients ask one account in one Region.
type clients struct {
	config  aws.Config
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

func (a *Access) at(account, region string) *clients {
	c := a.config(account, region)
	global := c.Copy()
	if partition(region) == "aws" {
		global.Region = "us-east-1"
	}
	return &clients{config: c,
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
