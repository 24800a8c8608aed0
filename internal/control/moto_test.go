package control

import (
	"bufio"
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

const motoDeclared = `
version: 1
accounts: [{id: "123456789012", regions: [us-east-1, eu-west-1]}]
logging: {bucket: "acme-logs-{account}-{region}", prefix: bedrock, retention: 400, bodies: withhold}
gateway:
  principals: ["arn:aws:iam::123456789012:role/waybill/gateway"]
  session: 7200
  roles: [{arn: "arn:aws:iam::123456789012:role/bedrock/production", tags: {environment: production}}]
`

// startMoto starts moto's server, a stand-in for AWS that is none of ours.
func startMoto(t *testing.T) (url string) {
	t.Helper()
	path, err := exec.LookPath("moto_server")
	if err != nil {
		t.Skip("moto_server is not on this machine: pip install -r internal/control/testdata/moto-requirements.txt")
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, path, "-H", "127.0.0.1", "-p", "0")
	out, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout = nil
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.Wait() // it was killed
	})
	running := regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)
	found := make(chan string, 1)
	go func() { // it ends with the server
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := running.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
		close(found)
	}()
	url, ok := <-found
	if !ok {
		t.Fatal("moto_server ended before it listened")
	}
	return url
}

// What setup makes is there for a stand-in that others wrote, and what that does not know
// is unknown.
func TestAgainstMoto(t *testing.T) {
	url := startMoto(t)
	d, err := ReadDeclaration("moto.yaml", []byte(motoDeclared), nil)
	if err != nil {
		t.Fatal(err)
	}
	access := NewAccess(aws.Config{Region: "us-east-1", BaseEndpoint: &url, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("testing", "testing", "")}, d)
	access.PathStyle = true
	judge := func() []Finding {
		s, err := Observe(t.Context(), access, Observation{Declaration: d, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		return (&Inquiry{Snapshot: s, Declaration: d}).Judge()
	}
	made := []string{"logging-on", "log-bucket", "log-retention", "log-bodies", "role-trust", "role-tags", "role-session"}
	before := judge()
	for _, control := range []string{"logging-on", "role-trust"} {
		if len(of(before, control, Fails)) == 0 {
			t.Errorf("%s holds in an empty account:%s", control, show(of(before, control, Unknown)))
		}
	}
	steps := Plan(before)
	if err := Apply(t.Context(), access.ForChanges(), steps, time.Now, func(Change) error { return nil }); err != nil {
		t.Fatal(err)
	}
	after := judge()
	for _, control := range made {
		if len(of(after, control, Holds)) == 0 || len(of(after, control, Fails))+len(of(after, control, Unknown)) > 0 {
			t.Errorf("%s after setup:%s", control, show(append(of(after, control, Fails), of(after, control, Unknown)...)))
		}
	}
	for _, s := range Plan(after) {
		t.Errorf("a second run would: %s", s.Words)
	}
	for _, f := range after {
		if f.Status == Unknown && strings.TrimSpace(f.Message) == "" {
			t.Errorf("%s is unknown, and nobody says why", f.Control)
		}
	}
	t.Logf("not known to moto:%s", show(of(after, "billing-export", Unknown)))
}
