package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/identity"
	"github.com/waybill-dev/waybill/internal/identity/pgkeys"
)

// keyStore is a store of gateway keys: a file, or PostgreSQL.
type keyStore interface {
	Create(context.Context, identity.Key) (token string, key identity.Key, err error)
	Rotate(ctx context.Context, id string, overlap time.Duration) (token string, key identity.Key, err error)
	Revoke(ctx context.Context, id string) error
	List() []identity.Key
	CreateSigning(context.Context, identity.Key, *identity.Sealer) (identity.SigningSecret, identity.Key, error)
	RotateSigning(ctx context.Context, id string, overlap time.Duration, s *identity.Sealer) (identity.SigningSecret, identity.Key, error)
}

// fileKeys are keys in a file.
type fileKeys struct{ *identity.Keys }

func (f fileKeys) Create(_ context.Context, spec identity.Key) (string, identity.Key, error) {
	return f.Keys.Create(spec)
}
func (f fileKeys) Rotate(_ context.Context, id string, overlap time.Duration) (string, identity.Key, error) {
	return f.Keys.Rotate(id, overlap)
}
func (f fileKeys) Revoke(_ context.Context, id string) error { return f.Keys.Revoke(id) }
func (f fileKeys) CreateSigning(_ context.Context, spec identity.Key, s *identity.Sealer) (identity.SigningSecret, identity.Key, error) {
	return f.Keys.CreateSigning(spec, s)
}
func (f fileKeys) RotateSigning(_ context.Context, id string, overlap time.Duration, s *identity.Sealer) (identity.SigningSecret, identity.Key, error) {
	return f.Keys.RotateSigning(id, overlap, s)
}

type keysOptions struct {
	file, postgres string
	seal           []string
	output         string
}

// open opens the store that the flags name.
func (o *keysOptions) open(ctx context.Context) (keyStore, func(), error) {
	if o.postgres == "" {
		keys, err := identity.OpenKeys(o.file)
		return fileKeys{keys}, func() {}, err
	}
	store, err := pgkeys.Open(ctx, pgkeys.Config{URL: o.postgres})
	if err != nil {
		return nil, nil, err
	}
	if err := store.Init(ctx); err != nil {
		store.Close()
		return nil, nil, err
	}
	return store, store.Close, nil
}

// sealer is what seals the secrets of signing keys: from files, or the environment.
func (o *keysOptions) sealer() (*identity.Sealer, error) {
	var texts []string
	for _, name := range o.seal {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("sealing key: %v", err)}
		}
		texts = append(texts, string(b))
	}
	if text := os.Getenv("WAYBILL_SEALING_KEY"); text != "" && len(texts) == 0 {
		texts = []string{text}
	}
	return identity.NewSealer(texts...)
}

func newKeys(out io.Writer) *cobra.Command {
	var o keysOptions
	c := &cobra.Command{Use: "keys", Short: "Make, list, rotate and revoke gateway keys and signing keys",
		Long: `Gateway keys are bearer tokens; signing keys (--signing) are pairs for SDKs that can do
nothing but sign as AWS does. Both are shown once. They are kept in a file, or for many
gateways in PostgreSQL. Gateways know of a change within two seconds.`}
	c.PersistentFlags().StringVar(&o.file, "file", "keys.jsonl", "key file, as the gateway's callers.keys names it")
	c.PersistentFlags().StringVar(&o.postgres, "postgres", os.Getenv("WAYBILL_KEYS_URL"), "URL of PostgreSQL, in the place of a file (default: WAYBILL_KEYS_URL)")
	c.PersistentFlags().StringArrayVar(&o.seal, "sealing-key", nil, "file of the key that seals signing keys; the first seals, others only open (default: WAYBILL_SEALING_KEY)")
	c.AddCommand(newKeysCreate(&o, out), newKeysList(&o, out), newKeysRotate(&o, out), newKeysRevoke(&o), newKeysProve(out))
	return c
}

// showSecret writes a signing key in the form of AWS's environment variables.
func showSecret(out io.Writer, s identity.SigningSecret) error {
	_, err := fmt.Fprintf(out, "AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\nAWS_SESSION_TOKEN=%s\n", s.AccessKeyID, s.SecretAccessKey, s.SessionToken)
	return err
}

func newKeysCreate(o *keysOptions, out io.Writer) *cobra.Command {
	var tags, models, environments []string
	var expires time.Duration
	var signing bool
	c := &cobra.Command{Use: "create SUBJECT", Short: "Make a key; its secret is shown this once", Args: cobra.ExactArgs(1),
		Example: `  waybill keys create checkout-service --tag team=search --tag costCenter=CC-1001
  waybill keys create old-batch-job --signing --sealing-key seal.key --expires 720h`,
		RunE: func(c *cobra.Command, args []string) error {
			spec := identity.Key{Subject: args[0], Models: models, Environments: environments}
			list, err := pairs("tag", tags)
			if err != nil {
				return err
			}
			spec.Tags = waybill.NewTags(list...)
			if expires > 0 {
				at := time.Now().Add(expires).UTC().Truncate(time.Second)
				spec.Expires = &at
			}
			k, done, err := o.open(c.Context())
			if err != nil {
				return err
			}
			defer done()
			if signing {
				sealer, err := o.sealer()
				if err != nil {
					return err
				}
				secret, _, err := k.CreateSigning(c.Context(), spec, sealer)
				if err != nil {
					return err
				}
				return showSecret(out, secret)
			}
			token, _, err := k.Create(c.Context(), spec)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, token)
			return err
		}}
	c.Flags().StringArrayVar(&tags, "tag", nil, "tag that the key's calls carry: key=value")
	c.Flags().StringSliceVar(&models, "model", nil, "models it may use; a pattern may hold *")
	c.Flags().StringSliceVar(&environments, "environment", nil, "environments it may use")
	c.Flags().DurationVar(&expires, "expires", 0, "how long it is good for (default: until revoked)")
	c.Flags().BoolVar(&signing, "signing", false, "make a signing key")
	return c
}

func newKeysRotate(o *keysOptions, out io.Writer) *cobra.Command {
	var overlap time.Duration
	var signing bool
	c := &cobra.Command{Use: "rotate ID", Short: "Make a key like another, which stays good for the overlap", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			k, done, err := o.open(c.Context())
			if err != nil {
				return err
			}
			defer done()
			if signing {
				sealer, err := o.sealer()
				if err != nil {
					return err
				}
				secret, _, err := k.RotateSigning(c.Context(), args[0], overlap, sealer)
				if err != nil {
					return err
				}
				return showSecret(out, secret)
			}
			token, _, err := k.Rotate(c.Context(), args[0], overlap)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, token)
			return err
		}}
	c.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the old key stays good")
	c.Flags().BoolVar(&signing, "signing", false, "it is a signing key")
	return c
}

func newKeysRevoke(o *keysOptions) *cobra.Command {
	return &cobra.Command{Use: "revoke ID", Short: "End a key; gateways refuse it within seconds", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			k, done, err := o.open(c.Context())
			if err != nil {
				return err
			}
			defer done()
			return k.Revoke(c.Context(), args[0])
		}}
}

// A keyRow of a list has no secret, nor what one could be checked by.
type keyRow struct {
	ID           string       `json:"id"`
	Kind         string       `json:"kind"` // gateway or signing
	Subject      string       `json:"subject"`
	Tags         waybill.Tags `json:"tags"`
	Models       []string     `json:"models,omitempty"`
	Environments []string     `json:"environments,omitempty"`
	Created      time.Time    `json:"created"`
	Expires      *time.Time   `json:"expires,omitempty"`
	Revoked      *time.Time   `json:"revoked,omitempty"`
	Replaces     string       `json:"replaces,omitempty"`
	Live         bool         `json:"live"`
}

func newKeysList(o *keysOptions, out io.Writer) *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the keys, without their secrets", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := oneOf("output", o.output, "table", "json"); err != nil {
				return err
			}
			k, done, err := o.open(c.Context())
			if err != nil {
				return err
			}
			defer done()
			rows := []keyRow{}
			for _, key := range k.List() {
				kind := "gateway"
				if key.Sealed != "" {
					kind = "signing"
				}
				rows = append(rows, keyRow{key.ID, kind, key.Subject, key.Tags, key.Models, key.Environments, key.Created, key.Expires, key.Revoked, key.Replaces, key.Live(time.Now())})
			}
			if o.output == "json" {
				return writeJSON(out, struct {
					Version int      `json:"version"`
					Keys    []keyRow `json:"keys"`
				}{1, rows})
			}
			t := newTable(out, "id", "kind", "subject", "tags", "held to", "created", "state")
			for _, r := range rows {
				state := "live"
				switch {
				case !r.Live:
					state = "ended"
				case r.Revoked != nil:
					state = "until " + r.Revoked.Format(time.DateTime)
				case r.Expires != nil:
					state = "until " + r.Expires.Format(time.DateTime)
				}
				t.AppendRow(table.Row{r.ID, r.Kind, r.Subject, tagsLine(r.Tags), strings.Join(slices.Concat(r.Models, r.Environments), ", "), r.Created.Format(time.DateOnly), state})
			}
			t.Render()
			return nil
		}}
	c.Flags().StringVar(&o.output, "output", "table", "table or json")
	return c
}

// tagsLine is a set as key=value, key=value.
func tagsLine(t waybill.Tags) string {
	var parts []string
	for k, v := range t.All() {
		parts = append(parts, k+"="+v)
	}
	return strings.Join(parts, ", ")
}

func newKeysProve(out io.Writer) *cobra.Command {
	var region string
	var life time.Duration
	c := &cobra.Command{Use: "prove GATEWAY", Short: "Prove to a gateway which AWS identity one has, without a key of its own", Args: cobra.ExactArgs(1),
		Long: `Prove presigns a call of STS's GetCallerIdentity with the AWS credentials at hand, for the
gateway of that name, and prints it as the bearer token that the gateway takes:
docs/operate/aws-identity.md. Make a new one every few minutes.`,
		Example: `  curl -H "Authorization: Bearer $(waybill keys prove waybill.example.com)" ...`,
		RunE: func(c *cobra.Command, args []string) error {
			var options []func(*config.LoadOptions) error
			if region != "" {
				options = append(options, config.WithRegion(region))
			}
			loaded, err := config.LoadDefaultConfig(c.Context(), options...)
			if err != nil {
				return fmt.Errorf("load AWS configuration: %w", err)
			}
			proof, err := identity.PresignIdentity(c.Context(), loaded.Credentials, args[0], loaded.Region, life, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, proof)
			return err
		}}
	c.Flags().StringVar(&region, "region", "", "Region whose STS is asked (default: that of the AWS configuration)")
	c.Flags().DurationVar(&life, "life", 15*time.Minute, "how long the proof is good for, 15m at most")
	return c
}
