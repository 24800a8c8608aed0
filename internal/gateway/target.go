package gateway

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
	"github.com/waybill-dev/waybill/internal/policy"
)

// A Target says where calls go that meet a condition, while the caller keeps naming the
// plain model. What is empty stays as it is. What a call's path cannot carry is left out
// and recorded among its reasons: a target never fails a call.
type Target struct {
	When   policy.Condition
	Region string
	Role   string // ARN of one of Config.Roles, whose own condition does not count then
	// By names the tag whose value picks from Profiles and Projects. A value that
	// is not in them gets Profile and Project.
	By       string
	Profile  string            // application inference profile that takes the model's place
	Profiles map[string]string // by the value of By
	Project  string            // project or workspace on bedrock-mantle
	Projects map[string]string // by the value of By
}

// pick is the entry for the value of By, or else the one for all.
func (t *Target) pick(tags waybill.Tags, by map[string]string, all string) string {
	if len(by) > 0 {
		if value, ok := tags.Get(t.By); ok && by[value] != "" {
			return by[value]
		}
	}
	return all
}

// A Catalogue knows which model is behind an application inference profile. It answers
// at once with what it knows. What it does not know it may look up for later calls: a
// call never waits for it.
type Catalogue interface {
	Model(profileARN string) (waybill.ModelID, bool)
}

// Reasons that the gateway itself records, beside the policy's.
const (
	profileNotOnPath    = "gateway:profile_not_on_path"
	profileOtherModel   = "gateway:profile_of_other_model"
	profileOtherAccount = "gateway:profile_of_other_account"
	projectNotOnPath    = "gateway:project_not_on_path"
	profileUnknown      = "gateway:profile_unknown"
)

// note records that the gateway did something else than was meant.
func (c *call) note(reason string) {
	if !slices.Contains(c.record.Reasons, reason) {
		c.record.Reasons = append(c.record.Reasons, reason)
	}
}

// findTarget takes the first target that holds.
func (c *call) findTarget() {
	for i := range c.config.Targets {
		if ok, _ := c.config.Targets[i].When.Holds(c.decision.Fact); ok {
			c.target = &c.config.Targets[i]
			return
		}
	}
}

// aim chooses Region, profile and project, and names the model for the record.
func (c *call) aim() {
	if t := c.target; t != nil {
		if t.Region != "" {
			c.record.Region = t.Region
		}
		if arn := t.pick(c.decision.Tags, t.Profiles, t.Profile); arn != "" && c.route.Spends {
			c.useProfile(arn)
		}
		if project := t.pick(c.decision.Tags, t.Projects, t.Project); project != "" && (c.route.Spends || c.route.Stored() && c.record.Endpoint == waybill.Mantle) { // what is kept in a project is found there
			if c.record.Endpoint == waybill.Mantle {
				c.record.Project = project
			} else if c.record.Profile == "" && c.record.ModelAsked == "" { // a profile may stand for it there
				c.note(projectNotOnPath)
			}
		}
	}
	c.nameModel()
}

// useProfile puts an application inference profile in the model's place, where AWS takes
// one: in the path of InvokeModel and Converse, and in the body of Chat Completions on
// bedrock-runtime (user guide, "inference-profiles-use" and "projects"). Of Messages it
// is not documented, so that a setting allows it; Responses answer 400, and
// bedrock-mantle has no profiles.
func (c *call) useProfile(arn string) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || string(c.record.ModelID) == arn {
		return
	}
	inPath := c.route.Carrier != bedrock.NoMetadata
	inBody := c.record.Endpoint == waybill.Runtime && (c.route.Operation == bedrock.ChatCompletions || c.route.Operation == bedrock.Messages && c.config.ProfileOnMessages)
	source, known := c.modelBehind(arn)
	switch {
	case !inPath && !inBody:
		c.note(profileNotOnPath)
		return
	case known && source.Base() != c.askedModel():
		c.note(profileOtherModel) // the caller must get the model that was asked for
		return
	case c.record.Account != "" && parts[4] != c.record.Account:
		c.note(profileOtherAccount) // AWS would not find it
		return
	}
	c.record.ModelAsked, c.record.ModelID = c.record.ModelID, waybill.ModelID(arn)
	c.record.Region = parts[3] // elsewhere AWS does not find it
	if inBody {
		c.modelInBody = arn
		return
	}
	action := c.path[strings.LastIndexByte(c.path, '/'):]
	c.path = "/model/" + escapeSegment(arn) + action
}

// askedModel is the foundation model that the caller named, as far as that is known.
func (c *call) askedModel() string {
	if source, ok := c.modelBehind(string(c.record.ModelID)); ok {
		return source.Base()
	}
	return c.record.ModelID.Base()
}

// modelBehind is what an ARN stands for that does not name a model: the configuration
// says it, or the catalogue.
func (c *call) modelBehind(arn string) (waybill.ModelID, bool) {
	if source, ok := c.config.Profiles[arn]; ok {
		return source, true
	}
	if c.g.Catalogue == nil || !waybill.ModelID(arn).IsApplicationProfile() {
		return "", false
	}
	return c.g.Catalogue.Model(arn)
}

// nameModel puts model, scope and profile on the record. A profile whose model nobody
// knows keeps its own id: it is priced once somebody does.
func (c *call) nameModel() {
	id := c.record.ModelID
	c.record.Model, c.record.Scope = id.Base(), id.Scope()
	if id.IsApplicationProfile() {
		c.record.Profile = string(id)
	}
	if source, ok := c.modelBehind(string(id)); ok {
		c.record.Model, c.record.Scope = source.Base(), source.Scope()
	} else if c.record.Profile != "" && c.record.ModelAsked != "" && !c.record.ModelAsked.IsApplicationProfile() {
		c.record.Model, c.record.Scope = c.record.ModelAsked.Base(), c.record.ModelAsked.Scope()
	} else if c.record.Profile != "" {
		c.note(profileUnknown)
	}
}

// escapeSegment escapes an ARN for one segment of a path, as the SDKs do.
func escapeSegment(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + strings.ToUpper(hex.EncodeToString([]byte{c})))
		}
	}
	return b.String()
}
