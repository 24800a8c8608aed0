package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// However the program ends in the middle of many streams, the journal has each of them
// once, as it ended; and the callers see a whole answer or one that was cut, never one
// that looks whole and is not. Some have left before, and are still being drained.
func TestEndsInMidStream(t *testing.T) {
	path := program(t)
	const staying, leaving = 30, 10
	for _, tt := range []struct {
		name   string
		signal syscall.Signal
		stop   string // timeouts.stop
		whole  bool   // AWS goes on, and the streams end well
	}{
		{"SIGTERM, and AWS goes on", syscall.SIGTERM, "1m", true},
		{"SIGTERM, and AWS is silent", syscall.SIGTERM, "300ms", false},
		{"kill -9", syscall.SIGKILL, "1m", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hold := make(chan struct{})
			release := sync.OnceFunc(func() { close(hold) })
			defer release()
			var begun sync.Map
			w, aws := world(t, fakeaws.Config{PaceFor: func(c fakeaws.Call) time.Duration {
				if _, again := begun.LoadOrStore(c.RequestID, true); again { // all but the first event
					<-hold
				}
				return 0
			}})
			dir, token := home(t, aws)
			addTo(t, filepath.Join(dir, "waybilld.yaml"), "timeouts: {stop: "+tt.stop+"}\n")
			cmd, url, admin := start(t, path, dir)
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			var bodies []io.ReadCloser
			for i := range staying + leaving {
				ctx, leave := context.WithTimeout(t.Context(), time.Minute) // a test that hangs should say where
				defer leave()
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/model/amazon.nova-lite-v1%3A0/converse-stream", strings.NewReader(`{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+token)
				a, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer a.Body.Close()
				if _, err := io.ReadFull(a.Body, make([]byte, 10)); err != nil { // it is in mid-stream
					t.Fatal(err)
				}
				if i < leaving {
					leave()
				} else {
					bodies = append(bodies, a.Body)
				}
			}
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			if tt.signal == syscall.SIGTERM && tt.whole {
				for { // until it drains
					a, err := http.Get(admin + "/readyz")
					if err != nil {
						t.Fatal(err)
					}
					a.Body.Close()
					if a.StatusCode == http.StatusServiceUnavailable {
						break
					}
				}
				release()
			}
			cut := 0
			for _, body := range bodies {
				if _, err := io.Copy(io.Discard, body); err != nil {
					cut++
				}
			}
			if want := map[bool]int{false: staying}[tt.whole]; cut != want {
				t.Errorf("%d streams were seen to be cut, want %d", cut, want)
			}
			if err := cmd.Wait(); (err == nil) != tt.whole {
				t.Errorf("waybilld ended with %v", err)
			}
			release()
			completed, interrupted := journalled(t, filepath.Join(dir, "journal"))
			if tt.whole && (len(completed) != staying+leaving || interrupted != 0) || !tt.whole && (len(completed) != 0 || interrupted != staying+leaving) {
				t.Errorf("the journal has %d streams that ended and %d that were interrupted", len(completed), interrupted)
			}
			for _, c := range w.Calls() {
				if tt.whole && completed[c.RequestID] != 1 {
					t.Errorf("call %s is in the journal %d times", c.RequestID, completed[c.RequestID])
				}
			}
		})
	}
}

// After SIGTERM the gateway is not ready, and still takes calls, until its notice is over or
// a second signal comes.
func TestNotice(t *testing.T) {
	_, aws := world(t, fakeaws.Config{})
	dir, token := home(t, aws)
	addTo(t, filepath.Join(dir, "waybilld.yaml"), "timeouts: {notice: 10m}\n")
	cmd, url, admin := start(t, program(t), dir)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for ready := true; ready; {
		a, err := http.Get(admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		ready = a.StatusCode == http.StatusOK
	}
	for range 3 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/model/amazon.nova-lite-v1%3A0/converse", strings.NewReader(`{"messages":[{"role":"user","content":[{"text":"hi"}]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != http.StatusOK {
			t.Errorf("a call after SIGTERM: %s", a.Status)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for over := false; !over; { // a signal that comes before it is listened for says nothing new
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if over = true; err != nil {
				t.Errorf("waybilld ended with %v", err)
			}
		case <-time.After(10 * time.Millisecond):
		}
	}
	if completed, _ := journalled(t, filepath.Join(dir, "journal")); len(completed) != 3 {
		t.Errorf("%d calls are in the journal", len(completed))
	}
}

// addTo adds text to the end of a file.
func addTo(t *testing.T, file, text string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
