package fakeaws

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

// mostProjects is how many projects an account can have in a Region, default not counted.
const mostProjects = 1000

// projectsRoute finds the operation of the Projects API that a path below /v1 leads to.
func projectsRoute(method, rest string) (operation, id string, admit func(*exchange) (answer, *refusal)) {
	rest, ok := strings.CutPrefix(rest, "organization/projects")
	if !ok {
		return "", "", nil
	}
	id, last, more := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	post, get := method == http.MethodPost, method == http.MethodGet
	switch {
	case rest == "" && post:
		return "CreateProject", "", (*exchange).admitCreateProject
	case rest == "" && get:
		return "ListProjects", "", (*exchange).admitListProjects
	case id == "":
	case !more && get:
		return "GetProject", id, (*exchange).admitProject
	case !more && post:
		return "UpdateProject", id, (*exchange).admitProject
	case last == "archive" && post:
		return "ArchiveProject", id, (*exchange).admitProject
	}
	return "", "", nil
}

// Projects are the projects of an account and Region, default first.
func (w *World) Projects(account, region string) []Project {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Project
	for _, p := range w.projects {
		if p.Account == account && p.Region == region {
			c := *p
			c.Tags = maps.Clone(p.Tags)
			out = append(out, c)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		if !out[i].Created.Equal(out[j].Created) {
			return out[i].Created.Before(out[j].Created)
		}
		return out[i].ID < out[j].ID
	})
	return append([]Project{{Account: account, Region: region, ID: "default", Name: "default", Created: time.Unix(fixedTime, 0).UTC()}}, out...)
}

func (p *Project) object() obj {
	status := "active"
	if p.Archived {
		status = "archived"
	}
	tags := p.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	return obj{"object": "organization.project", "id": p.ID, "name": p.Name, "status": status, "arn": p.ARN(), "created_at": p.Created.Unix(), "tags": tags}
}

// mayManage refuses what the caller may not do to projects. The policy that a long-term
// key comes with lets it list and get them.
func (x *exchange) mayManage() *refusal {
	reads := x.route.operation == "ListProjects" || x.route.operation == "GetProject"
	if x.cred.denyBedrock || !contains(x.w.config.Regions, x.call.Region) || x.call.Auth == byLongTermKey && !reads {
		return &refusal{403, "permission_denied", "User: " + x.cred.arn + " is not authorized to perform: bedrock-mantle:" + x.route.operation}
	}
	return nil
}

// projectTags holds tags against the rules of AWS's tags. They are a map here.
func projectTags(tags map[string]string) *refusal {
	if len(tags) > 50 {
		return &refusal{400, "invalid_value", "A project has at most 50 tags."}
	}
	for k, v := range tags {
		if !tagText(k, 1, 128) || !tagText(v, 0, 256) || strings.HasPrefix(strings.ToLower(k), "aws:") {
			return &refusal{400, "invalid_value", "Invalid tag '" + k + "'."}
		}
	}
	return nil
}

func projectName(name string) *refusal {
	if name == "" || len(name) > 256 {
		return &refusal{400, "invalid_value", "Invalid value for 'name': a project has a name of 1 to 256 characters."}
	}
	return nil
}

func (x *exchange) admitCreateProject() (answer, *refusal) {
	_, no := members(x.body, []string{"name", "tags", "geography"}) // the last is ignored
	if no = first(x.mayManage(), no); no != nil {
		return nil, no
	}
	var b struct {
		Name string
		Tags map[string]string
	}
	if err := json.Unmarshal(x.body, &b); err != nil {
		return nil, &refusal{400, "invalid_type", "Invalid type in the request: " + err.Error()}
	}
	if no := first(projectName(b.Name), projectTags(b.Tags)); no != nil {
		return nil, no
	}
	if len(x.w.Projects(x.call.Account, x.call.Region)) > mostProjects {
		return nil, &refusal{400, "limit_exceeded", fmt.Sprintf("An account has at most %d projects.", mostProjects)}
	}
	return func(x *exchange) bool {
		x.w.mu.Lock()
		defer x.w.mu.Unlock()
		x.w.made++
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %s", x.call.Account, x.call.Region, x.w.made, b.Name))
		p := &Project{Account: x.call.Account, Region: x.call.Region, Name: b.Name, Tags: b.Tags, Created: x.call.At.UTC(),
			ID: "proj_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:20]}
		x.w.projects[p.Account+"/"+p.Region+"/"+p.ID] = p
		x.call.Project, x.call.ProjectARN = p.ID, p.ARN()
		return x.json(p.object())
	}, nil
}

// admitListProjects lists projects, archived ones if asked.
func (x *exchange) admitListProjects() (answer, *refusal) {
	if no := x.mayManage(); no != nil {
		return nil, no
	}
	q, err := url.ParseQuery(x.r.URL.RawQuery)
	if err != nil {
		return nil, &refusal{400, "invalid_value", "The query is malformed."}
	}
	limit := 20
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			return nil, &refusal{400, "invalid_value", "Invalid value for 'limit': expected 1 to 100."}
		}
		limit = n
	}
	all := x.w.Projects(x.call.Account, x.call.Region)
	after := q.Get("after")
	if x.w.config.ProjectsInOnePage {
		limit, after = len(all), ""
	}
	list, more := []any{}, false
	var firstID, lastID any
	started := after == ""
	for i := range all {
		p := &all[i]
		switch {
		case !started:
			started = p.ID == after
		case p.Archived && q.Get("include_archived") != "true" && !x.w.config.ProjectsInOnePage:
		case len(list) == limit:
			more = true
		default:
			if firstID == nil {
				firstID = p.ID
			}
			lastID = p.ID
			list = append(list, p.object())
		}
	}
	if !started {
		return nil, &refusal{400, "invalid_value", "Invalid value for 'after': there is no project '" + after + "'."}
	}
	return func(x *exchange) bool {
		return x.json(obj{"object": "list", "data": list, "first_id": firstID, "last_id": lastID, "has_more": more})
	}, nil
}

// admitProject gets, changes or archives a project. Tags are added and removed, never
// replaced as a whole; nothing of default can be changed.
func (x *exchange) admitProject() (answer, *refusal) {
	if no := x.mayManage(); no != nil {
		return nil, no
	}
	p := Project{}
	for _, one := range x.w.Projects(x.call.Account, x.call.Region) {
		if one.ID == x.route.id {
			p = one
		}
	}
	if p.ID == "" {
		return nil, &refusal{404, "project_not_found", "The project '" + x.route.id + "' does not exist"}
	}
	x.call.Project, x.call.ProjectARN = p.ID, p.ARN()
	if x.route.operation == "GetProject" {
		return func(x *exchange) bool { return x.json(p.object()) }, nil
	}
	if p.ID == "default" {
		return nil, &refusal{400, "invalid_value", "The default project cannot be changed."}
	}
	if x.route.operation == "ArchiveProject" {
		return x.change(p.ID, func(p *Project) { p.Archived = true }), nil
	}
	m, no := members(x.body, []string{"name", "add_tags", "remove_tag_keys"})
	if no != nil {
		return nil, no
	}
	var b struct {
		Name   string
		Add    map[string]string `json:"add_tags"`
		Remove []string          `json:"remove_tag_keys"`
	}
	if err := json.Unmarshal(x.body, &b); err != nil {
		return nil, &refusal{400, "invalid_type", "Invalid type in the request: " + err.Error()}
	}
	if len(m) == 0 {
		return nil, &refusal{400, "missing_required_parameter", "Nothing to change: one of 'name', 'add_tags' and 'remove_tag_keys' is required."}
	}
	if m["name"] != nil {
		no = projectName(b.Name)
	}
	after := maps.Clone(p.Tags)
	if after == nil {
		after = make(map[string]string)
	}
	for _, k := range b.Remove {
		delete(after, k)
	}
	maps.Copy(after, b.Add)
	if no = first(no, projectTags(after)); no != nil {
		return nil, no
	}
	return x.change(p.ID, func(p *Project) {
		p.Tags = after
		if b.Name != "" {
			p.Name = b.Name
		}
	}), nil
}

func (x *exchange) change(id string, how func(*Project)) answer {
	return func(x *exchange) bool {
		x.w.mu.Lock()
		defer x.w.mu.Unlock()
		p := x.w.projects[x.call.Account+"/"+x.call.Region+"/"+id]
		how(p)
		return x.json(p.object())
	}
}
