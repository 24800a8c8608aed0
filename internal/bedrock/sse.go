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

// A UsageFilter takes out of a Chat Completions stream what only those callers get who ask
// for its usage: the gateway did, see Body.WithUsage. That is the chunk with the usage and
// no choices (many clients read the first choice of every chunk, and this one has none),
// and the member "usage":null of all other chunks (OpenAI's API reference, stream_options).
// All other bytes pass unchanged, also usage that rides on a chunk with choices: that chunk
// would have come anyhow, and a member more harms no client. Lines end as Bedrock ends
// them, with LF or CRLF.
type UsageFilter struct {
	held []byte // the event being read
	line int    // bytes of the line being read
	cr   bool   // it begins with a carriage return
	pass bool   // the event is too long for a usage chunk: it passes as it comes
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
		whole := n > 0
		if !whole {
			n = len(p)
		}
		f.held = append(f.held, p[:n]...)
		if f.line == 0 {
			f.cr = p[0] == '\r'
		}
		f.line += n
		p = p[n:]
		ends := whole && (f.line == 1 || f.line == 2 && f.cr) // an empty line
		if whole {
			f.line = 0
		}
		switch {
		case ends && !f.pass:
			f.out = appendAsUnasked(f.out, f.held)
			f.held = f.held[:0]
		case f.pass, len(f.held) > maxUsageChunk:
			f.out = append(f.out, f.held...)
			f.pass, f.held = !ends, f.held[:0]
		}
	}
	return f.out
}

// End returns what is held at the end of the stream.
func (f *UsageFilter) End() []byte {
	if f.pass {
		return f.held
	}
	return appendAsUnasked(nil, f.held)
}

// appendAsUnasked appends an event as a caller gets it who asked for no usage.
func appendAsUnasked(out, event []byte) []byte {
	switch {
	case !bytes.Contains(event, usageWord):
		return append(out, event...)
	case isUsageChunk(event):
		return appendComments(out, event)
	}
	from, to := nullUsage(event)
	return append(append(out, event[:from]...), event[to:]...)
}

// nullUsage is the place of a chunk's member "usage":null, with its comma: the one after it,
// or if it is the last the one before it. It is empty where there is none. A chunk is one
// line of data; what is more, or no JSON, is left alone.
func nullUsage(event []byte) (from, to int) {
	start, end, at := -1, 0, 0
	for line := range bytes.Lines(event) {
		if field, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte{':'}); string(field) == "data" {
			if start >= 0 {
				return 0, 0
			}
			start, end = at+len(field), at+len(bytes.TrimRight(line, "\r\n"))
		}
		at += len(line)
	}
	if start < 0 || start == end {
		return 0, 0
	}
	data := event[start+1 : end] // the blank after the colon is one before the value
	start++
	first := skipBlank(data, 0) + 1
	err := readObject(data, func(m jsonMember) error {
		if string(m.name) == "usage" && data[m.valueStart] == 'n' {
			from, to = m.nameStart, m.valueEnd
		}
		return nil
	})
	if err != nil || to == 0 {
		return 0, 0
	}
	if after := skipBlank(data, to); data[after] == ',' {
		to = skipBlank(data, after+1)
	} else if from != skipBlank(data, first) {
		from = bytes.LastIndexByte(data[:from], ',')
	}
	return start + from, start + to
}

// appendComments appends the comments that stand in an event: they are not of it.
func appendComments(out, event []byte) []byte {
	for line := range bytes.Lines(event) {
		if line[0] == ':' {
			out = append(out, line...)
		}
	}
	return out
}

// isUsageChunk reports whether an event holds usage and no choices. What is not JSON is
// not ours to take away.
func isUsageChunk(event []byte) bool {
	if !bytes.Contains(event, usageWord) {
		return false
	}
	is := false
	s := eventScanner{each: func(_, data []byte) {
		none, usage := false, false
		err := readObject(data, func(m jsonMember) error {
			switch v := data[m.valueStart:m.valueEnd]; string(m.name) {
			case "choices":
				none = v[0] == '[' && elements(v) == 0 || v[0] == 'n'
			case "usage":
				usage = v[0] == '{'
			}
			return nil
		})
		is = err == nil && none && usage
	}}
	s.Write(event)
	s.end()
	return is
}
