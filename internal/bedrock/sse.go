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

// A UsageFilter makes a Chat Completions stream what it would be if nobody had asked for
// usage, for callers who did not: the gateway did, see Body.WithUsage. The usage chunk
// goes, since many clients read the first choice of every chunk and this one has none, and
// so does the member usage of the other chunks, which is null there (API reference of
// OpenAI, "stream_options"). All other bytes pass unchanged, also usage that rides on a
// chunk with choices: that chunk would have come anyhow, and a member more harms no
// client. Lines end as Bedrock ends them, with LF or CRLF.
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
			f.out = appendUnasked(f.out, f.held)
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
	if f.pass {
		return f.held
	}
	return appendUnasked(nil, f.held)
}

// appendUnasked appends what an event is to those who did not ask for usage.
func appendUnasked(out, event []byte) []byte {
	if !bytes.Contains(event, usageWord) {
		return append(out, event...)
	}
	if isUsageChunk(event) {
		return appendComments(out, event)
	}
	from, to := nullUsage(event)
	return append(append(out, event[:from]...), event[to:]...)
}

// nullUsage is where a chunk says that it has no usage, with the comma, if it does, and if
// its data stands on one line.
func nullUsage(event []byte) (from, to int) {
	at := 0
	for line := range bytes.Lines(event) {
		if data, is := bytes.CutPrefix(line, []byte("data:")); is {
			if to > 0 {
				return 0, 0
			}
			chunk, last := false, false
			err := readObject(data, func(m jsonMember) error {
				last = false
				switch v := data[m.valueStart:m.valueEnd]; string(m.name) {
				case "choices":
					chunk = v[0] == '['
				case "usage":
					if last = v[0] == 'n'; last {
						from, to = m.nameStart, m.valueEnd
					}
				}
				return nil
			})
			if err != nil || !chunk || to == 0 {
				return 0, 0
			}
			if last {
				if comma := bytes.LastIndexByte(data[:from], ','); comma >= 0 { // choices stand before it
					from = comma
				}
			} else {
				to = skipBlank(data, skipBlank(data, to)+1)
			}
			from, to = at+len("data:")+from, at+len("data:")+to
		}
		at += len(line)
	}
	return from, to
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
