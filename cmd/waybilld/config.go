package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/credential"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/journal"
	"github.com/waybill-dev/waybill/internal/policy"
)

// config is the file of the gateway. Paths in it are relative to its own folder.
type config struct {
	listen, admin        string
	certFile, keyFile    string
	stsEndpoint          string
	controlEndpoint      string      // of Bedrock's control plane
	accessKey, secretKey string      // base credentials, if not AWS's own chain
	clientCA             string      // authorities of client certificates
	tls                  *tls.Config // of the listener, read from these files; nil serves none
	callers              callersConfig
	journalDir           string
	gateway              gateway.Config
	journal              journal.Config
	sessions             credential.Config
	timeouts             timeouts
	headerBytes          int      // of a request's head
	files                []string // that all this was read from
	watch                bool     // the files are looked at for changes
	resolve              resolveConfig
	signing              string // sigv4 or bearer
	drainOnStop          time.Duration
	notice               time.Duration // before it drains
	policyFile           string
	templates            []template
	brokerAt             policy.Node   // of a role whose sessions are given away
	valuesFile           string        // the distinct values of bounded tag keys, over restarts
	transitive           []policy.Node // lists of tag keys that roles name, to be held against the policy
	targetNodes          []policy.Node // a target each
	targetRoles, byKeys  []named       // that targets name
	estimateAt           policy.Node
	priceRules           []policy.Node // rules of calls without a price
}

// A named thing is a text with its place.
type named struct {
	at   policy.Node
	text string
}

// timeouts are those of the listener and of the connections to AWS.
type timeouts struct{ header, connect, tls time.Duration }

// resolveConfig says how the models behind inference profiles are looked up.
type resolveConfig struct {
	on   bool
	role string // under which, if not under the gateway's own credentials
}

// A template of a role, whose policy is read later.
type template struct {
	at     policy.Node
	role   int
	source bool // of the source identity, not of the session name
}

// readConfig reads the file and the policy it names. It tells every mistake at once. What
// it gives beside an error has the files that were read, and nothing else.
func readConfig(path string) (*config, error) {
	only := &config{files: []string{path}}
	src, err := os.ReadFile(path)
	if err != nil {
		return only, fmt.Errorf("read configuration: %w", err)
	}
	doc, err := policy.ReadYAML(path, src)
	if err != nil {
		return only, err
	}
	c := &config{listen: "127.0.0.1:8080", admin: "127.0.0.1:8081", drainOnStop: 30 * time.Second,
		timeouts: timeouts{header: 30 * time.Second, connect: 10 * time.Second, tls: 10 * time.Second}, headerBytes: 64 << 10, signing: "sigv4"}
	c.files = append(c.files, path)
	c.files = append(c.files, fileValues(src)...)
	c.gateway.InsertUsage = true // what AWS does not tell cannot be attributed
	c.gateway.Upstream = make(map[waybill.Endpoint]string)
	c.gateway.Profiles = make(map[string]waybill.ModelID)
	dir := filepath.Dir(path)
	file := func(n policy.Node) string {
		if p := reference(n); filepath.IsAbs(p) {
			return p
		} else {
			return filepath.Join(dir, p)
		}
	}
	hashKey, epochsFile, ratesFile := "", "", ""
	c.valuesFile = filepath.Join(dir, "distinct-values.tsv")
	doc.Root().Fields(map[string]func(policy.Node){
		"listen": func(n policy.Node) { c.listen = reference(n) },
		"admin":  func(n policy.Node) { c.admin = reference(n) },
		"name":   func(n policy.Node) { c.gateway.Name = reference(n) },
		"tls": func(n policy.Node) {
			defer func() {
				if c.certFile == "" || c.keyFile == "" {
					n.Mistake("add certificate: and key:, or leave tls: out", "the listener's certificate or its key is missing: it would serve without TLS")
				}
			}()
			n.Fields(map[string]func(policy.Node){
				"certificate": func(n policy.Node) { c.certFile = file(n) },
				"key":         func(n policy.Node) { c.keyFile = file(n) },
				"clientCA":    func(n policy.Node) { c.clientCA = file(n) },
			})
		},
		"region":         func(n policy.Node) { c.gateway.DefaultRegion = reference(n) },
		"regions":        func(n policy.Node) { c.gateway.Regions = n.Texts() },
		"policy":         func(n policy.Node) { c.policyFile = file(n) },
		"hashKey":        func(n policy.Node) { hashKey = reference(n) },
		"hashKeys":       func(n policy.Node) { epochsFile = file(n) },
		"distinctValues": func(n policy.Node) { c.valuesFile = file(n) },
		"upstream": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){
				"bedrock-runtime": func(n policy.Node) { c.gateway.Upstream[waybill.Runtime] = reference(n) },
				"bedrock-mantle":  func(n policy.Node) { c.gateway.Upstream[waybill.Mantle] = reference(n) },
				"sts":             func(n policy.Node) { c.stsEndpoint = reference(n) },
				"bedrock":         func(n policy.Node) { c.controlEndpoint = reference(n) },
			})
		},
		"credentials": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){
				"accessKeyId":     func(n policy.Node) { c.accessKey = reference(n) },
				"secretAccessKey": func(n policy.Node) { c.secretKey = reference(n) },
			})
		},
		"callers": func(n policy.Node) { c.callers.fill(n, file) },
		"roles":   func(n policy.Node) { c.readRoles(n) },
		"targets": func(n policy.Node) { c.readTargets(n) },
		"profiles": func(n policy.Node) {
			n.Each(func(arn string, _, v policy.Node) { c.gateway.Profiles[arn] = waybill.ModelID(v.Text()) })
		},
		"journal": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){
				"dir":          func(n policy.Node) { c.journalDir = file(n) },
				"sync":         func(n policy.Node) { c.journal.SyncEvery = n.OneOf("group", "every") == "every" },
				"segmentAge":   func(n policy.Node) { c.journal.SegmentAge = duration(n) },
				"segmentBytes": func(n policy.Node) { c.journal.SegmentBytes = number(n) },
				"onFailure":    func(n policy.Node) { c.gateway.PassWithoutJournal = n.OneOf("refuse", "pass") == "pass" },
			})
		},
		"sessions": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){
				"life":          func(n policy.Node) { c.sessions.Life = duration(n) },
				"refreshBefore": func(n policy.Node) { c.sessions.RefreshBefore = duration(n) },
				"jitter":        func(n policy.Node) { c.sessions.Jitter = duration(n) },
				"margin":        func(n policy.Node) { c.sessions.Margin = duration(n) },
				"max":           func(n policy.Node) { c.sessions.MaxSessions = int(number(n)) },
				"perSecond":     func(n policy.Node) { c.sessions.PerSecond = float64(number(n)) },
				"warmUp":        func(n policy.Node) { c.sessions.WarmUp = duration(n) },
				"backoff":       func(n policy.Node) { c.sessions.Backoff = duration(n) },
				"maxBackoff":    func(n policy.Node) { c.sessions.MaxBackoff = duration(n) },
				"callTimeout":   func(n policy.Node) { c.sessions.CallTimeout = duration(n) },
				"waitTimeout":   func(n policy.Node) { c.sessions.WaitTimeout = duration(n) },
			})
		},
		"drain": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){
				"mode":  func(n policy.Node) { c.gateway.Drain = gateway.DrainMode(n.OneOf("drain", "cut")) },
				"time":  func(n policy.Node) { c.gateway.DrainTime = duration(n) },
				"bytes": func(n policy.Node) { c.gateway.DrainBytes = number(n) },
			})
		},
		"insertUsage": func(n policy.Node) { c.gateway.InsertUsage = n.Bool() },
		"limits": func(n policy.Node) {
			l := &c.gateway.Limits
			n.Fields(map[string]func(policy.Node){
				"calls":          func(n policy.Node) { l.Calls = int(number(n)) },
				"callsPerCaller": func(n policy.Node) { l.CallsPerCaller = int(number(n)) },
				"bodyBytes": func(n policy.Node) {
					if l.BodyBytes = number(n); l.BodyBytes < 25_000_000 {
						n.Mistake("write 25000000 or more", "a body may be of 25,000,000 bytes, and would never find room")
					}
				},
				"bodyWait":    func(n policy.Node) { l.BodyWait = duration(n) },
				"headers":     func(n policy.Node) { l.Headers = int(number(n)) },
				"headerBytes": func(n policy.Node) { c.headerBytes = int(number(n)) },
				"url":         func(n policy.Node) { l.URL = int(number(n)) },
			})
		},
		"onFailure": func(n policy.Node) { c.readFailures(n) },
		"rates":     func(n policy.Node) { ratesFile = file(n) },
		"estimate": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){
				"header":    func(n policy.Node) { c.gateway.Estimate.Header = n.Bool() },
				"holdBytes": func(n policy.Node) { c.gateway.Estimate.HoldBytes = number(n) },
			})
			c.estimateAt = n
		},
		"reload": func(n policy.Node) { c.watch = n.OneOf("signal", "watch") == "watch" },
		"resolveProfiles": func(n policy.Node) {
			if c.resolve.on = true; !n.IsMapping() {
				c.resolve.on = n.Bool()
				return
			}
			n.Fields(map[string]func(policy.Node){
				"role": func(n policy.Node) { c.resolve.role = reference(n); checkRole(n, c.resolve.role) },
			})
		},
		"signing":           func(n policy.Node) { c.signing = n.OneOf("sigv4", "bearer") },
		"mantleMetadata":    func(n policy.Node) { c.gateway.MantleMetadata = n.Bool() },
		"profileOnMessages": func(n policy.Node) { c.gateway.ProfileOnMessages = n.Bool() },
		"workspaceHeaders": func(n policy.Node) {
			c.gateway.WorkspaceHeaders = nil
			for _, item := range n.List() {
				c.gateway.WorkspaceHeaders = append(c.gateway.WorkspaceHeaders, item.OneOf("anthropic-workspace-id", "anthropic-workspace"))
			}
			if len(c.gateway.WorkspaceHeaders) == 0 {
				n.Mistake("name one, or leave it out", "a workspace would be chosen by no header")
			}
		},
		"timeouts": func(n policy.Node) {
			n.Fields(map[string]func(policy.Node){
				"body":      func(n policy.Node) { c.gateway.BodyTimeout = duration(n) },
				"firstByte": func(n policy.Node) { c.readFirstByte(n) },
				"idle":      func(n policy.Node) { c.gateway.Timeouts.Idle = duration(n) },
				"call":      func(n policy.Node) { c.gateway.Timeouts.Call = duration(n) },
				"header":    func(n policy.Node) { c.timeouts.header = duration(n) },
				"connect":   func(n policy.Node) { c.timeouts.connect = duration(n) },
				"tls":       func(n policy.Node) { c.timeouts.tls = duration(n) },
				"write":     func(n policy.Node) { c.gateway.WriteTimeout = duration(n) },
				"stop":      func(n policy.Node) { c.drainOnStop = duration(n) },
				"notice":    func(n policy.Node) { c.notice = duration(n) },
			})
		},
	})
	root := doc.Root()
	for what, missing := range map[string]bool{"policy: the tag policy file": c.policyFile == "", "callers: who may call": !c.callers.any(),
		"journal.dir: the folder of the journal": c.journalDir == "", "region: the Region that is called": c.gateway.DefaultRegion == "",
		"roles: at least one role to call under": len(c.gateway.Roles) == 0} {
		if missing {
			root.Mistake("add "+what, "the configuration lacks %s", strings.SplitN(what, ":", 2)[0])
		}
	}
	if len(c.callers.certificates) > 0 && c.clientCA == "" {
		root.Field("callers").Mistake("add tls: {clientCA: ca.pem}", "client certificates have rules, and the listener has no authorities to verify them with")
	}
	if slices.ContainsFunc(c.gateway.Roles, func(r gateway.Role) bool { return r.Broker }) && c.callers.audit == "" {
		c.brokerAt.Mistake("add callers: {audit: audit.jsonl}", "sessions of the role are given to people, and no audit file keeps to whom")
	}
	if c.gateway.Estimate.Header && ratesFile == "" {
		c.estimateAt.Mistake("add rates: rates.csv", "there is no rate card to estimate by")
	}
	for _, at := range c.priceRules {
		if ratesFile == "" {
			at.Mistake("add rates: rates.csv", "without a rate card no call has a price")
		}
	}
	errs := []error{c.readTLS()}
	c.files = append(c.files, c.callers.authorities...)
	if ratesFile != "" {
		c.files = append(c.files, ratesFile)
		src, err := os.ReadFile(ratesFile)
		if err == nil {
			c.gateway.Prices, err = readPrices(ratesFile, src)
		}
		errs = append(errs, err)
	}
	if c.policyFile != "" {
		if c.gateway.Policy, err = c.readPolicy(c.policyFile, hashKey, epochsFile); err != nil {
			errs = append(errs, err)
		} else {
			for i := range c.gateway.Roles {
				c.gateway.Policy.CheckCondition(&c.gateway.Roles[i].When)
			}
			for _, n := range c.transitive { // STS takes only keys of the session's own tags
				for _, item := range n.List() {
					if riding := c.gateway.Policy.KeysOn(policy.OnSession); !slices.Contains(riding, item.Text()) {
						item.Mistake("on the session are: "+strings.Join(riding, ", "), "%q is no tag key that rides on the session", item.Text())
					}
				}
			}
			for i := range c.gateway.OnFailure {
				c.gateway.Policy.CheckCondition(&c.gateway.OnFailure[i].When)
			}
			for i := range c.gateway.Targets {
				c.gateway.Policy.CheckCondition(&c.gateway.Targets[i].When)
			}
			c.checkTargets()
			for _, t := range c.templates {
				if filled := c.gateway.Policy.ReadTemplate(t.at, t.at.Text()); t.source {
					c.gateway.Roles[t.role].SourceIdentity = filled
				} else {
					c.gateway.Roles[t.role].SessionName = filled
				}
			}
		}
	}
	if err := errors.Join(append([]error{doc.Err()}, errs...)...); err != nil {
		return &config{files: c.files}, err
	}
	c.journal.Gateway = c.gateway.Name
	return c, nil
}

// readPolicy reads the tag policy, what it imports, and the secrets it hashes with.
func (c *config) readPolicy(file, hashKey, epochsFile string) (*policy.Policy, error) {
	open := func(name string) ([]byte, error) {
		c.files = append(c.files, name)
		return os.ReadFile(name)
	}
	o := policy.Options{HashKey: []byte(hashKey), Open: open}
	if epochsFile != "" {
		src, err := open(epochsFile)
		if err != nil {
			return nil, fmt.Errorf("read the secrets of hashing: %w", err)
		}
		if o.Epochs, err = policy.ParseEpochs(epochsFile, src); err != nil {
			return nil, err
		}
	}
	src, err := open(file)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return policy.Parse(file, src, o)
}

func (c *config) readRoles(n policy.Node) {
	for i, item := range n.List() {
		var r gateway.Role
		item.Fields(map[string]func(policy.Node){
			"when":           func(n policy.Node) { r.When = policy.ReadCondition(n) },
			"assume":         func(n policy.Node) { r.ARN = reference(n); checkRole(n, r.ARN) },
			"transitive":     func(n policy.Node) { r.Transitive = n.Texts(); c.transitive = append(c.transitive, n) },
			"externalId":     func(n policy.Node) { r.ExternalID = reference(n) },
			"sessionName":    func(n policy.Node) { c.templates = append(c.templates, template{n, i, false}) },
			"sourceIdentity": func(n policy.Node) { c.templates = append(c.templates, template{n, i, true}) },
			"broker":         func(n policy.Node) { r.Broker = n.Bool(); c.brokerAt = n },
		})
		if r.ARN == "" {
			item.Mistake("add assume: arn:aws:iam::ACCOUNT:role/NAME", "the role has no ARN")
		}
		c.gateway.Roles = append(c.gateway.Roles, r)
	}
}

func checkRole(n policy.Node, arn string) {
	if parts := strings.SplitN(arn, ":", 6); len(parts) != 6 || parts[2] != "iam" || len(parts[4]) != 12 || !strings.HasPrefix(parts[5], "role/") {
		n.Mistake("write arn:aws:iam::ACCOUNT:role/NAME", "%q is not the ARN of a role", arn)
	}
}

func (c *config) readTargets(n policy.Node) {
	for _, item := range n.List() {
		c.targetNodes = append(c.targetNodes, item)
		t := gateway.Target{Profiles: make(map[string]string), Projects: make(map[string]string)}
		region := "" // of the target's profiles
		profile := func(n policy.Node) string {
			arn := n.Text()
			parts := strings.SplitN(arn, ":", 6)
			if len(parts) != 6 || !waybill.ModelID(arn).IsApplicationProfile() {
				n.Mistake("write arn:aws:bedrock:REGION:ACCOUNT:application-inference-profile/ID", "%q is not the ARN of an application inference profile", arn)
				return ""
			}
			region = parts[3]
			if t.Region != "" && t.Region != region {
				n.Mistake("leave region: out: a call through a profile goes to the profile's own", "the profile is in %s, and the target's Region is %s", region, t.Region)
			}
			return arn
		}
		item.Fields(map[string]func(policy.Node){
			"when":   func(n policy.Node) { t.When = policy.ReadCondition(n) },
			"region": func(n policy.Node) { t.Region = n.Text() },
			"role": func(n policy.Node) {
				t.Role = reference(n)
				c.targetRoles = append(c.targetRoles, named{n, t.Role})
			},
			"by":      func(n policy.Node) { t.By = n.Text(); c.byKeys = append(c.byKeys, named{n, t.By}) },
			"profile": func(n policy.Node) { t.Profile = profile(n) },
			"project": func(n policy.Node) { t.Project = project(n) },
			"profiles": func(n policy.Node) {
				n.Each(func(value string, _, v policy.Node) { t.Profiles[value] = profile(v) })
			},
			"projects": func(n policy.Node) {
				n.Each(func(value string, _, v policy.Node) { t.Projects[value] = project(v) })
			},
		})
		if t.By == "" && len(t.Profiles)+len(t.Projects) > 0 {
			item.Mistake("add by: TAG", "profiles and projects are chosen by the value of a tag, and the target names none")
		}
		c.gateway.Targets = append(c.gateway.Targets, t)
	}
}

// readFailures reads the table of what happens when something fails.
func (c *config) readFailures(n policy.Node) {
	for _, item := range n.List() {
		var r gateway.FailureRule
		mode := func(to *gateway.FailureMode) func(policy.Node) {
			return func(n policy.Node) { *to = gateway.FailureMode(n.OneOf("refuse", "pass")) }
		}
		item.Fields(map[string]func(policy.Node){
			"when":    func(n policy.Node) { r.When = policy.ReadCondition(n) },
			"policy":  mode(&r.Policy),
			"sts":     mode(&r.STS),
			"journal": mode(&r.Journal),
			"price":   func(n policy.Node) { mode(&r.Price)(n); c.priceRules = append(c.priceRules, n) },
			"fallback": func(n policy.Node) {
				r.Fallback = reference(n)
				c.targetRoles = append(c.targetRoles, named{n, r.Fallback})
			},
		})
		if (r.STS == gateway.Pass) != (r.Fallback != "") {
			item.Mistake("write sts: pass and fallback: ROLE, or neither", "a call without its role session passes under a fallback role only, and nothing else does")
		}
		c.gateway.OnFailure = append(c.gateway.OnFailure, r)
	}
}

// readFirstByte reads a time for both endpoints, or for each.
func (c *config) readFirstByte(n policy.Node) {
	c.gateway.Timeouts.FirstByte = make(map[waybill.Endpoint]time.Duration)
	if !n.IsMapping() {
		d := duration(n)
		c.gateway.Timeouts.FirstByte[waybill.Runtime], c.gateway.Timeouts.FirstByte[waybill.Mantle] = d, d
		return
	}
	set := func(e waybill.Endpoint) func(policy.Node) {
		return func(n policy.Node) { c.gateway.Timeouts.FirstByte[e] = duration(n) }
	}
	n.Fields(map[string]func(policy.Node){string(waybill.Runtime): set(waybill.Runtime), string(waybill.Mantle): set(waybill.Mantle)})
}

// project reads the id of a project or workspace (user guide, "projects").
func project(n policy.Node) string {
	id := n.Text()
	if rest, ok := strings.CutPrefix(id, "proj_"); id != "default" && (!ok || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || rest == "") {
		n.Mistake("write proj_ and the letters and digits that AWS gave", "%q is not the id of a project or workspace", id)
	}
	return id
}

// checkTargets holds the targets against the roles, profiles and tag keys that there are.
func (c *config) checkTargets() {
	for _, r := range c.targetRoles {
		if !slices.ContainsFunc(c.gateway.Roles, func(known gateway.Role) bool { return known.ARN == r.text }) {
			r.at.Mistake("add it to roles, with a condition that does not hold for other calls", "this role is not among the roles")
		}
	}
	for _, k := range c.byKeys {
		if !slices.Contains(c.gateway.Policy.Keys(), k.text) {
			k.at.Mistake("name one of: "+strings.Join(c.gateway.Policy.Keys(), ", "), "%q is not a tag key that the policy declares", k.text)
		}
	}
	for i, item := range c.targetNodes {
		t := &c.gateway.Targets[i]
		arns := slices.Collect(maps.Values(t.Profiles))
		if t.Profile != "" {
			arns = append(arns, t.Profile)
		}
		for _, arn := range arns {
			if _, known := c.gateway.Profiles[arn]; !known && !slices.Contains(t.When.Keys(), "model") && !slices.Contains(t.When.Keys(), "modelId") {
				item.Mistake("add model: to when:, or the profile to profiles:", "the target has a profile, and nothing says for which model: calls of any model would go to it")
				break
			}
		}
	}
}

// fileValues are the files that values stand for.
func fileValues(src []byte) []string {
	var root yaml.Node
	if yaml.Unmarshal(src, &root) != nil {
		return nil // it was told
	}
	var out []string
	var walk func(*yaml.Node)
	walk = func(n *yaml.Node) {
		if path, ok := strings.CutPrefix(n.Value, "file:"); ok && n.Kind == yaml.ScalarNode {
			out = append(out, path)
		}
		for _, child := range n.Content {
			walk(child)
		}
	}
	walk(&root)
	return out
}

// reference is a text that may stand for the environment (${NAME}) or a file
// (file:PATH), so that the configuration itself need not hold a secret.
func reference(n policy.Node) string {
	text := n.Text()
	if name, ok := strings.CutPrefix(text, "${"); ok && strings.HasSuffix(name, "}") {
		name = strings.TrimSuffix(name, "}")
		value, there := os.LookupEnv(name)
		if !there {
			n.Mistake("set it, or write the value", "environment variable %s is not set", name)
		}
		return value
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		if !filepath.IsAbs(path) {
			n.Mistake("write file:/the/whole/path", "the file that it stands for has no whole path: from where it is meant cannot be told")
			return ""
		}
		b, err := os.ReadFile(path)
		if err != nil {
			n.Mistake("check the path and its rights", "the file it stands for cannot be read: %v", err)
		}
		return strings.TrimSpace(string(b))
	}
	return text
}

func duration(n policy.Node) time.Duration {
	d, err := time.ParseDuration(n.Text())
	if err != nil || d < 0 {
		n.Mistake("write a number with ms, s, m or h", "%q is not a duration", n.Text())
	}
	return d
}

func number(n policy.Node) int64 {
	v, err := strconv.ParseInt(n.Text(), 10, 64)
	if err != nil || v <= 0 {
		n.Mistake("write a positive whole number", "%q is not a number", n.Text())
	}
	return v
}
