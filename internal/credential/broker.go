package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/waybill-dev/waybill"
)

// BrokerPath is where a gateway gives sessions.
const BrokerPath = "/waybill/credentials"

// A Broker is an http.Handler that gives role sessions to people whose tools then call
// AWS themselves: POST BrokerPath, with the proof of a caller that the gateway takes for
// calls too. The policy chooses role, name and tags, as it does for a call.
//
// What it gives lasts until its end: AWS cannot take back a single session. So a Broker
// belongs on TLS, and its roles should be ones that people may hold.
type Broker struct {
	Sessions *Sessions
	// Decide says who asks, and under which session they may act. asked are the tags
	// that they ask for. Its errors are *waybill.Error.
	Decide func(r *http.Request, asked waybill.Tags) (waybill.Principal, waybill.RoleSession, error)
	// Record keeps that a session is given to somebody, before it is; an error refuses.
	// refused is why it was not given, or nil. It never sees keys. nil records nothing.
	Record func(ctx context.Context, to waybill.Principal, of waybill.RoleSession, principalARN string, refused error) error
	// Left is how long a session lasts at least when it is given; 0 means a quarter of
	// an hour, below which the AWS SDKs ask for another at once.
	Left time.Duration
}

// maxBrokerBody bounds what a stranger may send.
const maxBrokerBody = 64 << 10

// given is the answer: what AWS's credential_process prints, and what the session is.
type given struct {
	Version         int
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      time.Time
	PrincipalARN    string       `json:"PrincipalArn"`
	Tags            waybill.Tags // that the session carries
	Dropped         []string     `json:",omitempty"` // keys that it does not: there was no room
}

// ServeHTTP gives one session.
func (b *Broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		refuseBrokered(w, http.StatusMethodNotAllowed, &waybill.Error{Code: "WB1411", Message: "sessions are asked for by POST"})
		return
	}
	out, err := b.give(r)
	if err != nil {
		e, ok := errors.AsType[*waybill.Error](err)
		if !ok {
			e = &waybill.Error{Code: "WB1410", Message: "the gateway cannot give a session", Hint: "the gateway's operator sees why", Err: err}
		}
		refuseBrokered(w, brokerStatus[e.Kind], e)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // whoever asked may have left
}

func (b *Broker) give(r *http.Request) (*given, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBrokerBody+1))
	if err != nil || len(body) > maxBrokerBody {
		return nil, &waybill.Error{Kind: waybill.TooLarge, Code: "WB1412", Message: "the request for a session is too large or did not arrive whole", Err: err}
	}
	var ask struct {
		Version int          `json:"version"`
		Tags    waybill.Tags `json:"tags"`
	}
	if err := json.Unmarshal(body, &ask); err != nil || ask.Version != 1 {
		return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1413", Message: "the request for a session is not one", Hint: `send {"version":1,"tags":{...}} as JSON`, Err: err}
	}
	r.Body = io.NopCloser(bytes.NewReader(body)) // a proof may be of it
	who, want, err := b.Decide(r, ask.Tags)
	if err != nil {
		return nil, b.record(r, who, want, "", err)
	}
	left := b.Left
	if left <= 0 {
		left = 15 * time.Minute
	}
	got, err := b.Sessions.GetFor(r.Context(), want, left)
	if err != nil {
		return nil, b.record(r, who, want, "", err)
	}
	if err := b.record(r, who, want, got.PrincipalARN, nil); err != nil {
		return nil, err
	}
	tags := want.Tags.Map()
	for _, k := range got.Dropped {
		delete(tags, k)
	}
	c := got.Credentials()
	return &given{Version: 1, AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		Expiration: got.Expires.UTC().Truncate(time.Second), PrincipalARN: got.PrincipalARN, Tags: waybill.TagsFromMap(tags), Dropped: got.Dropped}, nil
}

// record keeps what happened, and gives back why the session is not given, if it is not.
func (b *Broker) record(r *http.Request, who waybill.Principal, want waybill.RoleSession, arn string, refused error) error {
	if b.Record == nil {
		return refused
	}
	if err := b.Record(context.WithoutCancel(r.Context()), who, want, arn, refused); err != nil && refused == nil {
		return &waybill.Error{Kind: waybill.Unavailable, Code: "WB1414", Message: "the gateway cannot record sessions at the moment", Hint: "try again", Err: err}
	}
	return refused
}

var brokerStatus = map[waybill.ErrorKind]int{waybill.Internal: 500, waybill.Invalid: 400, waybill.Unauthenticated: 401, waybill.Denied: 403,
	waybill.NotFound: 404, waybill.TooLarge: 413, waybill.Unavailable: 503, waybill.Unsupported: 501, waybill.Misused: 500, waybill.TooMany: 429}

func refuseBrokered(w http.ResponseWriter, status int, e *waybill.Error) {
	w.Header().Set("Content-Type", "application/json")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": e.Code, "message": e.Message, "hint": e.Hint}}) // whoever asked may have left
}
