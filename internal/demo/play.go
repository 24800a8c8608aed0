package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// Options say how the month is played.
type Options struct {
	Dir      string // where everything is kept
	Waybilld string // path of the gateway program
	Month    time.Time
	Clean    bool // plant no differences
	Seed     uint64
	Calls    int // 0 means 2,400
	// NewKey makes a gateway key in the key file and returns its only showing.
	NewKey func(file, subject string, tags map[string]string) (string, error)
	// Progress is told how many of the calls are made.
	Progress func(done, of int)
}

// A Planted difference is one that the ledger must find.
type Planted struct {
	Bucket string // as the reconciliation names it
	Amount *big.Rat
	What   string
}

// A Result is the month that was played.
type Result struct {
	Planted []Planted
	Bill    fakeaws.Summary
	Served  int    // calls that AWS served
	Refused int    // calls that the gateway refused
	HungUp  int    // calls whose client left
	Gateway string // URL of the gateway, while it runs
	Token   string // a key to try it with
	stop    func() error
}

// Stop ends the gateway and the stand-in for AWS.
func (r *Result) Stop() error { return r.stop() }

const (
	account     = "111122223333"
	gatewayUser = "arn:aws:iam::" + account + ":user/waybill-gateway"
	gatewayRole = "arn:aws:iam::" + account + ":role/waybill/bedrock"
	legacyUser  = "arn:aws:iam::" + account + ":user/legacy-batch"
	labUser     = "arn:aws:iam::" + account + ":user/lab-notebook"
)

// A play is a month being played.
type play struct {
	o       Options
	random  *rand.Rand
	world   *fakeaws.World
	aws     string // URL of the stand-in
	gateway string // URL of the gateway
	client  *http.Client
	people  []person

	mu      sync.Mutex      // guards below
	hungUp  map[string]bool // request ids
	refused int
	failure error
}

// Play lets the month pass and writes down its logs and its bill.
func Play(ctx context.Context, o Options) (*Result, error) {
	if o.Calls == 0 {
		o.Calls = 2400
	}
	o.Month = time.Date(o.Month.Year(), o.Month.Month(), 1, 0, 0, 0, 0, time.UTC)
	p := &play{o: o, random: rand.New(rand.NewPCG(o.Seed, 17)), hungUp: make(map[string]bool),
		client: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}}}
	secret := fmt.Sprintf("demo-%x", p.random.Uint64())
	p.world = fakeaws.NewWorld(fakeaws.Config{World: o.Month, Scale: 613, Regions: []string{regionUS, regionEU, regionUnlogged},
		Users: []fakeaws.User{{ARN: gatewayUser, AccessKeyID: "AKIDEXAMPLEGATEWAY", SecretAccessKey: secret},
			{ARN: legacyUser, AccessKeyID: "AKIDEXAMPLELEGACY", SecretAccessKey: secret, BearerToken: "legacy-" + secret},
			{ARN: labUser, AccessKeyID: "AKIDEXAMPLELAB", SecretAccessKey: secret, BearerToken: "lab-" + secret}},
		Roles: []fakeaws.Role{{ARN: gatewayRole, Trusted: []string{gatewayUser}}},
		PaceFor: func(c fakeaws.Call) time.Duration { // slow enough to hang up on
			if !o.Clean && c.Region == regionUnlogged && c.Operation == "ConverseStream" && strings.Contains(string(c.RequestBody), hangUpMark) {
				return 20 * time.Millisecond
			}
			return 0
		}})
	url, stopAWS, err := p.world.Serve()
	if err != nil {
		return nil, err
	}
	p.aws = url
	if err := p.writeFiles(secret); err != nil {
		stopAWS()
		return nil, err
	}
	stopGateway, err := p.startGateway(ctx)
	if err != nil {
		stopAWS()
		return nil, err
	}
	stop := sync.OnceValue(func() error { err := stopGateway(); stopAWS(); return err })
	if err := p.live(ctx); err != nil {
		return nil, errors.Join(err, stop())
	}
	r, err := p.settle()
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	r.Gateway, r.Token, r.stop = p.gateway, p.people[0].token, stop
	return r, nil
}

// writeFiles writes the configuration, the policy, the keys and the rate card.
func (p *play) writeFiles(secret string) error {
	dir := p.o.Dir
	for _, d := range []string{"journal", "lake", "aws/logs", "aws/cur"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	config := fmt.Sprintf(`name: demo
listen: 127.0.0.1:0
admin: 127.0.0.1:0
region: %s
regions: [%s, %s, %s]
policy: policy.yaml
callers: {keys: keys.jsonl}
credentials: {accessKeyId: AKIDEXAMPLEGATEWAY, secretAccessKey: %s}
upstream: {bedrock-runtime: '%s', sts: '%s'}
roles:
  - {assume: '%s'}
journal: {dir: journal, segmentAge: 10s}
drain: {mode: cut}
`, regionUS, regionUS, regionEU, regionUnlogged, secret, p.aws, p.aws, gatewayRole)
	err := errors.Join(os.WriteFile(filepath.Join(dir, "waybilld.yaml"), []byte(config), 0o600),
		os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(Policy), 0o644))
	keys := filepath.Join(dir, "keys.jsonl")
	for i := range people {
		t := teams[i%len(teams)]
		token, keyErr := p.o.NewKey(keys, subject(i), map[string]string{"team": t.name, "costCenter": t.costCenter})
		err = errors.Join(err, keyErr)
		p.people = append(p.people, person{subject(i), t.name, t.costCenter, token})
	}
	return errors.Join(err, p.writeRates())
}

// prices are what this AWS charges. In mid-month one price goes up, and the company's
// rate card does not know.
func (p *play) prices() fakeaws.Prices {
	if p.o.Clean {
		return fakeaws.Prices{}
	}
	return fakeaws.Prices{Changes: []fakeaws.Change{{Model: haiku, Scope: "plain", Kind: "output", Amount: "6.05", From: p.o.Month.AddDate(0, 0, 14)}}}
}

func (p *play) writeRates() error {
	var b strings.Builder
	b.WriteString("# The rate card of the demo: the stand-in's price list, as the company has copied it.\nmodel,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source\n")
	for _, price := range (fakeaws.Prices{}).All(p.o.Month.AddDate(-1, 0, 0)) {
		fmt.Fprintf(&b, "%s,*,%s,%s,%s,,%d,%s,USD,%s,,price list of the demo\n", price.Model, price.Scope, price.Kind, price.Tier, price.Per, price.Amount, price.From.Format("2006-01-02"))
	}
	return os.WriteFile(filepath.Join(p.o.Dir, "rates.csv"), []byte(b.String()), 0o644)
}

// startGateway starts the real gateway and waits until it takes calls.
func (p *play) startGateway(ctx context.Context) (stop func() error, err error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.o.Waybilld, "--config", filepath.Join(p.o.Dir, "waybilld.yaml"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the gateway: %w", err)
	}
	ready := make(chan string, 1)
	log, err := os.Create(filepath.Join(p.o.Dir, "waybilld.log"))
	if err != nil {
		return nil, err
	}
	go func() {
		defer log.Close()
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			fmt.Fprintln(log, lines.Text())
			var l struct{ Msg, Listen string }
			if json.Unmarshal(lines.Bytes(), &l) == nil && l.Msg == "waybilld is ready" {
				ready <- l.Listen
			}
		}
		close(ready)
	}()
	stop = func() error {
		// Ctrl-C on a terminal reaches the gateway by itself.
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return cmd.Wait()
	}
	select {
	case address, ok := <-ready:
		if !ok {
			return nil, fmt.Errorf("the gateway did not start: see %s", log.Name())
		}
		p.gateway = "http://" + address
		return stop, nil
	case <-time.After(20 * time.Second):
		return nil, errors.Join(errors.New("the gateway did not start within 20 seconds"), stop())
	}
}

const hangUpMark = "and then I left"

// live makes the month's calls, in the order of its days.
func (p *play) live(ctx context.Context) error {
	month := p.o.Month.AddDate(0, 1, 0).Sub(p.o.Month)
	const together = 12
	var done atomic.Int64
	for first := 0; first < p.o.Calls; first += together {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.world.SetNow(p.o.Month.Add(month / time.Duration(p.o.Calls) * time.Duration(first)))
		var wg sync.WaitGroup
		for i := first; i < min(first+together, p.o.Calls); i++ {
			a := p.next(i)
			wg.Go(func() {
				if err := p.make(ctx, a); err != nil {
					p.mu.Lock()
					p.failure = errors.Join(p.failure, err)
					p.mu.Unlock()
				}
				done.Add(1)
			})
		}
		wg.Wait()
		p.o.Progress(int(done.Load()), p.o.Calls)
		if p.failure != nil {
			return p.failure
		}
	}
	return nil
}

// next is the call to be made at a place in the month.
func (p *play) next(i int) ask {
	a := everyday(p.random, p.people[p.random.IntN(people)])
	switch {
	case i%97 == 50: // a tag that the policy does not take
		a.tags, a.refused = "application=catalog-search,environment=moon", true
	case i%131 == 60: // a tag that is missing
		a.tags, a.refused = "environment=production", true
	case p.o.Clean:
	case i%60 == 30: // a batch job that nobody moved to the gateway
		a = ask{region: regionUS, operation: "converse", model: llama, directBearer: "legacy",
			body: fmt.Sprintf(`{"messages":[{"role":"user","content":[{"text":"nightly batch %x"}]}]}`, p.random.Uint64())}
	case i%150 == 75: // a notebook in the Region that nobody logs
		a = ask{region: regionUnlogged, operation: "converse", model: llama, directBearer: "lab",
			body: fmt.Sprintf(`{"messages":[{"role":"user","content":[{"text":"lab notebook %x"}]}]}`, p.random.Uint64())}
	case i%200 == 110: // somebody hangs up where no log will tell the rest
		a.region, a.operation, a.model, a.hangUp = regionUnlogged, "converse-stream", lite, true
		a.body = fmt.Sprintf(`{"messages":[{"role":"user","content":[{"text":"%s %x"}]}]}`, hangUpMark, p.random.Uint64())
	}
	return a
}

// make makes one call.
func (p *play) make(ctx context.Context, a ask) error {
	base := p.gateway
	if a.directBearer != "" {
		base = p.aws
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/model/"+strings.ReplaceAll(a.model, ":", "%3A")+"/"+a.operation, strings.NewReader(a.body))
	if err != nil {
		return err
	}
	r.Host = "bedrock-runtime." + a.region + ".demo.local"
	r.Header.Set("Content-Type", "application/json")
	if a.directBearer != "" {
		r.Header.Set("Authorization", "Bearer "+p.bearer(a.directBearer))
	} else {
		r.Header.Set("Authorization", "Bearer "+a.who.token)
		r.Header.Set("X-Waybill-Tags", a.tags)
	}
	answer, err := p.client.Do(r)
	if err != nil {
		return fmt.Errorf("call %s: %w", a.operation, err)
	}
	defer answer.Body.Close()
	if a.hangUp {
		if _, err := io.ReadFull(answer.Body, make([]byte, 16)); err != nil {
			return err
		}
		p.mu.Lock()
		p.hungUp[answer.Header.Get("x-amzn-RequestId")] = true
		p.mu.Unlock()
		return nil // the deferred cancel hangs up
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", a.operation, err)
	}
	if a.refused != (answer.StatusCode == http.StatusForbidden) || !a.refused && answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of %s was answered with %d: %s", a.operation, a.model, answer.StatusCode, body)
	}
	if a.refused {
		p.mu.Lock()
		p.refused++
		p.mu.Unlock()
	}
	return nil
}

func (p *play) bearer(who string) string {
	config, err := os.ReadFile(filepath.Join(p.o.Dir, "waybilld.yaml"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(config), "secretAccessKey: ")
	secret, _, _ := strings.Cut(rest, "}")
	return who + "-" + secret
}
