package bedrock

import "bytes"

// maxEvent bounds the data of one server-sent event. One event of a Responses stream
// can hold the whole response.
const maxEvent = 16 << 20

// An eventScanner reads server-sent events as they pass, cut anywhere.
type eventScanner struct {
	line  []byte
	name  []byte
	data  []byte
	skip  bool // the event is too long
	each  func(name, data []byte)
	count int
}

func (s *eventScanner) Write(p []byte) {
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n')
		if n < 0 {
			if len(s.line)+len(p) > maxEvent {
				s.skip = true
				s.line = s.line[:0]
				return
			}
			s.line = append(s.line, p...)
			return
		}
		line := p[:n]
		if len(s.line) > 0 {
			s.line = append(s.line, line...)
			line = s.line
		}
		s.take(bytes.TrimSuffix(line, []byte{'\r'}))
		s.line = s.line[:0]
		p = p[n+1:]
	}
}

func (s *eventScanner) take(line []byte) {
	if len(line) == 0 {
		if !s.skip && (len(s.data) > 0 || len(s.name) > 0) {
			s.count++
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
		if len(s.data)+len(value) > maxEvent {
			s.skip = true
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
	if len(s.line) > 0 {
		s.take(bytes.TrimSuffix(s.line, []byte{'\r'}))
		s.line = s.line[:0]
	}
	s.take(nil)
}
