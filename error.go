package waybill

import (
	"errors"
	"fmt"
)

// A Kind of failure picks the HTTP status of the gateway and the exit code of a
// command, in one table at each edge.
type ErrorKind int

// The kinds of failure.
const (
	Internal        ErrorKind = iota // our fault, or not told apart
	Invalid                          // what was sent cannot be: 400
	Unauthenticated                  // we do not know who calls: 401
	Denied                           // we know, and may not: 403
	NotFound                         // no such thing: 404
	TooLarge                         // over a limit: 413
	Unavailable                      // try again later: 503
	Unsupported                      // we do not do that: 501
	Misused                          // a command line or file that cannot be: exit 2
	TooMany                          // more at once than the caller may: 429
)

// An Error is what may be shown to the person outside. Its message is for them,
// its cause for our log.
type Error struct {
	Kind    ErrorKind
	Code    string // stable, such as WB1203; empty where none is promised
	Message string // what is wrong, and with what
	Hint    string // the remedy
	MayRun  bool   // AWS may have run the call, and may bill it: clients are told not to try again
	Err     error  // the cause; not shown
}

// Error is the message, the hint and the cause: for logs.
func (e *Error) Error() string {
	s := e.Message
	if e.Code != "" {
		s += " [" + e.Code + "]"
	}
	if e.Err != nil {
		s = fmt.Sprintf("%s: %v", s, e.Err)
	}
	return s
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first *Error in err's chain, else Internal.
func KindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}
