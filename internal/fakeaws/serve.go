package fakeaws

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// The endpoints that serve inference, as Call has them.
const (
	Runtime = "bedrock-runtime"
	Mantle  = "bedrock-mantle"
)

// An exchange is one request to an inference endpoint and what becomes of it.
type exchange struct {
	w     *World
	rw    http.ResponseWriter
	out   io.Writer // the body of the answer, past the faults
	r     *http.Request
	body  []byte
	route route
	cred  *credential
	call  *Call
	fault Fault
}

// An answer sends what a request that was taken is answered, and reports whether the
// client was gone before its end.
type answer func(*exchange) (left bool)

// A route is the API that a path leads to.
type route struct {
	operation string // as Call has it
	shape     shape  // of its errors
	prefix    string // that the path begins with: /v1, /openai/v1, /anthropic/v1; empty for Bedrock's own
	id        string // of the response, model or project that the path names
	// admit holds the request against the API's rules. It gives neither an answer nor a
	// refusal for what the endpoint does not know at all.
	admit func(*exchange) (answer, *refusal)
}

// endpointOf says which endpoint a request is for: by its host, else by the service that
// it is signed for, else by its path.
func endpointOf(r *http.Request) string {
	for _, label := range strings.Split(r.Host, ".") {
		for _, endpoint := range []string{Runtime, Mantle} {
			if strings.TrimSuffix(label, "-fips") == endpoint {
				return endpoint
			}
		}
	}
	path := r.URL.EscapedPath()
	if strings.Contains(r.Header.Get("Authorization"), "/"+Mantle+"/aws4_request") || strings.HasPrefix(path, "/v1/") || strings.HasSuffix(path, "/count_tokens") {
		return Mantle
	}
	return Runtime
}

// routeOf finds the API that a path of an endpoint leads to.
func routeOf(endpoint string, r *http.Request) route {
	path := r.URL.EscapedPath()
	if rt, ok := compatible(endpoint, r.Method, path); ok {
		return rt
	}
	if endpoint == Runtime {
		return runtimeRoute(r)
	}
	return route{shape: openAIShape, admit: func(*exchange) (answer, *refusal) {
		return nil, &refusal{404, "not_found", "Not Found"}
	}}
}

// infer answers an inference endpoint.
func (w *World) infer(endpoint string, rw http.ResponseWriter, r *http.Request) {
	started := time.Now()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxInvokeBody+1))
	if err != nil {
		return
	}
	call := Call{RequestID: newID(), At: w.Now(), Status: 200, RequestBody: jsonOrNil(body), Tier: "default", LatencyMode: "standard",
		Endpoint: endpoint, Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone()}
	x := &exchange{w: w, rw: rw, r: r, body: body, route: routeOf(endpoint, r), call: &call}
	call.Operation = x.route.operation
	x.identify()
	cred, s, auth, no := w.authenticate(r, body, endpoint, x.route)
	if no != nil {
		x.refuse(no, w.config.FrontDoorShape)
		return
	}
	x.cred = cred
	call.Account, call.Region, call.PrincipalARN, call.SessionTags, call.Auth = cred.account, s.region, cred.arn, cred.tags, auth
	reply, no := x.route.admit(x)
	if reply == nil && no == nil { // an unknown path is answered with success
		rw.Header().Set("Content-Type", "application/json")
		io.WriteString(rw, `{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}`)
		return
	}
	if no == nil && w.config.Fault != nil {
		if f := w.config.Fault(r); f != nil {
			x.fault = *f
			no = f.refusal()
		}
	}
	if f := x.fault; f.Stall != nil && f.StallAfter == 0 {
		x.wait()
	}
	if no != nil {
		if x.fault.RetryAfter != "" {
			rw.Header().Set("Retry-After", x.fault.RetryAfter)
		}
		call.Status, call.ErrorCode = no.status, x.refuse(no, false)
		w.served(call)
		return
	}
	if w.config.Latency > 0 {
		time.Sleep(w.config.Latency)
	}
	out := &faulty{x: x}
	x.out = out
	call.ClientLeft = reply(x)
	call.LatencyMillis = time.Since(started).Milliseconds()
	w.served(call)
	if x.fault.CutAfter > 0 && out.sent >= x.fault.CutAfter {
		panic(http.ErrAbortHandler)
	}
}

// identify puts the request's id where clients of each shape look for it.
func (x *exchange) identify() {
	h := x.rw.Header()
	h.Set("Date", x.call.At.UTC().Format(http.TimeFormat))
	names := []string{"x-amzn-RequestId"}
	switch x.route.shape {
	case openAIShape:
		names = append(names, "x-request-id")
	case anthropicShape:
		names = append(names, "request-id")
	}
	if x.call.Endpoint == Mantle && x.w.config.MantleRequestID != nil {
		names = x.w.config.MantleRequestID
	}
	for _, name := range names {
		h[name] = []string{x.call.RequestID}
	}
}

// wait waits until a stalled answer may go on, or its client has gone.
func (x *exchange) wait() {
	select {
	case <-x.fault.Stall:
	case <-x.r.Context().Done():
	}
}

// json sends one document.
func (x *exchange) json(body any) (left bool) {
	b := encode(body)
	x.call.ResponseBody = b
	x.rw.Header().Set("Content-Type", "application/json")
	x.rw.Header()["Content-Length"] = []string{decimalInt(int64(len(b)))}
	_, err := x.out.Write(b)
	return err != nil || x.r.Context().Err() != nil
}

// stream sends messages one by one; failed, if there is an exception to tell, stands in
// the place of the last two.
func (x *exchange) stream(contentType string, messages [][]byte, failed []byte) (left bool) {
	x.rw.Header().Set("Content-Type", contentType)
	x.rw.WriteHeader(http.StatusOK)
	for i, m := range messages {
		if x.fault.Exception != "" && i == len(messages)-2 {
			_, err := x.out.Write(failed)
			return err != nil
		}
		pace := x.w.config.Pace
		if x.w.config.PaceFor != nil {
			pace += x.w.config.PaceFor(*x.call)
		}
		if pace > 0 && i > 0 {
			time.Sleep(pace)
		}
		if x.r.Context().Err() != nil {
			return true
		}
		if _, err := x.out.Write(m); err != nil {
			return true
		}
		x.flush()
	}
	return x.r.Context().Err() != nil
}

func (x *exchange) flush() {
	if f, ok := x.rw.(http.Flusher); ok {
		f.Flush()
	}
}

// chunks is how many pieces a streamed answer's text comes in.
func (x *exchange) chunks() int {
	if x.w.config.ChunksFor != nil {
		if n := x.w.config.ChunksFor(*x.call); n > 0 {
			return n
		}
	}
	return x.w.config.Chunks
}

// words are the pieces of an answer, made up from the seed; the last is as much longer
// as the fault says.
func (x *exchange) words(seed uint64) []string {
	out := words(seed, x.chunks())
	if n := x.fault.Padding; n > 0 {
		out[len(out)-1] += strings.Repeat("ballast ", n/8) + strings.Repeat(".", n%8)
	}
	return out
}

// faulty writes the body of an answer as its fault has it.
type faulty struct {
	x       *exchange
	sent    int
	stalled bool
}

func (f *faulty) Write(p []byte) (int, error) {
	fault, done := &f.x.fault, 0
	for done < len(p) {
		n := len(p) - done
		if fault.Dribble > 0 {
			n = min(n, fault.Dribble)
		}
		if fault.Stall != nil && fault.StallAfter > 0 && !f.stalled {
			if f.sent == fault.StallAfter {
				f.stalled = true
				f.x.flush()
				f.x.wait()
			} else {
				n = min(n, fault.StallAfter-f.sent)
			}
		}
		if fault.CutAfter > 0 {
			if f.sent >= fault.CutAfter {
				f.x.flush()
				return done, io.ErrShortWrite
			}
			n = min(n, fault.CutAfter-f.sent)
		}
		wrote, err := f.x.rw.Write(p[done : done+n])
		done, f.sent = done+wrote, f.sent+wrote
		if err != nil {
			return done, err
		}
		if fault.Dribble > 0 {
			f.x.flush()
			if fault.Pause > 0 {
				time.Sleep(fault.Pause)
			}
		}
	}
	return done, nil
}
