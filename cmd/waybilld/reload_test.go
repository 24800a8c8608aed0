package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/identity"
)

// A reload takes policy, targets and callers, or nothing: the old ones stay where
// anything is wrong, and a metric says so until it is put right.
func TestReload(t *testing.T) {
	dir, token := home(t, "http://127.0.0.1:1")
	file := filepath.Join(dir, "waybilld.yaml")
	c, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	who := new(whoCalls)
	if err := who.change(t.Context(), c.callers); err != nil {
		t.Fatal(err)
	}
	defer who.Close()
	g := &gateway.Gateway{Callers: who}
	g.Reload(&c.gateway)
	registry := prometheus.NewRegistry()
	r := newReloader(file, c, g, who, new(listenerTLS), slog.New(slog.DiscardHandler), registry)
	failed := func() float64 {
		var m dto.Metric
		if err := r.failed.Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetGauge().GetValue()
	}
	knows := func(token string) bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		_, err = who.Authenticate(request)
		return err == nil
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := identity.OpenKeys(filepath.Join(dir, "other.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := keys.Create(identity.Key{Subject: "user-2"})
	if err != nil {
		t.Fatal(err)
	}
	first := g.Policy().Version()

	write("policy.yaml", testPolicy+"    feature: {}\n")
	write("waybilld.yaml", strings.Replace(string(good), "keys.jsonl", "other.jsonl", 1)+"listn: x\n")
	r.reload(t.Context())
	if g.Policy().Version() != first || failed() != 1 || !knows(token) || knows(other) {
		t.Error("a bad configuration was taken, in part at least")
	}
	write("waybilld.yaml", strings.Replace(string(good), "keys.jsonl", "policy.yaml", 1))
	r.reload(t.Context())
	if g.Policy().Version() != first || failed() != 1 || !knows(token) {
		t.Error("a policy was taken although the callers cannot be")
	}
	write("waybilld.yaml", strings.Replace(string(good), "keys.jsonl", "other.jsonl", 1))
	r.reload(t.Context())
	if g.Policy().Version() == first || failed() != 0 || knows(token) || !knows(other) {
		t.Error("a good configuration was not taken")
	}
}

// The authorities that an issuer is verified with are part of the callers: others in the
// same file are taken by a reload.
func TestAuthoritiesAreReloaded(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	file := filepath.Join(dir, "waybilld.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	more := "callers: {keys: keys.jsonl, oidc: [{issuer: 'https://id.example.com', audiences: [waybill], ca: server.pem}]}"
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "callers: {keys: keys.jsonl}", more, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	writePair(t, dir, 1)
	first, err := readConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := readConfig(file)
	if err != nil || !reflect.DeepEqual(first.callers, again.callers) {
		t.Errorf("the same callers differ, %v", err)
	}
	writePair(t, dir, 2)
	second, err := readConfig(file)
	if err != nil || reflect.DeepEqual(first.callers, second.callers) {
		t.Errorf("other authorities make no other callers, %v", err)
	}
	if !slices.Contains(second.files, filepath.Join(dir, "server.pem")) {
		t.Errorf("the authorities are not watched: %v", second.files)
	}
}

// A change of any file that the configuration is read from is told once.
func TestWatch(t *testing.T) {
	dir, _ := home(t, "http://127.0.0.1:1")
	const rates = "model,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source\n"
	for name, text := range map[string]string{"rates.csv": rates, "more.yaml": "keys: {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readWith(t, dir, "rates: rates.csv\nreload: watch\nhashKey: file:"+secret+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if !c.watch || len(c.files) != 4 || !slices.Contains(c.files, secret) {
		t.Fatalf("watch is %v, the files are %v", c.watch, c.files)
	}
	before := digest(c.files)
	if digest(c.files) != before {
		t.Error("the digest of the same files differs")
	}
	for _, name := range c.files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, append(src, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		if now := digest(c.files); now == before {
			t.Errorf("a change of %s does not show", name)
		} else {
			before = now
		}
	}
	if err := os.Remove(c.files[0]); err != nil {
		t.Fatal(err)
	}
	if digest(c.files) == before {
		t.Error("a file that is gone does not show")
	}
}

// With reload: watch a new policy is in force without a signal.
func TestWatchedReload(t *testing.T) {
	path := program(t)
	_, aws := world(t, fakeaws.Config{})
	dir, token := home(t, aws)
	file := filepath.Join(dir, "waybilld.yaml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(good, "reload: watch\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	_, url, admin := start(t, path, dir)
	if _, ok := call(t.Context(), http.DefaultClient, url, token, "converse"); !ok {
		t.Fatal("the first call failed")
	}
	metrics := func() string {
		a, err := http.Get(admin + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for !holds() {
			if ctx.Err() != nil {
				t.Fatal(what)
			}
			runtimeYield()
		}
	}
	change := func(policy string) {
		if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change("version: 1\ntags: {keys: {team: {requird: true}}}\n")
	until("a bad policy does not show in the metric", func() bool { return strings.Contains(metrics(), "waybill_config_reload_failed 1\n") })
	if _, ok := call(t.Context(), http.DefaultClient, url, token, "converse"); !ok {
		t.Error("a bad policy was taken")
	}
	change("version: 1\ntags: {keys: {project: {required: true}}}\n")
	until("the new policy was not taken", func() bool {
		_, ok := call(t.Context(), http.DefaultClient, url, token, "converse")
		return !ok
	})
	until("the metric still says that a policy is refused", func() bool { return strings.Contains(metrics(), "waybill_config_reload_failed 0\n") })
}
