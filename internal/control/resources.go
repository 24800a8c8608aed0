package control

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	bedrocktypes "github.com/aws/aws-sdk-go-v2/service/bedrock/types"

	"github.com/waybill-dev/waybill"
)

func resourceControls() []Control {
	return []Control{{
		ID: "profiles", Title: "Declared applications have their inference profiles", Practices: []string{"P4"}, Severity: Medium,
		Holds:  "Every declared application has an application inference profile for each of its models, in each of its Regions, with its tags and no other values of them.",
		Seen:   "bedrock:ListInferenceProfiles and ListTagsForResource, for each account and Region.",
		Why:    "On bedrock-runtime a profile is what puts an application's tags on the bill. Its model is fixed for life, so a new model takes a new profile.",
		Remedy: "waybill setup makes profiles and puts tags right. Names are not unique to AWS, so it looks before it makes.",
		Reads:  []string{"bedrock:ListInferenceProfiles", "bedrock:ListTagsForResource"}, Changes: []string{"bedrock:CreateInferenceProfile", "bedrock:TagResource"},
		judge: judgeProfiles,
	}, {
		ID: "projects", Title: "Declared applications have their projects and workspaces", Practices: []string{"P5", "P6"}, Severity: Medium,
		Holds:  "Every application that is declared with a project has an active one of its name in each of its Regions, with its tags. A project is a workspace as well: Anthropic's API names it in a header of its own.",
		Seen:   "GET /v1/organization/projects of bedrock-mantle.",
		Why:    "On bedrock-mantle a project is what puts an application's tags on the bill. What names none is booked on the default project, which can have no tags.",
		Remedy: "waybill setup makes projects and puts tags right.",
		Reads:  []string{"bedrock-mantle:ListProjects"}, Changes: []string{"bedrock-mantle:CreateProject", "bedrock-mantle:UpdateProject", "bedrock-mantle:TagResource"},
		judge: judgeProjects,
	}}
}

// profileName is the name of an application's profile for a model: what AWS takes, and the
// same on every run.
func profileName(application, model string) string {
	name := slug(application) + "_" + slug(model)
	if len(name) > 64 {
		sum := sha256.Sum256([]byte(application + "\x00" + model))
		name = strings.TrimRight(name[:55], "-_") + "_" + hex.EncodeToString(sum[:4])
	}
	return name
}

// slug keeps letters and digits, and puts one dash for what is between.
func slug(s string) string {
	var b strings.Builder
	for _, c := range s {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		} else if s := b.String(); s != "" && !strings.HasSuffix(s, "-") {
			b.WriteByte('-')
		}
	}
	return strings.Trim(b.String(), "-")
}

// modelARN is what a profile of the model is copied from.
func modelARN(model, account, region string) string {
	if waybill.ModelID(model).Scope() == waybill.Plain {
		return fmt.Sprintf("arn:%s:bedrock:%s::foundation-model/%s", partition(region), region, model)
	}
	return fmt.Sprintf("arn:%s:bedrock:%s:%s:inference-profile/%s", partition(region), region, account, model)
}

// ofModel says whether a profile was copied from a model: AWS names only the foundation
// models behind it.
func (p *Profile) ofModel(model string) bool {
	base := waybill.ModelID(model).Base()
	return slices.ContainsFunc(p.Models, func(arn string) bool { return waybill.ModelID(arn).Base() == base })
}

func judgeProfiles(in *Inquiry, report func(Finding)) {
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		for i := range in.Declaration.Applications {
			app := &in.Declaration.Applications[i]
			if !app.in(a.ID, r.Region) {
				continue
			}
			for _, model := range app.Models {
				place := func(f Finding) Finding { return f.at(a.ID, r.Region).of(app.Name + " " + model) }
				if r.Profiles.Refused != "" {
					report(place(unknown("AWS does not list the inference profiles: %s", r.Profiles.Refused)))
					continue
				}
				report(judgeProfile(in, app, model, a.ID, r, place))
			}
		}
	})
}

func judgeProfile(in *Inquiry, app *Application, model, account string, r *RegionFacts, place func(Finding) Finding) Finding {
	name, want := profileName(app.Name, model), app.tags(in.Policy)
	var found []Profile
	for _, p := range r.Profiles.Value {
		if p.Name == name && p.ofModel(model) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		source := modelARN(model, account, r.Region)
		input := &bedrock.CreateInferenceProfileInput{InferenceProfileName: &name, ModelSource: &bedrocktypes.InferenceProfileModelSourceMemberCopyFrom{Value: source}}
		var text strings.Builder
		for _, k := range sortedTags(want) {
			input.Tags = append(input.Tags, bedrocktypes.Tag{Key: aws.String(k), Value: aws.String(want[k])})
			text.WriteString("\x00" + k + "\x00" + want[k])
		}
		// The token makes a call that was cut off, and is made again, one call.
		sum := sha256.Sum256([]byte(name + "\x00" + source + text.String()))
		input.ClientRequestToken = aws.String(hex.EncodeToString(sum[:16]))
		return place(fails("there is no profile %s", name)).plan(Step{Words: "make the inference profile " + name, Diff: append([]string{"+ profile " + name + " of " + source}, diffTags(nil, want)...), Action: "bedrock:CreateInferenceProfile", Input: input})
	}
	if len(found) > 1 {
		return place(fails("there are %d profiles of the name %s", len(found), name)).as(Low).fix("keep the one that the gateway's targets name, and delete the others: %s", found[1].ARN)
	}
	lacks := lacking(found[0].Tags, want)
	if len(lacks) == 0 {
		return place(holds("%s", found[0].ARN))
	}
	input := &bedrock.TagResourceInput{ResourceARN: &found[0].ARN}
	for _, k := range sortedTags(lacks) {
		input.Tags = append(input.Tags, bedrocktypes.Tag{Key: aws.String(k), Value: aws.String(lacks[k])})
	}
	return place(fails("%d tags of %s are missing or differ", len(lacks), name)).plan(Step{Words: "tag the inference profile " + name, Diff: diffTags(found[0].Tags, want), Action: "bedrock:TagResource", Input: input})
}

func judgeProjects(in *Inquiry, report func(Finding)) {
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		for i := range in.Declaration.Applications {
			app := &in.Declaration.Applications[i]
			if !app.Project || !app.in(a.ID, r.Region) {
				continue
			}
			place := func(f Finding) Finding { return f.at(a.ID, r.Region).of(app.Name) }
			if r.Projects.Refused != "" {
				report(place(unknown("AWS does not list the projects: %s", r.Projects.Refused)))
				continue
			}
			want := app.tags(in.Policy)
			var found []Project
			for _, p := range r.Projects.Value {
				if p.Name == app.Name && p.ID != "default" {
					found = append(found, p)
				}
			}
			switch {
			case len(found) == 0:
				report(place(fails("there is no project %s", app.Name)).plan(Step{Words: "make the project " + app.Name, Diff: append([]string{"+ project " + app.Name}, diffTags(nil, want)...), Action: "bedrock-mantle:CreateProject",
					Input: &ProjectCreate{Name: app.Name, Tags: want}}))
			case len(found) > 1:
				report(place(fails("there are %d projects of the name", len(found))).as(Low).fix("keep the one that the gateway's targets name, and archive the others: %s", found[1].ID))
			default:
				lacks := lacking(found[0].Tags, want)
				if len(lacks) == 0 {
					report(place(holds("%s", found[0].ID)))
					continue
				}
				report(place(fails("%d tags of the project are missing or differ", len(lacks))).plan(Step{Words: "tag the project " + app.Name, Diff: diffTags(found[0].Tags, want), Action: "bedrock-mantle:UpdateProject", Input: &ProjectTag{ID: found[0].ID, Tags: lacks}}))
			}
		}
	})
}

func sortedTags(tags map[string]string) []string { return slices.Sorted(maps.Keys(tags)) }

// A Rule is one of the gateway's targets: which profile or project an application's calls
// take.
type Rule struct {
	Application, Account, Region, Model string
	Profile, Project                    string
}

// Rules are the gateway's targets for the applications that have what was declared.
func (in *Inquiry) Rules() []Rule {
	var out []Rule
	in.everyRegion(func(a *AccountFacts, r *RegionFacts) {
		for i := range in.Declaration.Applications {
			app := &in.Declaration.Applications[i]
			if !app.in(a.ID, r.Region) {
				continue
			}
			for _, model := range app.Models {
				j := slices.IndexFunc(r.Profiles.Value, func(p Profile) bool { return p.Name == profileName(app.Name, model) && p.ofModel(model) })
				if j >= 0 {
					out = append(out, Rule{app.Name, a.ID, r.Region, model, r.Profiles.Value[j].ARN, ""})
				}
			}
			if app.Project {
				if j := slices.IndexFunc(r.Projects.Value, func(p Project) bool { return p.Name == app.Name }); j >= 0 {
					out = append(out, Rule{app.Name, a.ID, r.Region, "", "", r.Projects.Value[j].ID})
				}
			}
		}
	})
	return out
}
