package bedrock

import "bytes"

// maxEvent bounds a line and the data of one server-sent event. One event of a
// Responses stream can hold the whole response.
const maxEvent = 16 << 20

// An eventScanner reads server-sent events as they pass, cut anywhere.
type eventScanner struct {
	line []byte
	long bool // the line is too long: it is dropped up to its end
	name []byte
	data []byte
	skip bool // the event is too long
	each func(name, data []byte)
}

func (s *eventScanner) Write(p []byte) {
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n')
		piece := p
		if n >= 0 {
			piece = p[:n]
		}
		if s.long = s.long || len(s.line)+len(piece) > maxEvent; s.long {
			s.skip, s.line = true, s.line[:0]
		}
		if n < 0 {
			if !s.long {
				s.line = append(s.line, piece...)
			}
			return
		}
		if !s.long {
			if len(s.line) > 0 {
				s.line = append(s.line, piece...)
				piece = s.line
			}
			s.take(bytes.TrimSuffix(piece, []byte{'\r'}))
		}
		s.line, s.long = s.line[:0], false
		p = p[n+1:]
	}
}

func (s *eventScanner) take(line []byte) {
	if len(line) == 0 {
		if !s.skip && (len(s.data) > 0 || len(s.name) > 0) {
			s.each(s.name, s.data)
		}
		s.name, s.data, s.skip = s.name[:0], s.data[:0], false
		return
	}
	field, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(field) {
	case "event":
		s.name = append(s.name[:0], value...)
	case "data":
		if s.skip = s.skip || len(s.data)+len(value) > maxEvent; s.skip {
			return
		}
		if len(s.data) > 0 {
			s.data = append(s.data, '\n')
		}
		s.data = append(s.data, value...)
	}
}

// end takes a last event that no blank line follows.
func (s *eventScanner) end() {
	if len(s.line) > 0 && !s.long {
		s.take(bytes.TrimSuffix(s.line, []byte{'\r'}))
	}
	s.line = s.line[:0]
	s.take(nil)
}

// A UsageFilter takes the usage chunk out of a Chat Completions stream, for callers
// who did not ask for it: the gateway did, see Body.WithUsage. Many clients read the
// first choice of every chunk, and this one has none. All other bytes pass unchanged.
type UsageFilter struct {
	held []byte  // the event being read
	tail [3]byte // the last bytes seen
	pass bool    // the event is too long for a usage chunk: it passes as it comes
	out  []byte
}

// maxUsageChunk is more than any usage chunk has.
const maxUsageChunk = 64 << 10

// Filter takes a piece of the stream and returns what may be passed on: whole events,
// each as soon as its end is seen. The answer is valid until the next call.
func (f *UsageFilter) Filter(p []byte) []byte {
	f.out = f.out[:0]
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 {
			n = len(p)
		}
		piece := p[:n]
		p = p[n:]
		for _, c := range piece[max(0, n-3):] {
			f.tail = [3]byte{f.tail[1], f.tail[2], c}
		}
		f.held = append(f.held, piece...)
		ends := bytes.HasSuffix(f.tail[:], []byte("\n\n")) || string(f.tail[:]) == "\n\r\n"
		switch {
		case ends && !f.pass && isUsageChunk(f.held):
			f.held = f.held[:0]
		case ends, f.pass, len(f.held) > maxUsageChunk:
			f.out = append(f.out, f.held...)
			f.pass, f.held = !ends, f.held[:0]
		}
	}
	return f.out
}

// End returns what is held at the end of the stream.
func (f *UsageFilter) End() []byte {
	if !f.pass && isUsageChunk(f.held) {
		return nil
	}
	return f.held
}

// isUsageChunk reports whether an event holds usage and no choices.
func isUsageChunk(event []byte) bool {
	if !bytes.Contains(event, usageWord) {
		return false
	}
	is := false
	s := eventScanner{each: func(_, data []byte) {
		m := memberScanner{want: wanted}
		m.Write(data)
		choices, there := m.lengths["choices"]
		is = m.done && there && choices == 0 && bytes.HasPrefix(m.found["usage"], []byte{'{'})
	}}
	s.Write(event)
	s.end()
	return is
}
