package control

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A Declaration says what an organisation wants of its AWS accounts: which there are,
// where logs and bill go, which roles the gateway assumes, and which applications there
// are. docs/control/setup.md is its reference.
type Declaration struct {
	Payer    string // the account that pays: Cost Explorer and Data Exports are asked there
	Accounts []DeclaredAccount
	Logging  DeclaredLogging
	Export   DeclaredExport
	Gateway  DeclaredGateway
	Tags     DeclaredTags
	// APIKeys are the IAM users whose Bedrock API keys may stay.
	APIKeys      []string
	Applications []Application
	// Coverage is, for a tag key, the percentage of dollars that must carry it.
	Coverage map[string]int
}

// A DeclaredAccount is an account and how it is reached.
type DeclaredAccount struct {
	ID      string
	Role    string // to assume for asking and setting up; empty: the credentials at hand
	Regions []string
}

// DeclaredLogging is where invocation logs go.
type DeclaredLogging struct {
	Bucket    string // {account} and {region} stand for themselves
	Prefix    string
	Retention int    // days that log objects are kept; 0: not declared
	Bodies    string // "deliver", "withhold", or empty: as it is
}

// DeclaredExport is the CUR 2.0 export.
type DeclaredExport struct {
	Name, Bucket, Prefix, Region string
	// Update lets an export that lacks something be updated in place. AWS's guide says that
	// an export made earlier has to be replaced to get principal data, so a second is made
	// unless this is set.
	Update bool
}

// DeclaredGateway is who the gateway is, and which roles it assumes.
type DeclaredGateway struct {
	Principals []string // ARNs that may assume the roles
	Others     []string // ARNs of principals that may assume them as well: break-glass, sign-in
	Roles      []DeclaredRole
	Session    int  // seconds that the gateway asks sessions for
	Chained    bool // the gateway's own credentials are a role session: ECS, EKS, EC2, Lambda
}

// A DeclaredRole is a role that the gateway assumes for its callers.
type DeclaredRole struct {
	ARN  string
	Tags map[string]string
}

// DeclaredTags are the cost allocation tags.
type DeclaredTags struct {
	Activate []string // besides those that the policy puts on sessions, roles and resources
	Backfill string   // month from which tags are to be filled in, such as 2026-10; empty: none
}

// An Application is declared once, and gets its inference profiles, its project and the
// gateway's rules.
type Application struct {
	Name     string
	Accounts []string // none: every account
	Regions  []string // none: every Region of the account
	Models   []string // as callers name them: model ids, or ids of system profiles
	Project  bool     // a project of bedrock-mantle, which is its workspace too
	Tags     map[string]string
}

var (
	twelveDigits  = regexp.MustCompile(`^[0-9]{12}$`)
	regionName    = regexp.MustCompile(`^[a-z]{2,5}(-[a-z]+)+-[0-9]$`)
	arnForm       = regexp.MustCompile(`^arn:[a-z-]+:(iam|sts)::[0-9]{12}:.+$`)
	roleARN       = regexp.MustCompile(`^arn:[a-z-]+:iam::[0-9]{12}:role/.+$`)
	exportedName  = regexp.MustCompile(`^[0-9A-Za-z_-]{1,128}$`)
	tagCharacters = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+@-]*$`)
)

// ReadDeclaration reads a declaration strictly, and tells every mistake at once. p may be
// nil; if it is not, applications may only have tags that it declares.
func ReadDeclaration(file string, src []byte, p *policy.Policy) (*Declaration, error) {
	doc, err := policy.ReadYAML(file, src)
	if err != nil {
		return nil, err
	}
	d := &Declaration{Coverage: make(map[string]int)}
	root := doc.Root()
	root.Fields(map[string]func(policy.Node){
		"version":  func(n policy.Node) { n.OneOf("1") },
		"payer":    func(n policy.Node) { d.Payer = matching(n, twelveDigits, "an account id has twelve digits") },
		"accounts": func(n policy.Node) { d.readAccounts(n) },
		"logging":  func(n policy.Node) { d.readLogging(n) },
		"export":   func(n policy.Node) { d.readExport(n) },
		"gateway":  func(n policy.Node) { d.readGateway(n) },
		"tags":     func(n policy.Node) { d.readTags(n) },
		"apiKeys": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){"allow": func(n policy.Node) { d.APIKeys = n.Texts() }})
		},
		"applications": func(n policy.Node) { d.readApplications(n, p) },
		"coverage": func(n policy.Node) {
			n.Each(func(key string, _, v policy.Node) { d.Coverage[key] = whole(v, 1, 100) })
		},
	})
	if len(d.Accounts) == 0 {
		root.Mistake("name the accounts that call Bedrock: accounts: [{id: \"111122223333\", regions: [us-east-1]}]", "no account is declared")
	}
	if d.Payer == "" && len(d.Accounts) > 0 {
		d.Payer = d.Accounts[0].ID
	}
	if d.Logging.Bucket != "" && d.Logging.Bucket == d.Export.Bucket {
		root.Field("export").Mistake("give each its own bucket", "logs and bill go to one bucket, and each would rewrite the other's bucket policy")
	}
	return d, doc.Err()
}

func matching(n policy.Node, re *regexp.Regexp, hint string) string {
	s := n.Text()
	if s != "" && !re.MatchString(s) {
		n.Mistake(hint, "%q is not one", s)
	}
	return s
}

func whole(n policy.Node, least, most int) int {
	v, err := strconv.Atoi(n.Text())
	if err != nil || v < least || v > most {
		n.Mistake(fmt.Sprintf("write a whole number from %d to %d", least, most), "%q is none", n.Text())
		return least
	}
	return v
}

func tagsOf(n policy.Node) map[string]string {
	tags := make(map[string]string)
	n.Each(func(key string, k, v policy.Node) {
		value := v.Text()
		if len(key) > 128 || len(value) > 256 || !tagCharacters.MatchString(key) || !tagCharacters.MatchString(value) || strings.HasPrefix(strings.ToLower(key), "aws:") {
			k.Mistake("keys to 128, values to 256 characters: letters, digits, space and _ . : / = + - @", "AWS does not take this tag")
		}
		for other := range tags {
			if strings.EqualFold(other, key) {
				k.Mistake("IAM does not tell keys apart by case", "%q is there already, as %q", key, other)
			}
		}
		tags[key] = value
	})
	return tags
}

func (d *Declaration) readAccounts(n policy.Node) {
	for _, n := range n.List() {
		var a DeclaredAccount
		n.Fields(map[string]func(policy.Node){
			"id": func(n policy.Node) { a.ID = matching(n, twelveDigits, "an account id has twelve digits") },
			"role": func(n policy.Node) {
				a.Role = matching(n, roleARN, "such as arn:aws:iam::111122223333:role/waybill-setup")
			},
			"regions": func(n policy.Node) {
				for _, r := range n.List() {
					a.Regions = append(a.Regions, matching(r, regionName, "such as us-east-1"))
				}
			},
		})
		if a.ID == "" || len(a.Regions) == 0 {
			n.Mistake("write id and regions", "an account needs an id, and the Regions that call Bedrock")
		}
		if slices.ContainsFunc(d.Accounts, func(b DeclaredAccount) bool { return b.ID == a.ID }) {
			n.Mistake("join the two", "account %s is declared twice", a.ID)
		}
		slices.Sort(a.Regions)
		a.Regions = slices.Compact(a.Regions)
		d.Accounts = append(d.Accounts, a)
	}
}

func (d *Declaration) readLogging(n policy.Node) {
	n.Fields(map[string]func(policy.Node){
		"bucket":    func(n policy.Node) { d.Logging.Bucket = n.Text() },
		"prefix":    func(n policy.Node) { d.Logging.Prefix = strings.Trim(n.Text(), "/") },
		"retention": func(n policy.Node) { d.Logging.Retention = whole(n, 1, 36500) },
		"bodies":    func(n policy.Node) { d.Logging.Bodies = n.OneOf("deliver", "withhold") },
	})
	if d.Logging.Bucket == "" {
		n.Mistake("name a bucket: {account} and {region} in it stand for themselves", "logs need a bucket")
	}
	regions := 0
	for _, a := range d.Accounts {
		regions += len(a.Regions)
	}
	if regions > 1 && (!strings.Contains(d.Logging.Bucket, "{account}") && len(d.Accounts) > 1 || !strings.Contains(d.Logging.Bucket, "{region}")) {
		n.Field("bucket").Mistake("put {account} and {region} into its name", "AWS delivers logs only to a bucket of the same account and Region, and there are several")
	}
}

// Target is the name of the bucket for an account and a Region.
func (l *DeclaredLogging) Target(account, region string) string {
	return strings.NewReplacer("{account}", account, "{region}", region).Replace(l.Bucket)
}

func (d *Declaration) readExport(n policy.Node) {
	d.Export = DeclaredExport{Region: "us-east-1"}
	n.Fields(map[string]func(policy.Node){
		"name":   func(n policy.Node) { d.Export.Name = matching(n, exportedName, "letters, digits, - and _") },
		"bucket": func(n policy.Node) { d.Export.Bucket = n.Text() },
		"prefix": func(n policy.Node) { d.Export.Prefix = strings.Trim(n.Text(), "/") },
		"region": func(n policy.Node) { d.Export.Region = matching(n, regionName, "such as us-east-1") },
		"update": func(n policy.Node) { d.Export.Update = n.Bool() },
	})
	if d.Export.Name == "" || d.Export.Bucket == "" || d.Export.Prefix == "" {
		n.Mistake("write name, bucket and prefix", "an export needs all three")
	}
}

func (d *Declaration) readGateway(n policy.Node) {
	arns := func(to *[]string) func(policy.Node) {
		return func(n policy.Node) {
			for _, p := range n.List() {
				*to = append(*to, matching(p, arnForm, "such as arn:aws:iam::111122223333:role/waybill/gateway"))
			}
		}
	}
	g := &d.Gateway
	n.Fields(map[string]func(policy.Node){
		"principals": arns(&g.Principals),
		"others":     arns(&g.Others),
		"session":    func(n policy.Node) { g.Session = whole(n, 900, 43200) },
		"chained":    func(n policy.Node) { g.Chained = n.Bool() },
		"roles": func(n policy.Node) {
			for _, n := range n.List() {
				var r DeclaredRole
				n.Fields(map[string]func(policy.Node){
					"arn": func(n policy.Node) {
						r.ARN = matching(n, roleARN, "such as arn:aws:iam::111122223333:role/bedrock-prod")
					},
					"tags": func(n policy.Node) { r.Tags = tagsOf(n) },
				})
				if r.ARN == "" {
					n.Mistake("write arn", "a role needs its ARN")
				}
				g.Roles = append(g.Roles, r)
			}
		},
	})
	if len(g.Roles) > 0 && len(g.Principals) == 0 {
		n.Mistake("name them under principals", "the gateway's own principals are not declared, so nothing can be said of who may assume its roles")
	}
}

func (d *Declaration) readTags(n policy.Node) {
	n.Fields(map[string]func(policy.Node){
		"activate": func(n policy.Node) { d.Tags.Activate = n.Texts() },
		"backfill": func(n policy.Node) {
			d.Tags.Backfill = n.Text()
			if _, err := time.Parse("2006-01", d.Tags.Backfill); err != nil {
				n.Mistake("write a month, such as 2026-10", "%q is none", d.Tags.Backfill)
			}
		},
	})
}

func (d *Declaration) readApplications(n policy.Node, p *policy.Policy) {
	for _, n := range n.List() {
		a := Application{Tags: make(map[string]string)}
		n.Fields(map[string]func(policy.Node){
			"name":     func(n policy.Node) { a.Name = n.Text() },
			"accounts": func(n policy.Node) { a.Accounts = n.Texts() },
			"regions":  func(n policy.Node) { a.Regions = n.Texts() },
			"models":   func(n policy.Node) { a.Models = n.Texts() },
			"project":  func(n policy.Node) { a.Project = n.Bool() },
			"tags":     func(n policy.Node) { a.Tags = tagsOf(n) },
		})
		if a.Name == "" || !tagCharacters.MatchString(a.Name) {
			n.Mistake("write name", "an application needs a name of letters, digits and - _")
		}
		if len(a.Models) == 0 && !a.Project {
			n.Mistake("name its models, or ask for a project", "application %q gets nothing", a.Name)
		}
		for _, m := range a.Models {
			if strings.HasPrefix(m, "arn:") {
				n.Field("models").Mistake("write the id of a model or of a system profile", "%s is an ARN, which is of one account and Region", m)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(a.Tags)) {
			if p != nil && !p.Declares(k) {
				n.Field("tags").About(k).Mistake("declare it in the policy, or leave it out: one vocabulary for all", "no key %q is declared by the policy", k)
			}
		}
		if slices.ContainsFunc(d.Applications, func(b Application) bool { return b.Name == a.Name }) {
			n.Mistake("give it another name", "application %q is declared twice", a.Name)
		}
		d.Applications = append(d.Applications, a)
	}
}

// in says whether an application is in an account and a Region.
func (a *Application) in(account, region string) bool {
	return (len(a.Accounts) == 0 || slices.Contains(a.Accounts, account)) && (len(a.Regions) == 0 || slices.Contains(a.Regions, region))
}

// tags are those of the application, with its name as the tag "application" where the
// declaration gives it no other and the policy knows the key.
func (a *Application) tags(p *policy.Policy) map[string]string {
	tags := maps.Clone(a.Tags)
	if _, ok := tags["application"]; !ok && (p == nil || p.Declares("application")) {
		tags["application"] = a.Name
	}
	return tags
}

// partition is the partition of a Region.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "eusc-"):
		return "aws-eusc"
	}
	return "aws"
}

func roleName(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// A Score is the tag coverage of one audit: a line of the history file.
type Score struct {
	At       time.Time         `json:"at"`
	Currency string            `json:"currency,omitempty"`
	Total    waybill.Money     `json:"total"`
	Coverage map[string]string `json:"coverage"` // per cent of the dollars, by tag key
	Failed   int               `json:"failed"`
	Unknown  int               `json:"unknown"`
}
