package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// A block is a fenced block of YAML in a page.
type block struct {
	page string
	line int
	text string
}

// blocks are the fenced blocks of YAML in docs/operate.
func blocks(t *testing.T) []block {
	t.Helper()
	pages, err := filepath.Glob("../../docs/operate/*.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	for _, page := range pages {
		src, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var b *block
		for i, line := range strings.Split(string(src), "\n") {
			switch {
			case b == nil && strings.HasPrefix(line, "```yaml"):
				b = &block{page: filepath.Base(page), line: i + 1}
			case b != nil && line == "```":
				out = append(out, *b)
				b = nil
			case b != nil:
				b.text += line + "\n"
			}
		}
		if b != nil {
			t.Errorf("%s:%d: the block does not end", page, b.line)
		}
	}
	return out
}

// The keys of examples that are no configuration of the gateway: a tag policy, the profiles
// of `waybill credentials`.
var otherFiles = map[string]bool{"version": true, "tags": true, "session": true, "reorganisations": true, "applications": true, "rollout": true, "imports": true}

// Every configuration in the pages for operators is one that waybilld takes: the whole one
// as it stands, with the files that it names; parts, and the members of a list of issuers,
// put into it.
func TestExamplesOfThePages(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	writePair(t, dir, 1)
	const tags = `version: 1
tags:
  keys:
    team: {required: true, carriers: [session, request], maxDistinct: 100}
    environment: {values: [production, staging, development], default: staging, carriers: [session, request]}
    user: {from: caller.subject, transform: hmac, carriers: [session]}
`
	files := map[string]string{"policy.yaml": tags, "external-id": "example\n", "keys.jsonl": "", "denied.jsonl": "",
		"rates.csv": "model,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := program(t)
	environment := append(os.Environ(), "WAYBILL_HASH_KEY=0123456789abcdef", "WAYBILL_SEALING_KEY="+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	// check is what waybilld --check says of a configuration.
	check := func(b block, text string) {
		t.Helper()
		file := filepath.Join(dir, "example.yaml")
		text = strings.ReplaceAll(text, "/etc/waybill/", dir+"/")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.CommandContext(t.Context(), path, "--config", file, "--check")
		command.Env = environment
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s:%d: %v\n%s\n%s", b.page, b.line, err, out, text)
		}
	}
	const certified = "tls: {certificate: server.pem, key: server.key, clientCA: server.pem}\n"
	base := map[string]string{"region": "us-east-1\n", "policy": "policy.yaml\n", "hashKey": "0123456789abcdef\n", "callers": "{keys: keys.jsonl}\n", "journal": "{dir: journal}\n", "rates": "rates.csv\n",
		"roles": "[{assume: 'arn:aws:iam::111122223333:role/bedrock'}, {assume: 'arn:aws:iam::111122223333:role/eu'}, {assume: 'arn:aws:iam::111122223333:role/bedrock-fallback'}]\n"}
	whole, parts, issuers := 0, 0, 0
	for _, b := range blocks(t) {
		var members map[string]any
		if err := yaml.Unmarshal([]byte(b.text), &members); err != nil {
			t.Errorf("%s:%d: %v", b.page, b.line, err)
			continue
		}
		has := func(names ...string) bool {
			for _, name := range names {
				if _, ok := members[name]; !ok {
					return false
				}
			}
			return true
		}
		other := strings.HasPrefix(b.text, "# ~/.config/waybill/")
		for name := range members {
			other = other || otherFiles[name] && !has("issuer")
		}
		switch {
		case other:
		case has("listen", "policy", "callers", "roles"):
			whole++
			check(b, b.text)
		case has("issuer", "audiences"):
			issuers++
			text := certified + "callers:\n  oidc:\n    - " + strings.ReplaceAll(strings.TrimSpace(b.text), "\n", "\n      ") + "\n"
			for name, value := range base {
				if name != "callers" {
					text += name + ": " + value
				}
			}
			check(b, text)
		default:
			parts++
			text := certified + b.text
			for name, value := range base {
				if !has(name) {
					text += fmt.Sprintf("%s: %s", name, value)
				}
			}
			check(b, text)
		}
	}
	if whole < 1 || parts < 4 || issuers < 5 {
		t.Errorf("%d whole configurations, %d parts and %d issuers were found", whole, parts, issuers)
	}
}
