package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/journal"
)

// program builds waybilld as it ships: static, without cgo.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "waybilld")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return path
}

const testPolicy = `version: 1
tags:
  keys:
    team: {required: true, values: [search], carriers: [session, request]}
`

// home is a folder with everything that a gateway needs.
func home(t *testing.T, aws string) (dir, token string) {
	t.Helper()
	dir = t.TempDir()
	files := map[string]string{"policy.yaml": testPolicy, "waybilld.yaml": fmt.Sprintf(`listen: 127.0.0.1:0
admin: 127.0.0.1:0
region: us-east-1
policy: policy.yaml
callers: {keys: keys.jsonl}
credentials: {accessKeyId: AKIDEXAMPLEGATEWAY, secretAccessKey: secret}
upstream: {bedrock-runtime: '%[1]s', sts: '%[1]s'}
roles: [{assume: 'arn:aws:iam::111122223333:role/bedrock'}]
journal: {dir: journal, segmentBytes: 20000}
`, aws)}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := identity.OpenKeys(filepath.Join(dir, "keys.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	token, _, err = keys.Create(identity.Key{Subject: "user-17", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"})})
	if err != nil {
		t.Fatal(err)
	}
	return dir, token
}

// start starts waybilld and gives its URLs once it takes calls.
func start(t *testing.T, path, dir string) (cmd *exec.Cmd, url, admin string) {
	t.Helper()
	cmd = exec.Command(path, "--config", filepath.Join(dir, "waybilld.yaml"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var l struct{ Msg, Listen, Admin string }
		if json.Unmarshal(lines.Bytes(), &l) == nil && l.Listen != "" {
			go io.Copy(io.Discard, stderr)
			return cmd, "http://" + l.Listen, "http://" + l.Admin
		}
	}
	t.Fatal("waybilld did not start")
	return nil, "", ""
}

func world(t *testing.T, c fakeaws.Config) (*fakeaws.World, string) {
	t.Helper()
	c.Regions = []string{"us-east-1"}
	c.Users = []fakeaws.User{{ARN: "arn:aws:iam::111122223333:user/gateway", AccessKeyID: "AKIDEXAMPLEGATEWAY", SecretAccessKey: "secret"}}
	c.Roles = []fakeaws.Role{{ARN: "arn:aws:iam::111122223333:role/bedrock", Trusted: []string{c.Users[0].ARN}}}
	w := fakeaws.NewWorld(c)
	url, stop, err := w.Serve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return w, url
}

func call(ctx context.Context, client *http.Client, url, token, action string) (id string, whole bool) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/model/amazon.nova-lite-v1%3A0/"+action, strings.NewReader(`{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`))
	if err != nil {
		return "", false
	}
	r.Header.Set("Authorization", "Bearer "+token)
	a, err := client.Do(r)
	if err != nil {
		return "", false
	}
	defer a.Body.Close()
	_, err = io.Copy(io.Discard, a.Body)
	return a.Header.Get("x-amzn-RequestId"), err == nil && a.StatusCode == 200
}

// journalled counts the closed entries of each call, by AWS's request id where there is
// one; interrupted calls have none.
func journalled(t *testing.T, dir string) (completed map[string]int, interrupted int) {
	t.Helper()
	if _, err := journal.Recover(dir); err != nil {
		t.Fatal(err)
	}
	segments, err := journal.Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	completed = make(map[string]int)
	ids := make(map[string]int)
	for _, s := range segments {
		f, err := os.Open(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := journal.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", s.Path, err)
			}
			if e.Kind != waybill.Closed {
				continue
			}
			if ids[e.Invocation.CallID]++; ids[e.Invocation.CallID] > 1 {
				t.Errorf("call %s is closed twice", e.Invocation.CallID)
			}
			if e.Invocation.Outcome == waybill.Interrupted {
				interrupted++
				if e.Invocation.Usage.Known {
					t.Error("an interrupted call has known usage")
				}
				continue
			}
			completed[e.Invocation.RequestID]++
		}
	}
	return completed, interrupted
}

// A gateway that is killed under load, ten times at random instants, has every call in
// its journal whose answer arrived whole, none twice, and those cut short as interrupted.
func TestKilledUnderLoad(t *testing.T) {
	path := program(t)
	w, aws := world(t, fakeaws.Config{Pace: time.Millisecond, Latency: 2 * time.Millisecond})
	dir, token := home(t, aws)
	var mu sync.Mutex
	whole := make(map[string]bool)
	cut := 0
	for range 10 {
		cmd, url, _ := start(t, path, dir)
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for ctx.Err() == nil {
					id, ok := call(ctx, client, url, token, []string{"converse", "converse-stream"}[i%2])
					mu.Lock()
					if ok {
						whole[id] = true
					} else {
						cut++
					}
					mu.Unlock()
					if !ok {
						return
					}
				}
			})
		}
		timer := time.NewTimer(time.Duration(50+rand.IntN(250)) * time.Millisecond)
		<-timer.C
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		cmd.Wait() // it was killed
		cancel()
		wg.Wait()
	}
	completed, interrupted := journalled(t, filepath.Join(dir, "journal"))
	for id := range whole {
		if completed[id] != 1 {
			t.Errorf("call %s arrived whole and is in the journal %d times", id, completed[id])
		}
	}
	served := make(map[string]bool)
	for _, c := range w.Calls() {
		served[c.RequestID] = true
	}
	for id := range completed {
		if id != "" && !served[id] {
			t.Errorf("call %s is in the journal and AWS never served it", id)
		}
	}
	if len(whole) < 100 || interrupted == 0 {
		t.Errorf("%d calls arrived whole and %d were interrupted: the load was no load", len(whole), interrupted)
	}
	t.Logf("%d calls arrived whole, %d were cut, %d are interrupted in the journal", len(whole), cut, interrupted)
}

// SIGTERM finishes the calls under way; SIGHUP takes a new policy and refuses a bad one.
func TestSignals(t *testing.T) {
	path := program(t)
	_, aws := world(t, fakeaws.Config{Pace: 30 * time.Millisecond})
	dir, token := home(t, aws)
	cmd, url, admin := start(t, path, dir)
	get := func(page string) (int, string) {
		a, err := http.Get(admin + page)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, _ := io.ReadAll(a.Body)
		return a.StatusCode, string(b)
	}
	if code, text := get("/readyz"); code != 200 {
		t.Fatalf("readyz: %d %s", code, text)
	}
	if _, ok := call(t.Context(), http.DefaultClient, url, token, "converse"); !ok {
		t.Fatal("the first call failed")
	}
	if code, text := get("/metrics"); code != 200 || !strings.Contains(text, "gen_ai_client_token_usage_sum") {
		t.Errorf("metrics: %d", code)
	}
	change := func(policy string) {
		if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	change("version: 1\ntags: {keys: {team: {requird: true}}}\n")
	if _, ok := call(t.Context(), http.DefaultClient, url, token, "converse"); !ok {
		t.Error("a bad policy was taken")
	}
	change("version: 1\ntags: {keys: {project: {required: true}}}\n")
	refused := false
	for range 100 {
		if _, ok := call(t.Context(), http.DefaultClient, url, token, "converse"); !ok {
			refused = true
			break
		}
	}
	if !refused {
		t.Error("the new policy was not taken")
	}
	change(testPolicy)
	for range 100 {
		if _, ok := call(t.Context(), http.DefaultClient, url, token, "converse"); ok {
			break
		}
	}
	done := make(chan bool)
	began := make(chan struct{})
	go func() {
		close(began)
		_, ok := call(t.Context(), http.DefaultClient, url, token, "converse-stream")
		done <- ok
	}()
	<-began
	for range 1000 { // until the call is under way
		if segments, _ := filepath.Glob(filepath.Join(dir, "journal", "*.open")); len(segments) > 0 {
			if b, err := os.ReadFile(segments[0]); err == nil && strings.Count(string(b), `"ConverseStream"`) > 0 {
				break
			}
		}
		runtimeYield()
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if !<-done {
		t.Error("a call under way was cut by SIGTERM")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("waybilld ended with %v", err)
	}
	completed, interrupted := journalled(t, filepath.Join(dir, "journal"))
	if interrupted != 0 || len(completed) < 4 {
		t.Errorf("%d completed, %d interrupted", len(completed), interrupted)
	}
}

// The bound of a key's values holds over a kill -9 and over a reload.
func TestBoundSurvivesKill(t *testing.T) {
	path := program(t)
	w, aws := world(t, fakeaws.Config{})
	dir, token := home(t, aws)
	const policy = "version: 1\ntags:\n  keys:\n    team: {required: true, values: [search], carriers: [session, request]}\n    feature: {maxDistinct: {limit: 3, action: other}}\n"
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	send := func(url, feature string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", url+"/model/amazon.nova-lite-v1:0/converse", strings.NewReader(`{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("X-Waybill-Tags", "feature="+feature)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		if text, _ := io.ReadAll(a.Body); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, text)
		}
		calls := w.Calls()
		return calls[len(calls)-1].Metadata["feature"]
	}
	cmd, url, _ := start(t, path, dir)
	for i := range 3 {
		if got, want := send(url, fmt.Sprint("f", i)), fmt.Sprint("f", i); got != want {
			t.Fatalf("feature %d is %s", i, got)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	_, url, admin := start(t, path, dir)
	if got := send(url, "f9"); got != "other" {
		t.Errorf("after a kill the fourth value is %s", got)
	}
	if got := send(url, "f1"); got != "f1" {
		t.Errorf("after a kill a known value is %s", got)
	}
	a, err := http.Get(admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	text, _ := io.ReadAll(a.Body)
	for _, want := range []string{`waybill_tag_distinct_values{key="feature"} 3`, `waybill_tag_distinct_limit{key="feature"} 3`, `waybill_tag_values_beyond_limit_total{key="feature"} 1`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// Numbers are whole and decimal, and nothing follows them: a unit that is not read would
// be one that somebody relied on.
func TestNumbers(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	file := filepath.Join(dir, "waybilld.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"64MiB", "0x10", "1_000", "1e6", "1.5", "-1", "0", ".inf", "''", "10 000"} {
		if err := os.WriteFile(file, []byte(strings.Replace(string(good), "20000", text, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(file); err == nil || !strings.Contains(err.Error(), "is not a number") {
			t.Errorf("segmentBytes: %s is taken (%v)", text, err)
		}
	}
}

// A role's transitive keys are keys that its session can have.
func TestTransitiveKeys(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	file := filepath.Join(dir, "waybilld.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for key, right := range map[string]bool{"team": true, "Team": false, "taem": false} {
		text := strings.Replace(string(good), "role/bedrock'", "role/bedrock', transitive: ["+key+"]", 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(file); (err == nil) != right || !right && !strings.Contains(err.Error(), "is no tag key that rides on the session") {
			t.Errorf("transitive: [%s]: %v", key, err)
		}
	}
}

// What is unwise in a policy is told when it is put in force, not only when it is checked.
func TestWarningsAreLogged(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte("tags: {keys: {feature: {carriers: [session]}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(filepath.Join(dir, "waybilld.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	warn(slog.New(slog.NewTextHandler(&text, nil)), c)
	if !strings.Contains(text.String(), "nothing bounds its values") {
		t.Errorf("the log says %q", text.String())
	}
}

func runtimeYield() { time.Sleep(time.Millisecond) }

// Every mistake of a configuration is told at once, with its place, and nothing starts.
func TestCheck(t *testing.T) {
	path := program(t)
	dir, _ := home(t, "http://127.0.0.1:1")
	good := exec.Command(path, "--config", filepath.Join(dir, "waybilld.yaml"), "--check")
	if out, err := good.CombinedOutput(); err != nil || !strings.Contains(string(out), "declares 1 keys") {
		t.Errorf("a good configuration: %v\n%s", err, out)
	}
	bad := filepath.Join(dir, "bad.yaml")
	text := "listn: x\nregion: us-east-1\npolicy: policy.yaml\ncallers: {keys: keys.jsonl}\nroles: [{assume: role}]\ndrain: {mode: never}\ncredentials: {secretAccessKey: '${NO_SUCH_VARIABLE}'}\n"
	if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "--config", bad, "--check").CombinedOutput()
	if err == nil {
		t.Fatal("a bad configuration was taken")
	}
	for _, want := range []string{`bad.yaml:1:1: unknown key "listn"`, `bad.yaml:5:18: "role" is not the ARN of a role`, `bad.yaml:6:15: "never" is not known here`, "NO_SUCH_VARIABLE is not set", "lacks journal.dir"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
}
