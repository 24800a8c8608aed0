package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/signin"
)

type credentialsOptions struct {
	profile, file, cache string
	output               string
	check, logout        bool
	noBrowser            bool
	timeout, life        time.Duration
	flags                signin.Profile // what flags say goes over what the file says
}

func newCredentials(out, stderr io.Writer) *cobra.Command {
	var o credentialsOptions
	c := &cobra.Command{Use: "credentials", Short: "Sign in, and print AWS credentials whose calls are attributed", Args: cobra.NoArgs,
		Long: `Credentials signs you in with your OpenID Connect provider, gets a role session that
carries your tags, and prints it as AWS's credential_process does. Tools that call Bedrock
themselves are then attributed without a gateway. In ~/.aws/config:

  [profile bedrock]
  region = us-east-1
  credential_process = waybill credentials --profile people

The session is kept until it ends, and renewed without asking where the provider allows
it. Messages go to stderr. docs/operate/credentials.md says what the provider and the
role's trust policy need.`,
		Example: `  waybill credentials --issuer https://login.example.com --client-id waybill \
      --role arn:aws:iam::111122223333:role/people --region us-east-1
  waybill credentials --profile people --device      sign in on another device
  waybill credentials --profile people --check       what is held; asks nobody
  eval "$(waybill credentials --profile people --output env)"`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCredentials(cmd, o, out, stderr) }}
	f := c.Flags()
	f.StringVar(&o.profile, "profile", "", "profile of the file; without it, the only one or the one named default")
	f.StringVar(&o.file, "file", "", "file of profiles (default: waybill/credentials.yaml in the user's configuration folder)")
	f.StringVar(&o.flags.Issuer, "issuer", "", "OpenID Connect provider")
	f.StringVar(&o.flags.ClientID, "client-id", "", "what the provider knows this program as")
	f.StringSliceVar(&o.flags.Scopes, "scope", nil, "scopes to ask for (default: openid, and offline_access if the provider has it)")
	f.StringVar(&o.flags.Role, "role", "", "role to assume with the token")
	f.StringVar(&o.flags.Region, "region", "", "Region whose STS is asked")
	f.StringVar(&o.flags.SessionName, "session-name", "", "name of the session; claims in braces (default {sub})")
	f.DurationVar(&o.life, "life", 0, "life of the session (default 1h)")
	f.StringVar(&o.flags.Broker, "broker", "", "URL of a gateway that gives the session, in the place of STS")
	f.StringVar(&o.flags.KeyEnv, "key-env", "", "environment variable with a gateway key to show the broker")
	f.StringToStringVar(&o.flags.Ask, "tag", nil, "tags to ask the broker for: key=value")
	f.StringSliceVar(&o.flags.Tags, "require-tag", nil, "tags without which a session is not wanted")
	f.BoolVar(&o.flags.Device, "device", false, "sign in on another device, by a code")
	f.BoolVar(&o.noBrowser, "no-browser", false, "show the address, and do not open the browser")
	f.IntVar(&o.flags.Port, "port", 0, "port of the redirect, where the provider wants a fixed one (default: any)")
	f.StringVar(&o.flags.Store, "store", "", "where the sign-in is kept: file or keyring (default file)")
	f.StringVar(&o.cache, "cache", "", "folder of it (default: waybill/credentials in the user's cache folder)")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for you to sign in")
	f.StringVar(&o.output, "output", "json", "json (credential_process) or env (for a shell)")
	f.BoolVar(&o.check, "check", false, "say what is held, and ask nobody; exit 3 if it is not good")
	f.BoolVar(&o.logout, "logout", false, "forget the sign-in, here and at the provider")
	return c
}

func runCredentials(cmd *cobra.Command, o credentialsOptions, out, stderr io.Writer) error {
	if err := oneOf("output", o.output, "json", "env"); err != nil {
		return err
	}
	o.flags.Life = signin.Duration(o.life)
	profile, err := readProfile(o)
	if err != nil {
		return err
	}
	profile = profile.With(o.flags)
	if o.cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return &waybill.Error{Kind: waybill.Misused, Message: "there is no folder for caches: " + err.Error(), Hint: "give --cache"}
		}
		o.cache = filepath.Join(dir, "waybill", "credentials")
	}
	var ring signin.Keyring
	if profile.Store == "keyring" {
		ring = signin.SystemKeyring()
	}
	store, err := signin.NewStore(o.cache, ring)
	if err != nil {
		return err
	}
	s := &signin.SignIn{Profile: profile, Store: store, Messages: stderr, Patience: o.timeout,
		ClientSecret: os.Getenv(profile.ClientSecretEnv), Key: os.Getenv(profile.KeyEnv)}
	if !o.noBrowser {
		s.OpenBrowser = signin.OpenBrowser
	}
	switch {
	case o.logout:
		return s.Logout(cmd.Context())
	case o.check:
		return showStatus(s, o.output, cmd.Flags().Changed("output"), out)
	}
	return printCredentials(cmd.Context(), s, o.output, out)
}

func printCredentials(ctx context.Context, s *signin.SignIn, format string, out io.Writer) error {
	c, err := s.Credentials(ctx)
	if err != nil {
		return err
	}
	return c.Write(out, format)
}

func showStatus(s *signin.SignIn, format string, asked bool, out io.Writer) error {
	st, err := s.Check()
	if err != nil {
		return err
	}
	if asked && format == "json" {
		err = json.NewEncoder(out).Encode(st)
	} else {
		_, err = io.WriteString(out, st.String())
	}
	if err == nil && !st.Good() {
		err = errBadNews
	}
	return err
}

// readProfile takes the profile that was named, or the only one, or none at all where
// flags say everything.
func readProfile(o credentialsOptions) (signin.Profile, error) {
	path := o.file
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			dir = "."
		}
		path = filepath.Join(dir, "waybill", "credentials.yaml")
	}
	src, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && o.file == "" && o.profile == "" {
		return signin.Profile{}, nil
	}
	if err != nil {
		return signin.Profile{}, &waybill.Error{Kind: waybill.Misused, Message: "the profiles cannot be read: " + err.Error(), Hint: "give --file, or --issuer, --client-id, --role and --region"}
	}
	profiles, err := signin.ReadProfiles(path, src)
	if err != nil {
		return signin.Profile{}, err
	}
	name := o.profile
	if name == "" {
		name = "default"
		if len(profiles) == 1 {
			for only := range profiles {
				name = only
			}
		}
	}
	p, ok := profiles[name]
	if !ok && o.profile == "" && (o.flags.Issuer != "" || o.flags.Broker != "") {
		return signin.Profile{}, nil
	}
	if !ok {
		return p, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s has no profile %q", path, name), Hint: "give --profile one of its names"}
	}
	return p, nil
}
