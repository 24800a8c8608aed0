package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// A body is refused that is larger than the limit, told or found; one of exactly the
// limit passes.
func TestBodyLimit(t *testing.T) {
	noGrowth(t)
	const limit = 5000
	s := newStand(t, func(_ *fakeaws.Config, g *gateway.Config) { g.MaxBody = limit })
	sized := func(n int) string {
		return hello[:len(hello)-1] + strings.Repeat(" ", n-len(hello)) + "}"
	}
	for _, tt := range []struct {
		name    string
		size    int
		chunked bool
		status  int
	}{
		{"of the limit", limit, false, 200},
		{"of the limit, in chunks", limit, true, 200},
		{"a byte more", limit + 1, false, 413},
		{"a byte more, in chunks", limit + 1, true, 413},
		{"a megabyte more", limit + 1<<20, false, 413},
		{"a megabyte more, in chunks", limit + 1<<20, true, 413},
	} {
		body := io.Reader(strings.NewReader(sized(tt.size)))
		if tt.chunked {
			body = io.MultiReader(body) // whose length net/http does not see
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+answerPath, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+s.token)
		r.Header.Set("Amz-Sdk-Invocation-Id", tt.name)
		a, err := http.DefaultClient.Do(r)
		if err != nil { // it was refused while the body was on its way
			if tt.status == 200 {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		text, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if a.StatusCode != tt.status || tt.status == 413 && !strings.Contains(string(text), "WB1205") {
			t.Errorf("%s: %d %s", tt.name, a.StatusCode, text)
		}
	}
	b := s.booked(t)
	s.balancedWithWorld(t, b)
	if len(b.closed) != 6 || len(b.left()) != 2 {
		t.Errorf("%d records, %d of calls that left", len(b.closed), len(b.left()))
	}
}

// A length that is promised takes no memory before the bytes come.
func TestPromisedBodyTakesNoMemory(t *testing.T) {
	noGrowth(t)
	s := newStand(t, nil)
	before := heap()
	const callers = 20
	var conns []*net.TCPConn
	for i := range callers {
		conn := s.dial(t)
		conns = append(conns, conn)
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\nAmz-Sdk-Invocation-Id: %d\r\nContent-Length: 25000000\r\n\r\n", answerPath, s.token, i)
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		readTo(t, conn, "100 Continue") // the gateway waits for the body
		if _, err := io.WriteString(conn, "{"); err != nil {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; grown > callers*2<<20 {
		t.Errorf("%d callers who promise 25 MB and send nothing hold %d MB", callers, grown>>20)
	}
	for _, conn := range conns {
		conn.Close()
	}
	if b := s.booked(t); len(b.left()) != 0 {
		t.Errorf("%d calls left", len(b.left()))
	}
}

// JSON that is broken anywhere is refused by the gateway or by AWS, and each of the two
// knows the calls that it has seen.
func TestBrokenJSON(t *testing.T) {
	noGrowth(t)
	s := newStand(t, nil)
	whole := `{"requestMetadata":{"feature":"a"},` + hello[1:]
	var bodies []string
	for i := range len(whole) {
		bodies = append(bodies, whole[:i], whole[:i]+"\x00"+whole[i+1:], whole[:i]+"\xff"+whole[i+1:], whole[:i]+`"`+whole[i+1:], whole[:i]+"}"+whole[i:])
	}
	passed := 0
	for i, body := range bodies {
		a, text := s.post(t, answerPath, body, map[string]string{"Amz-Sdk-Invocation-Id": fmt.Sprint(i)})
		if a.StatusCode == 200 {
			passed++
		} else if a.StatusCode != 400 && a.StatusCode != 403 { // the policy may see another value
			t.Errorf("%q: %d %s", body, a.StatusCode, text)
		}
	}
	b := s.booked(t)
	s.balancedWithWorld(t, b)
	if len(b.closed) != len(bodies) || passed > len(bodies)/4 {
		t.Errorf("%d records of %d calls, of which %d passed", len(b.closed), len(bodies), passed)
	}
	for _, v := range b.closed {
		if v.Status != 200 && v.Usage != waybill.NewUsage() {
			t.Errorf("call %s is recorded as %s, %v", v.SDKInvocationID, v.Outcome, v.Usage)
		}
	}
	for _, c := range s.world.Calls() {
		if c.Metadata["team"] != "search" {
			t.Errorf("a call reached AWS without its tags: %v of %s", c.Metadata, c.RequestBody)
		}
	}
}
