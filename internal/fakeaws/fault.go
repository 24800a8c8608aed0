package fakeaws

import "time"

// A Fault is what goes wrong with one call. The zero Fault is none.
type Fault struct {
	// Status answers with this status and error type, in the shape of the path that was
	// called. ErrorType is a type of AWS's, such as ThrottlingException, or a code of the
	// path's own shape, such as overloaded_error.
	Status     int
	ErrorType  string
	Message    string // empty means AWS's words for a throttled call
	RetryAfter string // header of that answer; AWS documents none
	Body       string // of that answer, as text/html, as a load balancer on the way would send

	CutAfter  int    // break the connection after this many bytes of the body; 0 does not
	Exception string // end the stream with this exception in the place of its last frames

	// Stall holds the answer until the channel is closed or the client has left: before
	// its status line, or after so many bytes of its body.
	Stall      <-chan struct{}
	StallAfter int

	Dribble int           // send the body in pieces of at most so many bytes
	Pause   time.Duration // after each of them

	Padding      int    // characters that the answer's text is longer by
	FailsLater   string // message that an asynchronous invocation, or a background Response, fails with
	NoTokenCount bool   // leave out the token counts: headers of an InvokeModel answer, and the metrics of its last chunk
}

// refusal is the error answer that a fault asks for, or nil.
func (f *Fault) refusal() *refusal {
	if f.Status == 0 {
		return nil
	}
	no := &refusal{f.Status, f.ErrorType, f.Message}
	if no.message == "" {
		no.message = "Too many requests, please wait before trying again."
	}
	return no
}
