//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"
)

// Every call has a number. It stands in the request's body, in the answer's body and in
// the answer's request id, as twelve hexadecimal digits at a fixed place, so that an
// answer that belongs to another call is seen.
const (
	digits    = 12
	requestID = "00000000-0000-4000-8000-" // and the number
	noNumber  = "000000000000"
)

func putNumber(b []byte, n int64) {
	const hexDigits = "0123456789abcdef"
	for i := digits - 1; i >= 0; i-- {
		b[i] = hexDigits[n&15]
		n >>= 4
	}
}

func readNumber(b []byte) (int64, bool) {
	var n int64
	for _, c := range b[:digits] {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | int64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | int64(c-'a'+10)
		default:
			return 0, false
		}
	}
	return n, true
}

// A numbered is a text with the number of a call at one place.
type numbered struct {
	text []byte
	at   int
}

func newNumbered(text string) numbered {
	return numbered{[]byte(text), strings.Index(text, noNumber)}
}

// is reports whether b is the text with a number.
func (t numbered) is(b []byte, n int64) bool {
	var number [digits]byte
	putNumber(number[:], n)
	return len(b) == len(t.text) && bytes.Equal(b[:t.at], t.text[:t.at]) && bytes.Equal(b[t.at:t.at+digits], number[:]) &&
		bytes.Equal(b[t.at+digits:], t.text[t.at+digits:])
}

const (
	modelID = "anthropic.claude-haiku-4-5-20251001-v1%3A0"
	prose   = `The pallets of the second berth were counted at noon, twice.\nOne manifest says \"forty\", the other forty-one; the quay’s own list agrees with neither. `
)

// requestBody is a Converse body of about so many bytes: a conversation of turns of four
// kilobytes at most, as JSON without blanks.
func requestBody(size int) numbered {
	tail := `],"system":[{"text":"call ` + noNumber + `"}],"inferenceConfig":{"maxTokens":512}}`
	var b strings.Builder
	b.WriteString(`{"messages":[`)
	for turn := 0; b.Len()+len(tail) < size || turn == 0; turn++ {
		if turn > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":%q,"content":[{"text":"`, []string{"user", "assistant"}[turn%2])
		for end := b.Len() + 4096; b.Len() < end && b.Len()+len(tail)+len(prose) < size; {
			b.WriteString(prose)
		}
		b.WriteString(`"}]}`)
	}
	b.WriteString(tail)
	return newNumbered(b.String())
}

// answerBody is a Converse answer of one kilobyte.
func answerBody() numbered {
	return newNumbered(`{"metrics":{"latencyMs":412},"output":{"message":{"content":[{"text":"As to call ` + noNumber + `: ` +
		strings.Repeat(prose, 5) + `"}],"role":"assistant"}},"stopReason":"end_turn","usage":{"inputTokens":240,"outputTokens":190,"totalTokens":430}}`)
}

// A streamAnswer is the answer of ConverseStream: the frames of an AWS event stream. The
// first one bears the number of the call.
type streamAnswer struct {
	frames [][]byte
	at     int // of the number within the first frame
	whole  int // bytes of all frames
}

func newStreamAnswer(events int) (*streamAnswer, error) {
	s := &streamAnswer{}
	add := func(kind, payload string) error {
		var h eventstream.Headers
		h.Set(":event-type", eventstream.StringValue(kind))
		h.Set(":content-type", eventstream.StringValue("application/json"))
		h.Set(":message-type", eventstream.StringValue("event"))
		var b bytes.Buffer
		if err := eventstream.NewEncoder().Encode(&b, eventstream.Message{Headers: h, Payload: []byte(payload)}); err != nil {
			return fmt.Errorf("encode event: %w", err)
		}
		s.frames, s.whole = append(s.frames, b.Bytes()), s.whole+b.Len()
		return nil
	}
	err := add("messageStart", `{"p":"`+noNumber+`","role":"assistant"}`)
	for range events - 3 {
		if err == nil {
			err = add("contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":" pallets of the second"},"p":"abcdefghijklmnopqr"}`)
		}
	}
	if err == nil {
		err = add("messageStop", `{"p":"abcdefghijkl","stopReason":"end_turn"}`)
	}
	if err == nil {
		err = add("metadata", `{"metrics":{"latencyMs":412},"p":"abcdefghij","usage":{"inputTokens":240,"outputTokens":190,"totalTokens":430}}`)
	}
	if err != nil {
		return nil, err
	}
	s.at = bytes.Index(s.frames[0], []byte(noNumber))
	return s, nil
}

// first appends the first frame of a call.
func (s *streamAnswer) first(b []byte, n int64) []byte {
	from := len(b)
	b = append(b, s.frames[0]...)
	frame := b[from:]
	putNumber(frame[s.at:], n)
	end := len(frame) - 4
	binary.BigEndian.PutUint32(frame[end:], crc32.ChecksumIEEE(frame[:end]))
	return b
}

// is reports whether b is the whole answer of a call.
func (s *streamAnswer) is(b []byte, n int64) bool {
	if len(b) != s.whole {
		return false
	}
	var space [256]byte
	for i, frame := range s.frames {
		if i == 0 {
			frame = s.first(space[:0], n)
		}
		if !bytes.Equal(b[:len(frame)], frame) {
			return false
		}
		b = b[len(frame):]
	}
	return true
}
