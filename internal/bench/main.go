//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `bench: the gateway against nginx, a bare reverse proxy, and the proxy with a signature

usage: go run ./internal/bench [--quick] [--json FILE] [--markdown FILE]

  --quick           a short run, of one or two minutes
  --json FILE       every point that was taken
  --markdown FILE   the section of docs/performance.md; - is stdout
  --only A,B        these contestants: direct, nginx, proxy, sigv4, waybilld, bearer
  --measure A,B     these measures: cpu1, cpu20, cpu200, latency, streams, ttfb, start, memory
  --point DURATION  the length of a point under load, 2s if not told
  --waybilld FILE   the gateway's program, if not one that is built from here
  --dir DIR         where contestants keep their files, the journal among them, and leave
                    them; otherwise a folder here, which is removed
  --profiles DIR    profiles of waybilld under load; they disturb what is measured
`

func main() {
	if p := os.Getenv(proxyEnv); p != "" {
		runProxy(p)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// runProxy makes this process a contestant. It does not return.
func runProxy(spec string) {
	f := strings.Fields(spec)
	if len(f) != 3 {
		fmt.Fprintf(os.Stderr, "%s=%q is not for you\n", proxyEnv, spec)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, serveProxy(f[0], f[1], f[2] == "sign"))
	os.Exit(1)
}

func command(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	quick := flags.Bool("quick", false, "")
	jsonFile, markdown := flags.String("json", "", ""), flags.String("markdown", "", "")
	only, measures := flags.String("only", "", ""), flags.String("measure", "", "")
	waybilld, dir, profiles := flags.String("waybilld", "", ""), flags.String("dir", "", ""), flags.String("profiles", "", "")
	length := flags.Duration("point", 0, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not understood; see --help", flags.Arg(0))
	}
	o := fullOptions()
	if *quick {
		o = quickOptions()
	}
	o.waybilld, o.dir, o.profiles, o.only, o.measures = *waybilld, *dir, *profiles, list(*only), list(*measures)
	if *length > 0 {
		o.point = *length
	}
	for _, d := range []string{o.dir, o.profiles} {
		if d != "" {
			if err := os.MkdirAll(d, 0o700); err != nil {
				return err
			}
		}
	}
	b := &bench{options: o, progress: os.Stderr, result: &result{Command: strings.TrimSpace("go run ./internal/bench " + strings.Join(args, " "))}}
	err := b.run(ctx)
	if *dir == "" && b.dir != "" {
		os.RemoveAll(b.dir)
	}
	if err != nil {
		return err
	}
	b.result.print(os.Stdout)
	if *jsonFile != "" {
		text, err := json.MarshalIndent(b.result, "", " ")
		if err == nil {
			err = os.WriteFile(*jsonFile, append(text, '\n'), 0o644)
		}
		if err != nil {
			return err
		}
	}
	switch *markdown {
	case "":
	case "-":
		fmt.Print("\n", b.result.markdown())
	default:
		return os.WriteFile(*markdown, []byte(b.result.markdown()), 0o644)
	}
	return nil
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
