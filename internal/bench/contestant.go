//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/journal"
)

const (
	accessKey = "AKIDEXAMPLEBENCH"
	secretKey = "bench-secret-of-the-stand-in"
	account   = "111122223333"
	user      = "arn:aws:iam::" + account + ":user/gateway"
	role      = "arn:aws:iam::" + account + ":role/bedrock"
)

// A kind is something that can stand between a caller and Bedrock.
type kind struct {
	name  string
	title string // at the head of its column
	signs bool
	// command is the process of it, listening on an address; nil calls Bedrock directly.
	command func(b *bench, c *contestant, listen string) (*exec.Cmd, error)
	// missing says why it cannot take part; empty if it can.
	missing func(b *bench) string
	journal bool // it keeps one, which is held against the calls
}

func kinds() []kind {
	return []kind{
		{name: "direct", title: "direct"},
		{name: "nginx", title: "nginx", command: startNginx, missing: func(b *bench) string {
			if b.nginx == "" {
				return "nginx is not installed (apt-get install nginx-light)"
			}
			return ""
		}},
		{name: "proxy", title: "ReverseProxy", command: startProxy("bare")},
		{name: "sigv4", title: "ReverseProxy + SigV4", signs: true, command: startProxy("sign")},
		{name: "waybilld", title: "waybilld", signs: true, journal: true, command: startWaybilld("")},
		{name: "bearer", title: "waybilld, signing: bearer", signs: true, journal: true, command: startWaybilld("signing: bearer\n")},
	}
}

// A contestant is a kind that takes part, with its own stand-in for Bedrock.
type contestant struct {
	kind
	fake   *fake
	target *target
	dir    string
	cmd    *exec.Cmd
	ended  chan error
	log    bytes.Buffer // what it said on stderr, once it has ended
	token  string
	admin  string // URL of waybilld's own pages
}

func (c *contestant) pid() int {
	if c.cmd == nil {
		return os.Getpid() // of direct calls the cost is the generator's and the stand-in's
	}
	return c.cmd.Process.Pid
}

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start starts the process and makes a first call. It says how long that took.
func (c *contestant) start(ctx context.Context, b *bench, p *plan) (time.Duration, error) {
	c.fake.plan.Store(p)
	if c.command == nil {
		c.target.address = c.fake.address()
		return 0, nil
	}
	listen, err := freeAddress()
	if err != nil {
		return 0, err
	}
	cmd, err := c.command(b, c, listen)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	c.log.Reset()
	cmd.Stderr, cmd.WaitDelay = &c.log, 5*time.Second
	began := time.Now()
	if err := startOn(cmd, b.contestantCPUs, b.ownCPUs); err != nil {
		return 0, fmt.Errorf("start %s: %w", c.name, err)
	}
	c.cmd, c.ended = cmd, make(chan error, 1)
	go func() { c.ended <- cmd.Wait() }()
	c.target.address, c.target.token = listen, c.token
	for {
		caller, err := c.target.dial(p)
		if err == nil {
			number, err := caller.send()
			if err == nil {
				err = caller.receive(number, nil)
			}
			caller.conn.Close()
			took := time.Since(began)
			if err != nil {
				return 0, fmt.Errorf("the first call through %s: %w", c.name, errors.Join(err, c.stop()))
			}
			return took, nil
		}
		select {
		case err := <-c.ended:
			c.cmd = nil
			return 0, fmt.Errorf("%s ended before its first call: %w: %s", c.name, err, lastLines(c.log.Bytes()))
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), c.stop())
		case <-time.After(time.Millisecond):
		}
		if time.Since(began) > 20*time.Second {
			return 0, fmt.Errorf("%s takes no connection: %w", c.name, errors.Join(err, c.stop()))
		}
	}
}

func lastLines(b []byte) []byte { return b[max(0, len(b)-2000):] }

// stop ends the process.
func (c *contestant) stop() error {
	if c.cmd == nil {
		return nil
	}
	process := c.cmd.Process
	c.cmd = nil
	if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	select {
	case err := <-c.ended:
		if exit := (*exec.ExitError)(nil); err != nil && c.journal && errors.As(err, &exit) {
			return fmt.Errorf("%s ended badly: %w: %s", c.name, err, lastLines(c.log.Bytes()))
		}
		return nil
	case <-time.After(40 * time.Second):
		_ = process.Kill() // it may have ended by now
		return fmt.Errorf("%s did not end when it was told to: %w", c.name, <-c.ended)
	}
}

func startProxy(mode string) func(*bench, *contestant, string) (*exec.Cmd, error) {
	return func(_ *bench, c *contestant, listen string) (*exec.Cmd, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), proxyEnv+"="+listen+" http://"+c.fake.address()+" "+mode)
		return cmd, nil
	}
}

const nginxConfig = `daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr error;
worker_rlimit_nofile %[4]d;
events { worker_connections %[5]d; }
http {
  access_log off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  client_body_buffer_size 512k;
  client_max_body_size 25m;
  keepalive_requests 100000000;
  keepalive_timeout 300s;
  tcp_nodelay on;
  upstream bedrock { server %[3]s; keepalive 1024; keepalive_requests 100000000; }
  server {
    listen %[2]s backlog=4096;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 300s;
    location / { proxy_pass http://bedrock; }
    location ~ -stream$ { proxy_pass http://bedrock; proxy_buffering off; }
  }
}
`

func startNginx(b *bench, c *contestant, listen string) (*exec.Cmd, error) {
	file := filepath.Join(c.dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, c.dir, listen, c.fake.address(), 2*b.streams+100,
		3*b.streams+100) // it drops connections without a request when a sixteenth is left
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return exec.Command(b.nginx, "-p", c.dir, "-c", file, "-e", "stderr"), nil
}

// benchPolicy has eight keys, three rules, a pseudonym, and screening of every value.
const benchPolicy = `version: 1
session: {name: '{user}'}
tags:
  keys:
    team: {required: true, values: [search, ads, checkout, platform], foldCase: true, keyAliases: [squad], carriers: [session, request]}
    environment: {required: true, values: [production, staging, development], aliases: {prod: production, dev: development}, carriers: [session, request]}
    costCenter: {required: true, pattern: 'CC-\d{4}', carriers: [session, request]}
    user: {from: caller.subject, required: true, transform: hmac, carriers: [session, request]}
    application: {required: true, values: [catalog-search, cart-helper, code-review], carriers: [session, request]}
    feature: {carriers: [request]}
    retentionDays: {range: {min: 1, max: 365}, default: 30, carriers: [request]}
    promptVersion: {pattern: 'v\d+(\.\d+)*', default: v0, carriers: [request]}
  rules:
    - {name: production is booked, when: {environment: production}, require: [costCenter]}
    - {name: checkout runs its own, when: {environment: production, team: checkout}, require: [application], allow: {application: [cart-helper]}}
    - {name: large models are for production, when: {model: 'anthropic.claude-opus-*', not: {team: platform}}, allow: {environment: [production]}, mode: warn}
`

// startWaybilld has everything on: a gateway key, the policy, the strict splice, a role
// session from the cache, the signature, the meter, and a journal that is synced before
// the first byte of an answer passes on.
func startWaybilld(more string) func(*bench, *contestant, string) (*exec.Cmd, error) {
	return func(b *bench, c *contestant, listen string) (*exec.Cmd, error) {
		admin, err := freeAddress()
		if err != nil {
			return nil, err
		}
		config := fmt.Sprintf(`name: bench
listen: %s
admin: %s
region: us-east-1
policy: policy.yaml
hashKey: a secret of the bench that hashes for it alone
callers: {keys: keys.jsonl}
credentials: {accessKeyId: %s, secretAccessKey: %s}
upstream: {bedrock-runtime: 'http://%s', sts: '%s'}
roles: [{assume: '%s'}]
journal: {dir: journal}
%s`, listen, admin, accessKey, secretKey, c.fake.address(), b.sts, role, more)
		err = errors.Join(os.WriteFile(filepath.Join(c.dir, "policy.yaml"), []byte(benchPolicy), 0o600),
			os.WriteFile(filepath.Join(c.dir, "waybilld.yaml"), []byte(config), 0o600))
		if err != nil {
			return nil, err
		}
		if c.token == "" {
			keys, err := identity.OpenKeys(filepath.Join(c.dir, "keys.jsonl"))
			if err != nil {
				return nil, err
			}
			if c.token, _, err = keys.Create(identity.Key{Subject: "user-17", Tags: waybill.TagsFromMap(map[string]string{"team": "checkout", "costCenter": "CC-2001"})}); err != nil {
				return nil, err
			}
		}
		c.admin = "http://" + admin
		return exec.Command(b.waybilld, "--config", filepath.Join(c.dir, "waybilld.yaml")), nil
	}
}

// checkJournal holds the journal against the calls that were made: each is closed once,
// as completed, with its usage, and names a session.
func (c *contestant) checkJournal() (int, error) {
	calls := c.target.sent.Load()
	seen := make([]bool, calls+1)
	segments, err := journal.Segments(filepath.Join(c.dir, "journal"))
	if err != nil {
		return 0, err
	}
	closed := 0
	for _, s := range segments {
		n, err := checkSegment(s.Path, seen)
		if err != nil {
			return 0, fmt.Errorf("journal of %s: %w", c.name, err)
		}
		closed += n
	}
	if int64(closed) != calls {
		return closed, fmt.Errorf("journal of %s: %d calls are closed in it, of %d that were made", c.name, closed, calls)
	}
	return closed, nil
}

func checkSegment(path string, seen []bool) (closed int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r, err := journal.NewReader(f)
	if err != nil {
		return 0, err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return closed, nil
		}
		if err != nil {
			return closed, err
		}
		if e.Kind != waybill.Closed {
			continue
		}
		v := &e.Invocation
		digitsOf, ok := strings.CutPrefix(v.RequestID, requestID)
		if !ok || len(digitsOf) != digits {
			return closed, fmt.Errorf("a call under the request id %q", v.RequestID)
		}
		n, _ := readNumber([]byte(digitsOf))
		if n < 1 || n >= int64(len(seen)) || seen[n] {
			return closed, fmt.Errorf("call %d is closed twice, or was never made", n)
		}
		seen[n] = true
		if v.Outcome != waybill.Completed || !v.Usage.Known || v.Usage.Of(waybill.Input) != 240 || v.Tags.Len() < 8 {
			return closed, fmt.Errorf("call %d is closed as %s, usage %v, %d tags", n, v.Outcome, v.Usage, v.Tags.Len())
		}
		closed++
	}
}

// newWorld is the strict stand-in: it gives the role sessions, and verifies samples.
func newWorld() *fakeaws.World {
	return fakeaws.NewWorld(fakeaws.Config{Regions: []string{"us-east-1"},
		Users: []fakeaws.User{{ARN: user, AccessKeyID: accessKey, SecretAccessKey: secretKey}},
		Roles: []fakeaws.Role{{ARN: role, Trusted: []string{user}}}})
}
