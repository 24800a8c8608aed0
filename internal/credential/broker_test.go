package credential

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

// A broker gives who may have it the session that the policy chose, and nobody else
// anything; both are recorded, without keys.
func TestBroker(t *testing.T) {
	w, client := world(t, "", nil)
	s := NewSessions(client, Config{})
	defer s.Close()
	type record struct {
		to      string
		arn     string
		refused bool
	}
	var records []record
	full := false
	b := &Broker{Sessions: s,
		Decide: func(r *http.Request, asked waybill.Tags) (waybill.Principal, waybill.RoleSession, error) {
			switch r.Header.Get("Authorization") {
			case "Bearer good":
			case "Bearer poor":
				return waybill.Principal{Subject: "user-18"}, waybill.RoleSession{}, &waybill.Error{Kind: waybill.Denied, Code: "WB1305", Message: "no role is meant for you", Hint: "ask", Err: errors.New("inside")}
			case "Bearer broken":
				return waybill.Principal{}, waybill.RoleSession{}, errors.New("database password is hunter2")
			default:
				return waybill.Principal{}, waybill.RoleSession{}, &waybill.Error{Kind: waybill.Unauthenticated, Code: "WB1001", Message: "the caller is not known"}
			}
			tags := asked.Map()
			tags["team"] = "search"
			return waybill.Principal{Subject: "user-17"}, waybill.RoleSession{RoleARN: roleARN, SessionName: "user-17", Tags: waybill.TagsFromMap(tags)}, nil
		},
		Record: func(_ context.Context, to waybill.Principal, _ waybill.RoleSession, arn string, refused error) error {
			records = append(records, record{to.Subject, arn, refused != nil})
			if full {
				return errors.New("disk full")
			}
			return nil
		}}
	ask := func(method, proof, body string) (int, string) {
		r := httptest.NewRequest(method, BrokerPath, strings.NewReader(body))
		r.Header.Set("Authorization", proof)
		rec := httptest.NewRecorder()
		b.ServeHTTP(rec, r)
		text, _ := io.ReadAll(rec.Result().Body)
		if rec.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s may be cached", method, proof)
		}
		return rec.Code, string(text)
	}
	for range 2 {
		status, text := ask("POST", "Bearer good", `{"version":1,"tags":{"feature":"x"}}`)
		var got struct {
			Version                       int
			AccessKeyID                   string `json:"AccessKeyId"`
			SecretAccessKey, SessionToken string
			PrincipalARN                  string `json:"PrincipalArn"`
			Expiration                    time.Time
			Tags                          map[string]string
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		if got.Version != 1 || got.AccessKeyID == "" || got.SecretAccessKey == "" || got.SessionToken == "" || time.Until(got.Expiration) < 50*time.Minute ||
			got.PrincipalARN != "arn:aws:sts::111122223333:assumed-role/bedrock/user-17" || got.Tags["team"] != "search" || got.Tags["feature"] != "x" {
			t.Errorf("%s", text)
		}
	}
	if n := len(w.Assumptions()); n != 1 {
		t.Errorf("%d AssumeRole calls for one session", n)
	}
	for _, tt := range []struct {
		method, proof, body string
		status              int
		code                string
	}{
		{"GET", "Bearer good", "", 405, "WB1411"},
		{"POST", "Bearer bad", `{"version":1}`, 401, "WB1001"},
		{"POST", "Bearer poor", `{"version":1}`, 403, "WB1305"},
		{"POST", "Bearer broken", `{"version":1}`, 500, "WB1410"},
		{"POST", "Bearer good", `{"version":2}`, 400, "WB1413"},
		{"POST", "Bearer good", `{"version":1,"tags":["a"]}`, 400, "WB1413"},
		{"POST", "Bearer good", `nonsense`, 400, "WB1413"},
		{"POST", "Bearer good", strings.Repeat(" ", maxBrokerBody+1), 413, "WB1412"},
		{"POST", "Bearer good", `{"version":1,"tags":{"bad":"a,b"}}`, 500, "WB1402"},
	} {
		status, text := ask(tt.method, tt.proof, tt.body)
		if status != tt.status || !strings.Contains(text, `"code":"`+tt.code+`"`) || strings.Contains(text, "hunter2") || strings.Contains(text, "inside") || strings.Contains(text, "SecretAccessKey") {
			t.Errorf("%s %s %.40s: %d %s", tt.method, tt.proof, tt.body, status, text)
		}
	}
	if len(records) != 6 || records[0] != (record{"user-17", "arn:aws:sts::111122223333:assumed-role/bedrock/user-17", false}) || records[3] != (record{"user-18", "", true}) {
		t.Errorf("records %+v", records)
	}
	full = true
	if status, text := ask("POST", "Bearer good", `{"version":1}`); status != 503 || strings.Contains(text, "SecretAccessKey") {
		t.Errorf("what cannot be recorded was given: %d %s", status, text)
	}
}
