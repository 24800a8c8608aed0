package gateway_test

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// javascript runs the stock SDK for JavaScript against a handler, with nothing set but
// the endpoint and the bearer token.
func javascript(t *testing.T, h http.Handler, token string) []byte {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true // this SDK speaks nothing else to bedrock-runtime
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "call.mjs")
	cmd.Dir = filepath.Join("testdata", "js")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "NODE_EXTRA_CA_CERTS=" + ca,
		"AWS_ENDPOINT_URL_BEDROCK_RUNTIME=" + server.URL, "AWS_BEARER_TOKEN_BEDROCK=" + token}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.String())
	}
	return out
}

// The stock SDK for JavaScript gets through the gateway what it gets without it.
func TestStockJavaScriptSDK(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not here: install it to test with the SDK for JavaScript")
	}
	if _, err := os.Stat(filepath.Join("testdata", "js", "node_modules", "@aws-sdk", "client-bedrock-runtime")); err != nil {
		t.Skip("the SDK for JavaScript is not here: (cd internal/gateway/testdata/js && npm ci)")
	}
	s := newStand(t, nil)
	without := javascript(t, s.world.Handler(), s.direct)
	with := javascript(t, s.gw, s.token)
	if !bytes.Equal(with, without) || bytes.Count(with, []byte("\n")) != 4 {
		t.Errorf("with the gateway:\n%s\nwithout:\n%s", with, without)
	}
	calls := s.world.Calls()
	if len(calls) != 8 {
		t.Fatalf("AWS served %d calls, want 8", len(calls))
	}
	for i, c := range calls[4:] {
		if c.Metadata["team"] != "search" || c.SessionTags["user"] != "user-17" {
			t.Errorf("call %d carries %v and %v", i, c.Metadata, c.SessionTags)
		}
	}
	if records := s.records(t); len(records) != 4 || !records[0].Usage.Known {
		t.Errorf("%d records", len(records))
	}
}
