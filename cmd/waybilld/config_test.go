package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// readWith reads the configuration of home with more lines at its end.
func readWith(t *testing.T, dir, more string) (*config, error) {
	t.Helper()
	good, err := os.ReadFile(filepath.Join(dir, "waybilld.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "more.yaml")
	if err := os.WriteFile(file, append(good, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	return readConfig(file)
}

const profileARN = "'arn:aws:bedrock:eu-west-1:111122223333:application-inference-profile/abc'"

// Settings that are good are taken, and those that are not are refused with their place.
func TestSettings(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	const columns = "model,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source\n"
	for name, text := range map[string]string{"rates.csv": columns, "euro.csv": columns + "m.n,*,plain,input,,,1000,0.1,EUR,2026-01-01,,\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ more, mistake string }{
		{"targets: [{when: {model: anthropic.*}, profile: " + profileARN + "}]\n", ""},
		{"targets: [{by: team, projects: {search: proj_abc}, project: default}]\n", ""},
		{"targets: [{role: 'arn:aws:iam::111122223333:role/bedrock'}]\n", ""},
		{"profiles: {" + profileARN + ": amazon.nova-lite-v1:0}\ntargets: [{profile: " + profileARN + "}]\n", ""},
		{"targets: [{profile: " + profileARN + "}]\n", "more.yaml:10:11: the target has a profile, and nothing says for which model"},
		{"targets: [{when: {model: a.*}, region: us-east-1, profile: " + profileARN + "}]\n", "the profile is in eu-west-1, and the target's Region is us-east-1"},
		{"targets: [{when: {model: a.*}, profile: amazon.nova-lite-v1:0}]\n", "is not the ARN of an application inference profile"},
		{"targets: [{project: Search}]\n", `more.yaml:10:21: "Search" is not the id of a project`},
		{"targets: [{projects: {search: proj_abc}}]\n", "the target names none"},
		{"targets: [{by: taem, projects: {search: proj_abc}}]\n", `more.yaml:10:16: "taem" is not a tag key that the policy declares`},
		{"targets: [{role: 'arn:aws:iam::111122223333:role/other'}]\n", "more.yaml:10:18: this role is not among the roles"},
		{"targets: [{when: {taem: search}}]\n", `"taem", which nothing declares`},
		{"workspaceHeaders: [anthropic-workspace]\nprofileOnMessages: true\n", ""},
		{"workspaceHeaders: [x-workspace]\n", `"x-workspace" is not known here`},
		{"limits: {calls: 10, callsPerCaller: 2, bodyBytes: 30000000, bodyWait: 1s, headers: 50, headerBytes: 16000, url: 4000}\n", ""},
		{"limits: {bodyBytes: 1000}\n", "would never find room"},
		{"timeouts: {firstByte: 1m, idle: 2m, call: 30m, header: 5s, connect: 1s, tls: 2s}\n", ""},
		{"timeouts: {firstByte: {bedrock-runtime: 1m, bedrock-mantle: 2m}}\n", ""},
		{"timeouts: {firstByte: {mantle: 2m}}\n", `more.yaml:10:24: unknown key "mantle"`},
		{"timeouts: {idle: soon}\n", `"soon" is not a duration`},
		{"onFailure: [{when: {team: search}, policy: pass, journal: refuse}, {sts: pass, fallback: 'arn:aws:iam::111122223333:role/bedrock'}]\n", ""},
		{"onFailure: [{sts: pass}]\n", "more.yaml:10:13: a call without its role session passes under a fallback role only"},
		{"onFailure: [{sts: pass, fallback: 'arn:aws:iam::111122223333:role/other'}]\n", "this role is not among the roles"},
		{"onFailure: [{fallback: 'arn:aws:iam::111122223333:role/bedrock'}]\n", "nothing else does"},
		{"onFailure: [{policy: allow}]\n", `more.yaml:10:22: "allow" is not known here`},
		{"onFailure: [{when: {taem: search}, policy: pass}]\n", `"taem", which nothing declares`},
		{"onFailure: [{price: refuse}]\n", "more.yaml:10:21: without a rate card no call has a price"},
		{"rates: rates.csv\nestimate: {header: true, holdBytes: 1000}\nonFailure: [{price: refuse}]\n", ""},
		{"rates: euro.csv\n", "prices are in EUR"},
		{"rates: none.csv\n", "none.csv"},
		{"estimate: {header: true}\n", "more.yaml:10:11: there is no rate card to estimate by"},
		{"reload: watch\nresolveProfiles: true\nmantleMetadata: true\n", ""},
		{"resolveProfiles: {role: 'arn:aws:iam::111122223333:role/profiles'}\n", ""},
		{"resolveProfiles: {role: profiles}\n", "is not the ARN of a role"},
		{"signing: bearer\n", ""},
		{"tls: {clientCA: ca.pem}\n", "it would serve without TLS"},
		{"tls: {certificate: policy.yaml, key: policy.yaml}\n", "are not a certificate and its key"},
		{"name: file:name.txt\n", "more.yaml:10:7: the file that it stands for has no whole path"},
		{"signing: none\n", `"none" is not known here`},
		{"reload: never\n", `"never" is not known here`},
		{"workspaceHeaders: []\n", "a workspace would be chosen by no header"},
	} {
		_, err := readWith(t, dir, tt.more)
		switch {
		case tt.mistake == "" && err != nil:
			t.Errorf("%s is refused: %v", tt.more, err)
		case tt.mistake != "" && (err == nil || !strings.Contains(err.Error(), tt.mistake)):
			t.Errorf("%s: %v, want %q", tt.more, err, tt.mistake)
		}
	}
}
