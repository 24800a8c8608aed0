package identity

import (
	"cmp"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// The outcomes of an attempt.
const (
	Accepted      = "accepted"
	Refused       = "refused"
	SessionGiven  = "session_given" // a role session was given to the caller: see Attempt.Role
	SessionDenied = "session_denied"
)

// An Attempt is the audit record of a proof that was accepted or refused, or of a role
// session that was given on one. It holds
// nothing that a credential could be made of, and of a refused proof nothing that a
// stranger only claimed.
type Attempt struct {
	At      time.Time `json:"at"`
	Outcome string    `json:"outcome"` // accepted, refused, session_given, session_denied
	Method  string    `json:"method,omitempty"`
	Reason  Reason    `json:"reason,omitempty"` // of a refusal
	Subject string    `json:"subject,omitempty"`
	Issuer  string    `json:"issuer,omitempty"`
	KeyID   string    `json:"key_id,omitempty"`
	// Proof names an accepted proof: the id of a token or of a key, the serial number
	// of a certificate.
	Proof string `json:"proof,omitempty"`
	// RemoteAddr is the other end of the connection, which may be a proxy: what
	// X-Forwarded-For says is anybody's word.
	RemoteAddr string `json:"remote_addr,omitempty"`
	// Role, SessionName, PrincipalARN and Code are of role sessions that callers ask for:
	// under which role and name, whom AWS sees, and why it was denied.
	Role         string `json:"role,omitempty"`
	SessionName  string `json:"session_name,omitempty"`
	PrincipalARN string `json:"principal_arn,omitempty"`
	Code         string `json:"code,omitempty"`
	// More makes the record a summary: so many refusals for this reason, up to At, were
	// counted and not recorded one by one ("and 1,203 more").
	More int `json:"more,omitempty"`
}

// longestWindow bounds how seldom a flood is summed up.
const longestWindow = time.Minute

// acceptedKept is how many (caller, proof) pairs are remembered as recorded, of about
// 300 bytes each. One that is forgotten is only recorded again.
const acceptedKept = 16_384

// An auditor makes records of attempts, fewer than there are attempts. A stranger can
// make refusals at will and must not fill a disk with them: of each reason a few
// different ones are recorded in a second, the others are counted and summed up. While
// a flood lasts, the seconds become a minute. What is known about callers is recorded
// once in a while, not at every call.
type auditor struct {
	write     func(Attempt)
	perWindow int
	every     time.Duration
	accepted  *lru.Cache[acceptance, time.Time]

	mu      sync.Mutex // guards what follows, and orders the calls of write
	windows map[Reason]*window
	closed  bool
}

type acceptance struct{ method, issuer, subject, proof string }

type window struct {
	ends   time.Time
	length time.Duration
	seen   map[Attempt]bool // recorded one by one
	more   int
	timer  *time.Timer // ends the window if no later refusal does
	summed bool        // more has been written
}

func newAuditor(c ChainConfig) *auditor {
	accepted, err := lru.New[acceptance, time.Time](acceptedKept)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &auditor{write: c.Record, perWindow: cmp.Or(c.RefusalsPerSecond, 5), every: cmp.Or(c.AcceptedEvery, 10*time.Minute), accepted: accepted,
		windows: make(map[Reason]*window)}
}

// accept records a proof that held, if it was not recorded lately.
func (a *auditor) accept(r *http.Request, method string, p *principal) {
	if a.write == nil {
		return
	}
	key, now := acceptance{method, p.Issuer, p.Subject, p.proof}, time.Now()
	if last, ok := a.accepted.Get(key); ok && now.Sub(last) < a.every {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if last, ok := a.accepted.Get(key); a.closed || ok && now.Sub(last) < a.every {
		return
	}
	a.accepted.Add(key, now)
	a.write(Attempt{At: now.UTC(), Outcome: Accepted, Method: method, Subject: p.Subject, Issuer: p.Issuer, KeyID: p.KeyID, Proof: p.proof, RemoteAddr: host(r)})
}

// refuse records a refusal or counts it.
func (a *auditor) refuse(r *http.Request, at Attempt) {
	if a.write == nil {
		return
	}
	at.RemoteAddr = host(r)
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	w := a.windows[at.Reason]
	if w == nil || !now.Before(w.ends) {
		w = a.turn(at.Reason, w, now)
	}
	if w.seen[at] || len(w.seen) >= a.perWindow {
		w.more++
		if w.timer == nil {
			w.timer = time.AfterFunc(w.ends.Sub(now), func() { a.sumUp(at.Reason, w) })
		}
		return
	}
	w.seen[at] = true
	at.At = now.UTC()
	a.write(at)
}

// turn ends a window and begins the next: a longer one if the last ran over.
func (a *auditor) turn(reason Reason, last *window, now time.Time) *window {
	next := &window{length: time.Second, seen: make(map[Attempt]bool)}
	if last != nil && last.more > 0 {
		if now.Sub(last.ends) < last.length { // the flood has not ended in between
			next.length = min(2*last.length, longestWindow)
		}
		a.total(reason, last, now)
	}
	next.ends = now.Add(next.length)
	a.windows[reason] = next
	return next
}

// sumUp ends a window whose time has passed.
func (a *auditor) sumUp(reason Reason, w *window) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.total(reason, w, time.Now())
	}
}

// total writes the summary of a window, once.
func (a *auditor) total(reason Reason, w *window, now time.Time) {
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.more > 0 && !w.summed {
		a.write(Attempt{At: now.UTC(), Outcome: Refused, Reason: reason, More: w.more})
		w.summed = true
	}
}

func (a *auditor) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	for _, reason := range slices.Sorted(maps.Keys(a.windows)) {
		a.total(reason, a.windows[reason], time.Now())
	}
}

// host is the address of the other end without its port, which differs every time.
func host(r *http.Request) string {
	h, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return h
}
