package pgkeys

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/identity"
)

// server starts a PostgreSQL of the test's own, on a socket in a folder of its own. It
// skips the test where there is none to start.
func server(t *testing.T) (url string, stop func()) {
	t.Helper()
	bin := ""
	if path, err := exec.LookPath("initdb"); err == nil {
		bin = filepath.Dir(path)
	} else if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
		bin = filepath.Dir(found[len(found)-1])
	} else {
		t.Skip("there is no PostgreSQL here: apt-get install postgresql")
	}
	// Not t.TempDir: the path of a socket has 107 characters at most, and PostgreSQL
	// does not run as root.
	dir, err := os.MkdirTemp("", "pgkeys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var as *syscall.Credential
	if os.Getuid() == 0 {
		for _, name := range []string{"postgres", "nobody"} {
			if u, err := user.Lookup(name); err == nil {
				uid, _ := strconv.Atoi(u.Uid)
				gid, _ := strconv.Atoi(u.Gid)
				as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
				break
			}
		}
		if as == nil {
			t.Skip("PostgreSQL does not run as root, and there is no user to run it as")
		}
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Credential: as}, dir
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		log, err := os.Create(filepath.Join(dir, name+".out")) // a pipe would stay open as long as the server
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Run(); err != nil {
			out, _ := os.ReadFile(log.Name())
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-U", "waybill", "-A", "trust", "--no-sync")
	run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "-o", "-c listen_addresses='' -c fsync=off -k "+dir, "start")
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			run("pg_ctl", "-D", data, "-m", "immediate", "stop")
		}
	}
	t.Cleanup(stop)
	return "postgres:///postgres?user=waybill&host=" + dir, stop
}

func open(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// eventually waits for the polling of another replica, which takes real time.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// What one replica does the others know within a poll, and a change that is made with
// SQL as well. Without its database a replica serves what it knows, for a time.
func TestReplicas(t *testing.T) {
	url, stop := server(t)
	const poll = 20 * time.Millisecond
	one := open(t, Config{URL: url})
	if one.Ready() == nil {
		t.Error("ready without tables")
	}
	var inits sync.WaitGroup
	for range 4 {
		inits.Go(func() {
			if err := one.Init(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	inits.Wait()
	if err := one.Ready(); err != nil {
		t.Fatal(err)
	}
	other := open(t, Config{URL: url, Poll: poll, StaleFor: 2 * time.Second})
	method := other.Method()
	authenticate := func(token string) (waybill.Principal, error) {
		r, err := http.NewRequest(http.MethodPost, "http://gateway/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", token)
		return method.Authenticate(r)
	}
	good := func(token string) bool { _, err := authenticate(token); return err == nil }

	expires := time.Now().Add(time.Hour).Truncate(time.Second).UTC()
	token, key, err := one.Create(t.Context(), identity.Key{Subject: "user-17", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}),
		Models: []string{"amazon.nova*"}, Environments: []string{"staging"}, Expires: &expires})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new key is not seen", func() bool { return good(token) })
	got, err := authenticate(token)
	want := waybill.Principal{Subject: "user-17", Issuer: "gateway-key", Method: "key", KeyID: key.ID, Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}),
		Models: []string{"amazon.nova*"}, Environments: []string{"staging"}}
	if diff := cmp.Diff(want, got, cmp.Comparer(waybill.Tags.Equal)); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if list := other.List(); len(list) != 1 || !list[0].Expires.Equal(expires) || !list[0].Created.Equal(key.Created) || list[0].Revoked != nil {
		t.Errorf("stored: %+v", list)
	}

	second, successor, err := one.Rotate(t.Context(), key.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the successor is not seen", func() bool { return good(second) })
	if !good(token) {
		t.Error("the old key ended before the overlap did")
	}
	if successor.Replaces != key.ID || successor.Tags.Canonical() != key.Tags.Canonical() || successor.Expires == nil {
		t.Errorf("the successor is not like the key: %+v", successor)
	}
	start := time.Now()
	if err := one.Revoke(t.Context(), successor.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a revoked key is still good", func() bool { return !good(second) })
	t.Logf("revoked on another replica after %v, polling every %v", time.Since(start).Round(time.Millisecond), poll)

	if _, _, err := one.Rotate(t.Context(), successor.ID, time.Hour); waybill.KindOf(err) != waybill.Misused {
		t.Errorf("a revoked key was brought back by rotation: %v", err)
	}
	if err := one.Revoke(t.Context(), "nothing"); waybill.KindOf(err) != waybill.NotFound {
		t.Errorf("revoke what is not there: %v", err)
	}

	// The helpdesk has psql.
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	third, thirdKey, err := one.Create(t.Context(), identity.Key{Subject: "user-18"})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new key is not seen", func() bool { return good(third) })
	if _, err := conn.Exec(t.Context(), "UPDATE waybill_keys SET revoked = now() - interval '1 second' WHERE id = $1", thirdKey.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a key that SQL revoked is still good", func() bool { return !good(third) })

	// A signing key is kept as it is, and its id with any secret is no gateway key.
	sealed := identity.Key{ID: "WBSK00000000", Sealed: "v1.sealed", Subject: "user-19", Created: time.Now().UTC().Truncate(time.Second)}
	if err := one.Add(t.Context(), sealed); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a signing key is not seen", func() bool {
		k, err := other.Lookup(sealed.ID)
		return err == nil && k != nil && k.Sealed == sealed.Sealed
	})
	if good("wbk_" + sealed.ID + "_secret") {
		t.Error("a signing key is taken for a gateway key")
	}
	if err := one.Add(t.Context(), identity.Key{ID: "x", Subject: "user-19"}); err == nil {
		t.Error("a key without a secret is kept")
	}

	// No secret is in the tables.
	var dump string
	if err := conn.QueryRow(t.Context(), "SELECT string_agg(k::text, ' ') FROM waybill_keys k").Scan(&dump); err != nil {
		t.Fatal(err)
	}
	if secret := token[strings.LastIndex(token, "_")+1:]; strings.Contains(dump, secret) {
		t.Error("a secret is in the database")
	}

	if !good(token) {
		t.Fatal("the first key is no longer good")
	}
	stop()
	eventually(t, "the replica does not say that its database is gone", func() bool { return other.Ready() != nil })
	eventually(t, "keys are good for ever without a database", func() bool { return !good(token) })
	if err := one.Ready(); err != nil && strings.Contains(err.Error(), "wbk_") {
		t.Error(err)
	}
}

// Two changes at once are both seen, however they overlap.
func TestChangesAtOnce(t *testing.T) {
	url, _ := server(t)
	s := open(t, Config{URL: url, Poll: 10 * time.Millisecond})
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := open(t, Config{URL: url, Poll: 10 * time.Millisecond})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 10 {
				if _, _, err := s.Create(t.Context(), identity.Key{Subject: fmt.Sprintf("user-%d-%d", i, j)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	eventually(t, "keys are missing", func() bool { return len(other.List()) == 80 })
}

// A database that is not there when the gateway starts does not keep it from starting,
// and nothing of the URL that might be secret is repeated.
func TestWithoutDatabase(t *testing.T) {
	s := open(t, Config{URL: "postgres://waybill:hunter2@127.0.0.1:1/none?connect_timeout=1", Timeout: time.Second})
	if err := s.Ready(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("ready: %v", err)
	}
	if k, err := s.Lookup("0000"); k != nil || err == nil {
		t.Errorf("lookup: %v %v", k, err)
	}
	if _, err := Open(t.Context(), Config{URL: "postgres://waybill:hunter2@[bad/none"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("open: %v", err)
	}
}

func BenchmarkLookup(b *testing.B) {
	s := &Store{staleFor: time.Hour}
	held := &keys{byID: make(map[string]*identity.Key)}
	var token string
	for i := range 10_000 {
		tok, k, err := identity.NewKey(identity.Key{Subject: fmt.Sprint("user-", i)}, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		held.byID[k.ID], token = &k, tok
	}
	s.held.Store(held)
	s.seen.Store(time.Now().UnixNano())
	m := s.Method()
	r, _ := http.NewRequest(http.MethodPost, "http://gateway/", nil)
	r.Header.Set("X-Api-Key", token)
	for b.Loop() {
		if _, err := m.Authenticate(r); err != nil {
			b.Fatal(err)
		}
	}
}
