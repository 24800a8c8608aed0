package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/lake"
	"github.com/waybill-dev/waybill/internal/policy"
)

func readEpochs(path string) ([]policy.Epoch, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("secrets of hashing: %v", err), Hint: "waybill policy epochs new makes the file"}
	}
	return policy.ParseEpochs(path, src)
}

type resolveOptions struct {
	key, hashKeys, candidates, keysFile, lake, reason, audit string
}

func newPolicyResolve(out io.Writer) *cobra.Command {
	var o resolveOptions
	c := &cobra.Command{Use: "resolve PSEUDONYM", Short: "Find who is behind a pseudonym; it leaves a record", Args: cobra.ExactArgs(1),
		Long: `Resolve finds the value behind a pseudonym such as h1-0123456789abcdef0123. A keyed hash
cannot be reversed: resolve hashes candidates under the epoch's secret and compares.
Candidates are lines of a file, the subjects of a gateway key file, and the callers that a
ledger knows.

Each use is written to the audit file, before the answer is shown: when, who, which
pseudonym, why, and whether it was found. Without the record there is no answer. Exit code
3 if no candidate is behind the pseudonym.`,
		Example: `  waybill policy resolve h1-0123456789abcdef0123 --key user --hash-keys hashkeys.jsonl --lake ./lake --reason "cost query 4711" --audit resolve.jsonl`,
		RunE: func(c *cobra.Command, args []string) error {
			return runResolve(c.Context(), args[0], o, c.InOrStdin(), out)
		}}
	c.Flags().StringVar(&o.key, "key", "user", "tag key that the pseudonym is a value of")
	c.Flags().StringVar(&o.hashKeys, "hash-keys", "", "file of the secrets of hashing")
	c.Flags().StringVar(&o.candidates, "candidates", "", "file of candidates, one a line; - is standard input")
	c.Flags().StringVar(&o.keysFile, "keys", "", "gateway key file, whose subjects are candidates")
	c.Flags().StringVar(&o.lake, "lake", "", "ledger, whose callers are candidates")
	c.Flags().StringVar(&o.reason, "reason", "", "why the pseudonym is resolved; it is recorded")
	c.Flags().StringVar(&o.audit, "audit", "", "audit file that the record is appended to")
	return c
}

// A resolution is the audit record of one use of `policy resolve`. It does not say who
// was found.
type resolution struct {
	At        time.Time `json:"at"`
	By        string    `json:"by"` // user of the operating system
	Host      string    `json:"host"`
	Action    string    `json:"action"` // policy.resolve
	Pseudonym string    `json:"pseudonym"`
	Key       string    `json:"key"`
	Reason    string    `json:"reason"`
	Found     bool      `json:"found"`
	Error     string    `json:"error,omitempty"`
}

func runResolve(ctx context.Context, pseudonym string, o resolveOptions, stdin io.Reader, out io.Writer) error {
	if _, ok := policy.IsPseudonym(pseudonym); !ok {
		return &waybill.Error{Kind: waybill.Misused, Message: "that is not a pseudonym", Hint: "it looks like h1-0123456789abcdef0123"}
	}
	for _, f := range []struct{ name, value, hint string }{{"hash-keys", o.hashKeys, "name the gateway's hashKeys file"},
		{"reason", o.reason, "say why the pseudonym is resolved"}, {"audit", o.audit, "name the file that keeps the record"}} {
		if strings.TrimSpace(f.value) == "" {
			return &waybill.Error{Kind: waybill.Misused, Message: "--" + f.name + " is missing", Hint: f.hint}
		}
	}
	epochs, err := readEpochs(o.hashKeys)
	if err != nil {
		return err
	}
	candidates, err := o.gather(ctx, stdin)
	if err != nil {
		return err
	}
	value, found, err := policy.Resolve(epochs, o.key, pseudonym, slices.Values(candidates))
	record := resolution{At: time.Now().UTC(), Action: "policy.resolve", Pseudonym: pseudonym, Key: o.key, Reason: o.reason, Found: found}
	if err != nil {
		record.Error = message(err)
	}
	if auditErr := appendAudit(o.audit, &record); auditErr != nil {
		return auditErr
	}
	if err != nil {
		return err
	}
	if !found {
		fmt.Fprintf(out, "none of %d candidates is behind it\n", len(candidates))
		return errBadNews
	}
	_, err = fmt.Fprintln(out, value)
	return err
}

// gather collects candidates, each once, in order.
func (o *resolveOptions) gather(ctx context.Context, stdin io.Reader) ([]string, error) {
	all := make(map[string]bool)
	if o.candidates != "" {
		r := stdin
		if o.candidates != "-" {
			f, err := os.Open(o.candidates)
			if err != nil {
				return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("candidates: %v", err)}
			}
			defer f.Close()
			r = f
		}
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if text := strings.TrimSpace(lines.Text()); text != "" {
				all[text] = true
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read candidates: %w", err)
		}
	}
	if o.keysFile != "" {
		keys, err := identity.OpenKeys(o.keysFile)
		if err != nil {
			return nil, err
		}
		for _, k := range keys.List() {
			all[k.Subject] = true
		}
	}
	if o.lake != "" {
		if err := callersOf(ctx, o.lake, all); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, &waybill.Error{Kind: waybill.Misused, Message: "there are no candidates", Hint: "give --candidates, --keys or --lake: a pseudonym is checked against who may be behind it"}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// callersOf adds the callers that a ledger knows.
func callersOf(ctx context.Context, place string, all map[string]bool) (err error) {
	l, err := lake.Open(ctx, place, lake.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	periods, _, err := l.Periods(ctx)
	if err != nil {
		return err
	}
	for _, p := range periods {
		cells, _, err := l.Usage(ctx, p)
		if err != nil {
			return err
		}
		for i := range cells {
			if who := cells[i].Principal; who != "" {
				all[who] = true
			}
		}
	}
	return nil
}

// appendAudit appends a record to an audit file, and returns when it is on disk.
func appendAudit(path string, r *resolution) error {
	r.By, r.Host = "uid "+strconv.Itoa(os.Getuid()), "unknown"
	if u, err := user.Current(); err == nil {
		r.By = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		r.Host = h
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("the use cannot be recorded, so there is no answer: %w", err)
	}
	return nil
}

func newPolicyEpochs(out io.Writer) *cobra.Command {
	var file string
	c := &cobra.Command{Use: "epochs", Short: "List, begin and destroy the secrets that pseudonyms are made with",
		Long: `Pseudonyms are keyed hashes. Each epoch has a secret of its own, and its id is part of
the pseudonym: h2-... is of epoch 2. A new epoch rotates the secret from a day on; the
gateway takes it up with its next reload. Destroying an epoch's secret makes its
pseudonyms unresolvable for good: that is how people are forgotten. The file must be
backed up like any secret, and destroyed copies in backups as well.`}
	c.PersistentFlags().StringVar(&file, "file", "hashkeys.jsonl", "file of the secrets, as the gateway's hashKeys names it")
	list := &cobra.Command{Use: "list", Short: "List the epochs, without their secrets", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		epochs, err := readEpochs(file)
		if err != nil {
			return err
		}
		t := newTable(out, "epoch", "from", "state")
		for _, e := range epochs {
			from, state := "always", "good"
			if !e.From.IsZero() {
				from = e.From.Format(time.DateOnly)
			}
			if e.Destroyed != nil {
				state = "destroyed " + e.Destroyed.Format(time.DateOnly)
			} else if e.From.After(time.Now()) {
				state = "to come"
			}
			t.AppendRow(table.Row{e.ID, from, state})
		}
		t.Render()
		return nil
	}}
	var from string
	begin := &cobra.Command{Use: "new", Short: "Begin an epoch with a new secret", Args: cobra.NoArgs, Example: "  waybill policy epochs new --from 2027-01-01",
		RunE: func(*cobra.Command, []string) error {
			e := policy.Epoch{ID: "1", Key: make([]byte, 32)}
			if _, err := rand.Read(e.Key); err != nil {
				return err
			}
			err := changeEpochs(file, func(all []policy.Epoch) ([]policy.Epoch, error) {
				for _, old := range all {
					if n, err := strconv.Atoi(old.ID); err == nil {
						e.ID = strconv.Itoa(max(n+1, mustAtoi(e.ID)))
					}
				}
				if len(all) > 0 {
					e.From = time.Now().UTC().Truncate(time.Second)
				}
				if from != "" {
					day, err := waybill.ParseDay(from)
					if err != nil {
						return nil, &waybill.Error{Kind: waybill.Misused, Message: "--from: " + err.Error()}
					}
					e.From = day.Start()
				}
				return append(all, e), nil
			})
			if err == nil {
				_, err = fmt.Fprintf(out, "epoch %s begun in %s\n", e.ID, file)
			}
			return err
		}}
	begin.Flags().StringVar(&from, "from", "", "first day of the epoch, YYYY-MM-DD in UTC (default: now; of the first: always)")
	destroy := &cobra.Command{Use: "destroy ID", Short: "Destroy an epoch's secret: its pseudonyms can never be resolved again", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			err := changeEpochs(file, func(all []policy.Epoch) ([]policy.Epoch, error) {
				i := slices.IndexFunc(all, func(e policy.Epoch) bool { return e.ID == args[0] })
				if i < 0 {
					return nil, &waybill.Error{Kind: waybill.NotFound, Message: fmt.Sprintf("there is no epoch %q in %s", args[0], file), Hint: "waybill policy epochs list shows them"}
				}
				if all[i].Destroyed == nil {
					now := time.Now().UTC().Truncate(time.Second)
					all[i].Key, all[i].Destroyed = nil, &now
				}
				return all, nil
			})
			if err == nil {
				_, err = fmt.Fprintf(out, "the secret of epoch %s is destroyed in %s; see to its copies\n", args[0], file)
			}
			return err
		}}
	c.AddCommand(list, begin, destroy)
	return c
}

func mustAtoi(s string) int {
	n, _ := strconv.Atoi(s) // an id that we made
	return n
}

// changeEpochs rewrites the file of secrets: a new one beside it, synced, and renamed
// over it.
func changeEpochs(path string, change func([]policy.Epoch) ([]policy.Epoch, error)) error {
	src, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the secrets of hashing: %w", err)
	}
	all, err := policy.ParseEpochs(path, src)
	if err != nil {
		return err
	}
	if all, err = change(all); err != nil {
		return err
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	for _, e := range all {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	if _, err := policy.ParseEpochs(path, text.Bytes()); err != nil {
		return fmt.Errorf("nothing was changed: what would be written is no file of epochs: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".hashkeys-*") // 0600
	if err != nil {
		return fmt.Errorf("write the secrets of hashing: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path)) // a secret that is destroyed must not come back after a power cut
	}
	if err != nil {
		return fmt.Errorf("write the secrets of hashing: %w", err)
	}
	return nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
