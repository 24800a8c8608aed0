// Credentials is `waybill credentials` without the rest of waybill, for tests that need
// a process: its browser signs in by itself.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"

	"github.com/waybill-dev/waybill/internal/signin"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file, dir string) error {
	src, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	profiles, err := signin.ReadProfiles(file, src)
	if err != nil {
		return err
	}
	store, err := signin.NewStore(dir, nil)
	if err != nil {
		return err
	}
	s := &signin.SignIn{Profile: profiles["people"], Store: store, Messages: os.Stderr, OpenBrowser: func(page string) error {
		go func() {
			jar, _ := cookiejar.New(nil)
			if a, err := (&http.Client{Jar: jar}).Get(page); err == nil {
				io.Copy(io.Discard, a.Body)
				a.Body.Close()
			}
		}()
		return nil
	}}
	c, err := s.Credentials(context.Background())
	if err != nil {
		return err
	}
	return c.Write(os.Stdout, "json")
}
