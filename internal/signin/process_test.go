package signin

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	sdkaws "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// The stock AWS SDK takes its credentials from our process, and two processes that
// start together ask the person once.
func TestCredentialProcess(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the profile's command line is a shell's")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "credentials")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./testdata/credentials").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	p := newProvider(t)
	p.autoLogin = true
	w, endpoint := fakeSTS(t, p, nil)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	profiles := write("profiles.yaml", fmt.Sprintf("profiles:\n  people: {issuer: %s, clientId: %s, role: '%s', region: us-east-1, stsEndpoint: %s, tags: [team]}\n", p.url, clientID, role, endpoint))
	cache := filepath.Join(dir, "cache")

	var wg sync.WaitGroup
	outs := make([]bytes.Buffer, 2)
	for i := range outs {
		wg.Go(func() {
			c := exec.CommandContext(t.Context(), binary, profiles, cache)
			var messages bytes.Buffer
			c.Stdout, c.Stderr = &outs[i], &messages
			if err := c.Run(); err != nil {
				t.Errorf("%v: %s", err, &messages)
			}
		})
	}
	wg.Wait()
	if n := p.asked("authorization_code"); n != 1 || len(w.Assumptions()) != 1 || !bytes.Equal(outs[0].Bytes(), outs[1].Bytes()) {
		t.Errorf("two processes signed in %d times, and made %d sessions", n, len(w.Assumptions()))
	}

	shared := write("config", fmt.Sprintf("[profile people]\nregion = us-east-1\ncredential_process = %s %s %s\n", binary, profiles, cache))
	loaded, err := config.LoadDefaultConfig(t.Context(), config.WithSharedConfigProfile("people"), config.WithSharedConfigFiles([]string{shared}), config.WithSharedCredentialsFiles([]string{}))
	if err != nil {
		t.Fatal(err)
	}
	out, err := sts.NewFromConfig(loaded, func(o *sts.Options) { o.BaseEndpoint = &endpoint }).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	if arn := sdkaws.ToString(out.Arn); arn != principal {
		t.Errorf("AWS sees %s, want %s", arn, principal)
	}
	if c, err := loaded.Credentials.Retrieve(t.Context()); err != nil || !c.CanExpire || c.Source != "ProcessProvider" {
		t.Errorf("%+v, %v", c.Source, err)
	}
	if len(w.Assumptions()) != 1 {
		t.Errorf("%d sessions, want the one that is held", len(w.Assumptions()))
	}
}
