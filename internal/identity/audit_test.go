package identity

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-dev/waybill"
)

// knock is a request whose proof is the subject in a header, refused if it begins with
// a minus.
func knock(addr, subject string) *http.Request {
	r := header("X-Subject", subject)
	r.RemoteAddr = addr + ":1"
	return r
}

func door() Method {
	return Method{Name: "door", Claims: func(*http.Request) bool { return true }, Authenticate: func(r *http.Request) (waybill.Principal, error) {
		s := r.Header.Get("X-Subject")
		if reason, bad := strings.CutPrefix(s, "-"); bad {
			return waybill.Principal{}, refuse(Reason(reason))
		}
		return waybill.Principal{Subject: s, Issuer: "door", KeyID: r.Header.Get("X-Key")}, nil
	}}
}

// A stranger who knocks all the time for an hour leaves some records
// that say so, and every knock is counted.
func TestFloodOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept attempts
		chain, err := NewChain(ChainConfig{Methods: []Method{door()}, Record: kept.record})
		if err != nil {
			t.Fatal(err)
		}
		knocks := 0
		for range 3600 {
			for i := range 60 {
				if _, err := chain.Authenticate(knock(fmt.Sprint("192.0.2.", i%50), "-expired")); err == nil {
					t.Fatal("accepted")
				}
				knocks++
			}
			if _, err := chain.Authenticate(knock("192.0.2.9", "-signature")); err == nil { // another reason, now and then
				t.Fatal("accepted")
			}
			time.Sleep(time.Second)
		}
		chain.Close()
		one, more, others := 0, 0, 0
		for _, at := range kept.all() {
			switch {
			case at.Reason == ReasonSignature:
				others += 1 + at.More
			case at.More > 0:
				more += at.More
			default:
				one++
			}
		}
		if one+more != knocks || others != 3600 {
			t.Errorf("%d recorded and %d counted of %d; %d of 3,600", one, more, knocks, others)
		}
		if n := len(kept.all()); one > 400 || n-3600 > 500 {
			t.Errorf("%d records, %d of them of single knocks", n, one)
		}
		t.Logf("%d knocks for one reason left %d records of single ones; 3,600 for another, one a second, left one each", knocks, one)
		if at := kept.list[0]; at.At.IsZero() || at.Outcome != Refused || at.Method != "door" || at.RemoteAddr != "192.0.2.0" {
			t.Errorf("recorded %+v", at)
		}
	})
}

// The rest of a flood is summed up when its second is over, though nobody knocks again;
// equal refusals are one record.
func TestRestOfAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept attempts
		chain, err := NewChain(ChainConfig{Methods: []Method{door()}, Record: kept.record, RefusalsPerSecond: 3})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 1206 {
			_, _ = chain.Authenticate(knock(fmt.Sprint("192.0.2.", i), "-expired"))
		}
		time.Sleep(1100 * time.Millisecond)
		if list := kept.all(); len(list) != 4 || list[3].More != 1203 || list[3].Reason != ReasonExpired {
			t.Errorf("recorded %+v", list)
		}
		for range 5 {
			_, _ = chain.Authenticate(knock("192.0.2.1", "-secret"))
		}
		chain.Close()
		chain.Close()
		list := kept.all()
		if len(list) != 6 || list[4].More != 0 || list[5].More != 4 || list[5].Reason != ReasonSecret {
			t.Errorf("recorded %+v", list[4:])
		}
		_, _ = chain.Authenticate(knock("192.0.2.1", "-secret"))
		_, _ = chain.Authenticate(knock("192.0.2.1", "user-17"))
		time.Sleep(time.Hour)
		if len(kept.all()) != 6 {
			t.Error("recorded after closing")
		}
	})
}

// A caller who calls all day is recorded now and then, and again with another proof.
func TestAcceptedAreRecordedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept attempts
		chain, err := NewChain(ChainConfig{Methods: []Method{door()}, Record: kept.record, AcceptedEvery: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer chain.Close()
		for range 24 * 60 {
			for _, s := range []string{"user-17", "user-18"} {
				if _, err := chain.Authenticate(knock("192.0.2.1", s)); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Minute)
		}
		if n := len(kept.all()); n != 48 {
			t.Errorf("%d records of two callers in a day", n)
		}
		r := knock("192.0.2.1", "user-17")
		r.Header.Set("X-Key", "k2")
		if _, err := chain.Authenticate(r); err != nil || kept.last().Proof != "k2" || len(kept.all()) != 49 {
			t.Errorf("another proof: %v, recorded %+v", err, kept.last())
		}
	})
}

// The file turns at its size, keeps so many, is its owner's alone, and a line that a
// crash cut in two does not spoil the next.
func TestAuditFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit", "audit.jsonl")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, path, `{"at":"2026-10-05T10:`)
	f, err := OpenAuditFile(path, AuditFileConfig{MaxBytes: 4096, Keep: 3})
	if err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 50 {
				f.Record(Attempt{At: time.Now().UTC(), Outcome: Refused, Reason: ReasonExpired, Subject: fmt.Sprintf("user-%d-%d", w, i), RemoteAddr: "192.0.2.1"})
			}
		})
	}
	writers.Wait()
	if err := f.Err(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != 4 {
		t.Fatalf("%v %v", files, err)
	}
	lines := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil || info.Size() > 4096 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", file, info, err)
		}
		for line := range strings.Lines(string(raw)) {
			var at Attempt
			if err := json.Unmarshal([]byte(line), &at); err != nil || at.Outcome != Refused {
				t.Errorf("%s: %q", file, line)
			}
			lines++
		}
	}
	if lines < 70 { // the oldest went
		t.Errorf("%d lines are kept", lines)
	}
	// In the order of writing, a file that was put aside is not touched again.
	f, err = OpenAuditFile(path, AuditFileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	f.Record(Attempt{Outcome: Accepted, Subject: "user-17"})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(raw), `"outcome":"accepted","subject":"user-17"}`+"\n") {
		t.Errorf("%s %v", raw, err)
	}
}

// A half-written line is ended, not continued.
func TestAuditFileAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	write(t, path, `{"at":"2026-10-05T10:`)
	f, err := OpenAuditFile(path, AuditFileConfig{})
	if err != nil {
		t.Fatal(err)
	}
	f.Record(Attempt{Outcome: Accepted})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil || string(raw) != `{"at":"2026-10-05T10:`+"\n"+`{"at":"0001-01-01T00:00:00Z","outcome":"accepted"}`+"\n" {
		t.Errorf("%s %v", raw, err)
	}
}

// Where records cannot be kept Err says so, and how many; it does so until one can.
func TestAuditFileFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	path := filepath.Join(dir, "audit.jsonl")
	f, err := OpenAuditFile(path, AuditFileConfig{MaxBytes: 10})
	if err != nil {
		t.Fatal(err)
	}
	f.Record(Attempt{Outcome: Accepted}) // the first always fits
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "not a folder")
	f.Record(Attempt{Outcome: Accepted})
	f.Record(Attempt{Outcome: Accepted})
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "2 audit records") {
		t.Errorf("%v", err)
	}
	remove(t, dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.Record(Attempt{Outcome: Accepted})
	if err := f.Err(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
