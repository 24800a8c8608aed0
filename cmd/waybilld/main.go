// Waybilld is the gateway: it sits in front of Amazon Bedrock, knows who calls, tags
// and signs each call, passes it on, and meters it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/credential"
	"github.com/waybill-dev/waybill/internal/downstream"
	"github.com/waybill-dev/waybill/internal/gateway"
	"github.com/waybill-dev/waybill/internal/journal"
	"github.com/waybill-dev/waybill/internal/profile"
	"github.com/waybill-dev/waybill/internal/upstream"
)

const usage = `waybilld: the Waybill gateway for Amazon Bedrock

usage: waybilld --config FILE [--check]

  --config FILE   the configuration; docs/operate/configure.md describes it
  --check         read the configuration and the policy, say what is wrong, and end
  --version       say which build this is

Signals: SIGHUP reads the configuration again (a bad one is refused and the old one
stays; reload: watch does so when a file changes), SIGTERM and SIGINT turn /readyz false, wait
timeouts.notice (a second one does not), stop taking calls, finish those under way, and end.
`

func main() {
	os.Exit(run())
}

func run() int {
	flags := flag.NewFlagSet("waybilld", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	path := flags.String("config", "", "")
	check := flags.Bool("check", false, "")
	version := flags.Bool("version", false, "")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *version {
		fmt.Println("waybilld", build())
		return 0
	}
	if *path == "" || flags.NArg() > 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	c, err := readConfig(*path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if *check {
		if err := c.callers.check(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		for _, w := range c.gateway.Policy.Warnings() {
			fmt.Fprintln(os.Stderr, "warning:", w)
		}
		fmt.Printf("%s: good; policy %s declares %d keys\n", *path, c.gateway.Policy.Version(), len(c.gateway.Policy.Keys()))
		return 0
	}
	var level slog.LevelVar
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: &level}))
	slog.SetDefault(log)
	if err := serve(*path, c, log, &level); err != nil {
		log.Error("waybilld ends", "err", err)
		return 1
	}
	return 0
}

func build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += " " + s.Value
		}
	}
	return text
}

// serve builds everything, in the order in which it is needed, and runs until a signal.
func serve(path string, c *config, log *slog.Logger, level *slog.LevelVar) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	keepHeadroom()

	who := new(whoCalls)
	if err := who.change(ctx, c.callers); err != nil {
		return err
	}
	defer who.Close()
	signer, sessions, loaded, err := newSigner(ctx, c, log)
	if err != nil {
		return err
	}
	defer sessions.Close()
	book, err := journal.Start(c.journalDir, c.journal)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	guard, values, err := openValues(c.valuesFile, c.gateway.Policy, log)
	if err != nil {
		return errors.Join(err, book.Stop())
	}
	defer values.Close()
	g := &gateway.Gateway{Callers: who, Signer: signer, Journal: book, Client: transport(c), Log: log,
		Metrics: gateway.NewMetrics(registry), Now: time.Now, Guard: guard}
	g.Reload(&c.gateway)
	warn(log, c)
	if c.resolve.on {
		catalogue := newCatalogue(c, loaded, sessions, log)
		defer catalogue.Close()
		g.Catalogue = catalogue
	}
	secure := new(listenerTLS)
	secure.now.Store(c.tls)
	again := newReloader(path, c, g, who, secure, log, registry)
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waybill_journal_ready", Help: "1 while the journal can be written."},
		func() float64 { return truth(book.Ready() == nil) }))
	registry.MustRegister(&distinctValues{guard, g.Policy}, &sessionMetrics{sessions})

	var draining atomic.Bool
	front := &downstream.Server{Handler: routes(g, sessions, who), HeaderTimeout: c.timeouts.header, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: c.headerBytes, Log: log}
	back := &http.Server{Handler: admin(book, who, registry, &draining, level), ReadHeaderTimeout: 10 * time.Second}
	if c.tls != nil {
		front.TLS = secure.config()
	}
	ended := make(chan error, 2)
	listener, err := net.Listen("tcp", c.listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for callers: %w", err), book.Stop())
	}
	adminListener, err := net.Listen("tcp", c.admin)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for operators: %w", err), book.Stop())
	}
	go func() { ended <- front.Serve(listener) }()
	go func() { ended <- back.Serve(adminListener) }()
	log.Info("waybilld is ready", "listen", listener.Addr().String(), "admin", adminListener.Addr().String(), "policy", c.gateway.Policy.Version(), "version", build())

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	var changed chan struct{}
	if c.watch {
		changed = make(chan struct{})
		var files atomic.Pointer[[]string]
		again.watch = func(names []string) { files.Store(&names) }
		again.look(c.files)
		var watching sync.WaitGroup
		defer watching.Wait()
		defer stop()
		watching.Go(func() { watch(ctx, func() []string { return *files.Load() }, changed) })
	}
	keep := time.NewTicker(time.Minute) // of the fallback roles' sessions
	defer keep.Stop()
	keepFallbacks(ctx, g, log)
	for {
		select {
		case <-hup:
			again.reload(ctx)
		case <-changed:
			again.reload(ctx)
		case <-keep.C:
			keepFallbacks(ctx, g, log)
		case err := <-ended:
			return errors.Join(err, book.Stop())
		case <-ctx.Done():
			draining.Store(true)
			giveNotice(c.notice, log)
			log.Info("draining")
			patience, cancel := context.WithTimeout(context.Background(), c.drainOnStop)
			defer cancel()
			err := front.Shutdown(patience)
			done := make(chan struct{})
			go func() { g.Wait(); close(done) }()
			select {
			case <-done:
			case <-patience.Done():
			}
			back.Close()
			return errors.Join(err, book.Stop())
		}
	}
}

// giveNotice waits, while calls are still taken, for whatever sends callers here to see that
// the gateway is ready no longer. A second signal ends the wait.
func giveNotice(d time.Duration, log *slog.Logger) {
	if d <= 0 {
		return
	}
	log.Info("leaving: /readyz says so, and calls are still taken", "for", d)
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(again)
	select {
	case <-time.After(d):
	case <-again:
	}
}

// routes sends what asks for a role session to the broker, and all else to the gateway.
func routes(g *gateway.Gateway, sessions *credential.Sessions, who *whoCalls) http.Handler {
	broker := g.Within(&credential.Broker{Sessions: sessions, Decide: g.SessionFor, Record: who.given})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == credential.BrokerPath {
			broker.ServeHTTP(w, r)
			return
		}
		g.ServeHTTP(w, r)
	})
}

// keepFallbacks holds sessions of the fallback roles ready.
func keepFallbacks(ctx context.Context, g *gateway.Gateway, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := g.KeepFallbacks(ctx); err != nil {
		log.Warn("no session of a fallback role can be had: calls would not pass if STS failed now", "err", err)
	}
}

// warn tells what is allowed and unwise in the policy that was put in force.
func warn(log *slog.Logger, c *config) {
	for _, w := range c.gateway.Policy.Warnings() {
		log.Warn("the tag policy is allowed and unwise", "what", w)
	}
}

// transport is the way to AWS: no redirects, no retries of its own, no compression,
// connections kept for long, and kept alive below the 350 seconds after which network
// address translation drops them.
func transport(c *config) http.RoundTripper {
	dialer := &net.Dialer{Timeout: c.timeouts.connect, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 45 * time.Second, Interval: 45 * time.Second, Count: 5}}
	others := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, DisableCompression: true, MaxIdleConns: 4096, MaxIdleConnsPerHost: 2048,
		IdleConnTimeout: 2 * time.Minute, TLSHandshakeTimeout: c.timeouts.tls}
	return &upstream.Client{Dial: dialer.DialContext, HandshakeTimeout: c.timeouts.tls, Proxy: http.ProxyFromEnvironment, Others: others}
}

// newCatalogue looks up the models behind inference profiles, under a role or the
// gateway's own credentials.
func newCatalogue(c *config, loaded aws.Config, sessions *credential.Sessions, log *slog.Logger) *profile.Catalogue {
	options := bedrock.Options{Region: c.gateway.DefaultRegion, Credentials: loaded.Credentials, HTTPClient: loaded.HTTPClient, RetryMaxAttempts: 3}
	if c.controlEndpoint != "" {
		options.BaseEndpoint = aws.String(c.controlEndpoint)
	}
	if c.resolve.role != "" {
		options.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
			s, err := sessions.Get(ctx, waybill.RoleSession{RoleARN: c.resolve.role, SessionName: "waybill-profiles"})
			if err != nil {
				return aws.Credentials{}, err
			}
			return s.Credentials(), nil
		})
	}
	return profile.New(bedrock.New(options), profile.Config{Log: log})
}

// newSigner takes the base credentials from the configuration or from AWS's own chain.
func newSigner(ctx context.Context, c *config, log *slog.Logger) (*credential.Signer, *credential.Sessions, aws.Config, error) {
	options := []func(*awsconfig.LoadOptions) error{awsconfig.WithRegion(c.gateway.DefaultRegion)}
	if c.accessKey != "" {
		options = append(options, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.accessKey, c.secretKey, "")))
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, nil, aws.Config{}, fmt.Errorf("load AWS configuration: %w", err)
	}
	config := c.sessions
	config.Log = log
	sessions := credential.NewSessions(credential.NewSTS(loaded, c.stsEndpoint), config)
	signer := credential.NewSigner(sessions, loaded.Credentials)
	if c.signing == "bearer" {
		signer.UseKeys()
	}
	return signer, sessions, loaded, nil
}

// admin is what operators see. It never calls AWS.
func admin(book *journal.Journal, who *whoCalls, registry *prometheus.Registry, draining *atomic.Bool, level *slog.LevelVar) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if draining.Load() {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		if err := book.Ready(); err != nil {
			http.Error(w, "the journal cannot be written: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		for _, c := range who.get().ready {
			if err := c.err(); err != nil {
				http.Error(w, c.what+": "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("PUT /loglevel", func(w http.ResponseWriter, r *http.Request) {
		if err := level.UnmarshalText([]byte(r.FormValue("level"))); err != nil {
			http.Error(w, "send level=debug, info, warn or error", http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
