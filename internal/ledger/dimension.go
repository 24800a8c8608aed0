package ledger

import (
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// A Dimension is something other than a tag that a report can group by.
type Dimension struct {
	Name string
	Doc  string
}

// Dimensions lists them, in the order in which help shows them. Any other name given
// to a report is a tag key; "tag:NAME" is the tag key NAME even if a dimension has the
// same name.
var Dimensions = []Dimension{
	{"principal", "who called: the gateway's caller, or the IAM principal where only AWS knows it"},
	{"iam_principal", "the IAM principal as AWS bills it"},
	{"session", "the role session's name"},
	{"model", "the foundation model"},
	{"model_id", "the model as called: id, profile or ARN"},
	{"day", "UTC day"},
	{"hour", "UTC hour"},
	{"account", "the account that used it"},
	{"region", "the Region that was called"},
	{"endpoint", "bedrock-runtime or bedrock-mantle"},
	{"profile", "application inference profile"},
	{"project", "project or workspace"},
	{"tier", "service tier"},
	{"scope", "plain, geo or global"},
	{"usage_type", "usage kind: input, output, cache_read, ..."},
	{"outcome", "how the call ended"},
	{"source", "who told of the call: gateway, log or both"},
}

func isDimension(name string) bool {
	return slices.ContainsFunc(Dimensions, func(d Dimension) bool { return d.Name == name })
}

func known(text string) Value { return Value{text, text != ""} }

// cellKeys are the values of a share's keys.
func (a *account) cellKeys(by []string, h share) []Value {
	c := &a.cells[h.cell]
	out := make([]Value, len(by))
	for i, name := range by {
		out[i] = a.cellKey(c, h, name)
	}
	return out
}

func (a *account) cellKey(c *waybill.UsageTotal, h share, name string) Value {
	if isDimension(name) {
		switch name {
		case "principal":
			return known(firstOf(c.Principal, c.PrincipalARN))
		case "iam_principal":
			return known(c.PrincipalARN)
		case "session":
			return known(c.SessionName)
		case "model":
			return known(c.Model)
		case "model_id":
			return known(string(c.ModelID))
		case "day":
			return known(h.day.String())
		case "hour":
			return known(c.Hour.String())
		case "account":
			return known(c.Account)
		case "region":
			return known(c.Region)
		case "endpoint":
			return known(string(c.Endpoint))
		case "profile":
			return known(c.Profile)
		case "project":
			return known(c.Project)
		case "tier":
			return known(firstOf(c.Tier, waybill.TierStandard))
		case "scope":
			return known(string(c.Scope))
		case "usage_type":
			return known(string(h.kind))
		case "outcome":
			return known(string(c.Outcome))
		case "source":
			return known(c.Sources)
		}
	}
	key := strings.TrimPrefix(name, "tag:")
	text, ok := a.tags[c.TagSet].Get(key)
	return a.renamed(key, Value{text, ok}, h.day)
}

// renamed is the value of a tag key under which it is reported.
func (a *account) renamed(key string, v Value, day waybill.Day) Value {
	if v.Present && a.rename != nil {
		v.Text = a.rename(key, v.Text, day)
	}
	return v
}

// chargeKeys are the values of a charge's keys: what the bill itself says.
func (a *account) chargeKeys(by []string, c charge) []Value {
	out := make([]Value, len(by))
	for i, name := range by {
		out[i] = a.chargeKey(c, name)
	}
	return out
}

func (a *account) chargeKey(c charge, name string) Value {
	if isDimension(name) {
		switch name {
		case "principal", "iam_principal":
			return known(c.IAMPrincipal)
		case "session":
			if _, session, ok := strings.Cut(c.IAMPrincipal, ":assumed-role/"); ok {
				_, session, _ = strings.Cut(session, "/")
				return known(session)
			}
		case "model":
			return known(c.key.Model)
		case "day":
			if c.hasDay() {
				return known(c.Day.String())
			}
		case "account":
			return known(c.UsageAccount)
		case "region":
			return known(c.key.Region)
		case "endpoint":
			if c.bucket == "" && c.usage.Dialect != ratecard.Marketplace { // which tells of neither
				return known(string(c.key.Endpoint))
			}
		case "profile":
			if strings.Contains(c.ResourceID, "inference-profile/") {
				return known(c.ResourceID)
			}
		case "project":
			if strings.Contains(c.ResourceID, ":project/") || strings.Contains(c.ResourceID, ":workspace/") {
				return known(c.ResourceID)
			}
		case "tier":
			return known(c.key.Tier)
		case "scope":
			return known(string(c.usage.Scope))
		case "usage_type":
			return known(string(c.key.Kind))
		}
		return Value{}
	}
	key := strings.TrimPrefix(name, "tag:")
	day := c.Day
	if !c.hasDay() {
		day = waybill.DayOf(a.period.Start())
	}
	return a.renamed(key, billTag(a.chargeTags[c.TagSet], key), day)
}

// billTag finds a tag key in the bill's tags map, whose keys carry their kind before
// them. The principal's tag goes before the resource's: it is nearer to the caller.
func billTag(tags waybill.Tags, key string) Value {
	for _, prefix := range []string{"iamPrincipal/", "resourceTags/user:", "resourceTags/", "accountTag/", "costCategory/", ""} {
		if text, ok := tags.Get(prefix + key); ok {
			return Value{text, true}
		}
	}
	return Value{}
}
