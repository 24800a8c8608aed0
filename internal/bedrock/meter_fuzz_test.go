package bedrock_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

// FuzzEventStream: the SDK's own decoder says which frames a stream has. What the meter
// reads is what they say, and the same however the stream is cut.
func FuzzEventStream(f *testing.F) {
	metadata := event("metadata", `{"usage":{"inputTokens":10,"outputTokens":20}}`)
	f.Add(metadata, 1, 5)
	f.Add(append(event("messageStop", `{"stopReason":"end_turn"}`), metadata...), 3, 100)
	f.Add(append(bytes.Clone(metadata), message("exception", "throttlingException", `{"message":"slow"}`)...), 12, 1)
	f.Add(metadata[:len(metadata)-2], 2, 2)
	f.Add([]byte("<html>"), 1, 1)
	f.Fuzz(func(t *testing.T, stream []byte, a, b int) {
		for _, op := range []bedrock.Operation{bedrock.ConverseStream, bedrock.InvokeModelWithResponseStream} {
			s := eventStream(op, stream)
			got := s.read()
			if !got.Usage.Known && got.From == "" || !bytes.Equal(s.body, stream) {
				t.Fatalf("%v of %q", fields(got), stream)
			}
			if cut := s.read(a, b); cut != got {
				t.Fatalf("cut by %d and %d: %v\nin one piece: %v", a, b, fields(cut), fields(got))
			}
			if op == bedrock.ConverseStream {
				want, exception := decoded(stream)
				if usageText(got.Usage) != usageText(want) || got.Exception != exception {
					t.Fatalf("usage %s, exception %q; the SDK's decoder: %s, %q", usageText(got.Usage), got.Exception, usageText(want), exception)
				}
			}
		}
	})
}

// decoded is what the frames say that the SDK's decoder finds, read by encoding/json.
func decoded(stream []byte) (u waybill.Usage, exception string) {
	d := eventstream.NewDecoder()
	r := bytes.NewReader(stream)
	for {
		m, err := d.Decode(r, nil)
		if err != nil {
			return u, exception
		}
		header := func(name string) string {
			if v := m.Headers.Get(name); v != nil {
				return v.String()
			}
			return ""
		}
		switch header(":message-type") {
		case "exception":
			exception = header(":exception-type")
		case "error":
			exception = header(":error-code")
		case "event":
			var p struct {
				Usage struct{ InputTokens, OutputTokens *int64 }
			}
			if header(":event-type") == "metadata" && json.Unmarshal(m.Payload, &p) == nil && p.Usage.InputTokens != nil && p.Usage.OutputTokens != nil {
				u = waybill.NewUsage().With(waybill.Input, *p.Usage.InputTokens).With(waybill.Output, *p.Usage.OutputTokens)
			}
		}
	}
}

// FuzzFrames puts any texts into frames that the SDK encodes, and finds them again.
func FuzzFrames(f *testing.F) {
	f.Add("end_turn", int64(10), int64(20), "padding")
	f.Add("", int64(0), int64(1)<<47, "\x00\xff\"")
	f.Fuzz(func(t *testing.T, stop string, in, out int64, padding string) {
		if in < 0 || out < 0 || in >= 1<<48 || out >= 1<<48 {
			t.Skip("no counts")
		}
		first, err := json.Marshal(map[string]any{"stopReason": stop, "p": padding})
		if err != nil {
			t.Fatal(err)
		}
		second, err := json.Marshal(map[string]any{"p": padding, "usage": map[string]int64{"inputTokens": in, "outputTokens": out}, "trace": padding})
		if err != nil {
			t.Fatal(err)
		}
		got := eventStream(bedrock.ConverseStream, event("messageStop", string(first)), event("metadata", string(second))).read(7, 64)
		var plain struct{ StopReason string }
		if err := json.Unmarshal(first, &plain); err != nil {
			t.Fatal(err)
		}
		if got.Usage != waybill.NewUsage().With(waybill.Input, in).With(waybill.Output, out) || !got.Whole || got.StopReason != plain.StopReason && len(stop) < 1000 {
			t.Fatalf("%v of %q, %d, %d", fields(got), stop, in, out)
		}
	})
}

// FuzzServerSentEvents: the same reading however the stream is cut, and the filter
// takes nothing away but usage chunks.
func FuzzServerSentEvents(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n"), 1, 9)
	f.Add([]byte("event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":7}}}\r\n\r\nevent: message_stop\ndata: {}\n\n"), 2, 30)
	f.Add([]byte("data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"background\":true,\"usage\":null}}\n\ndata: {\"type\":\"response.incomplete\",\"response\":{\"usage\":{\"input_tokens\":16,\"output_tokens\":11}}}\n\n"), 5, 5)
	f.Add([]byte("data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":16,\"output_tokens\":11}}}\n\n"), 5, 5)
	f.Add([]byte("event: error\ndata: {\"error\":\"usage\"}\n\n:\n\r\n\n"), 1, 2)
	f.Fuzz(func(t *testing.T, stream []byte, a, b int) {
		before := bytes.Clone(stream)
		for _, op := range []bedrock.Operation{bedrock.ChatCompletions, bedrock.Responses, bedrock.GetResponse, bedrock.Messages} {
			s := sse(op, "")
			s.body = stream
			got := s.read()
			if !got.Usage.Known && got.From == "" || !bytes.Equal(stream, before) {
				t.Fatalf("%s: %v, stream %q", op, fields(got), stream)
			}
			if cut := s.read(a, b); cut != got {
				t.Fatalf("%s, cut by %d and %d: %v\nin one piece: %v", op, a, b, fields(cut), fields(got))
			}
		}
		filtered := func(n int) (out []byte) {
			var filter bedrock.UsageFilter
			for left := stream; len(left) > 0; {
				k := min(n, len(left))
				out = append(out, filter.Filter(left[:k])...)
				left = left[k:]
			}
			return append(out, filter.End()...)
		}
		whole := filtered(len(stream))
		if cut := filtered(max(1, a)); !bytes.Equal(cut, whole) {
			t.Fatalf("filtered in pieces of %d: %q, in one: %q", max(1, a), cut, whole)
		}
		if !bytes.Contains(stream, []byte(`"usage"`)) && !bytes.Equal(whole, stream) {
			t.Fatalf("filtered %q is %q", stream, whole)
		}
	})
}

// FuzzUsageFilter: the events of a stream are cut apart and looked at in the plainest way
// there is. Whatever pieces the stream comes in, after each of them the caller has every
// whole event so far but the usage chunks, and nothing of one that is not whole.
func FuzzUsageFilter(f *testing.F) {
	const delta, usage = "data: {\"choices\":[{}],\"usage\":null}\n\n", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n"
	f.Add([]byte(delta+usage+"data: [DONE]\n\n"), uint16(3), uint16(50))
	f.Add([]byte(strings.ReplaceAll(delta+usage, "\n", "\r\n")), uint16(1), uint16(1))
	f.Add([]byte(": c\n"+usage+"\n\n\r\n: d\r\n\ndata: {\"choices\":[],\ndata: \"usage\":{}}\n\n"), uint16(7), uint16(2))
	f.Add([]byte(usage+strings.TrimSpace(usage)), uint16(9), uint16(9))
	f.Add([]byte("data: { \"usage\" : null , \"a\":{\"usage\":null}}\n\nid: 1\ndata:{\"usage\":null}\r\n\r\n"), uint16(4), uint16(90))
	// passed is what may have left of whole events, and how many bytes they are.
	passed := func(stream []byte) (out []byte, n int) {
		at := 0
		for line := range bytes.Lines(stream) {
			at += len(line)
			if string(line) == "\n" || string(line) == "\r\n" { // an empty line ends an event
				out = append(out, withoutUsage(stream[n:at])...)
				n = at
			}
		}
		return out, n
	}
	f.Fuzz(func(t *testing.T, stream []byte, a, b uint16) {
		if len(stream) > 32<<10 {
			t.Skip("longer than a usage chunk")
		}
		var filter bedrock.UsageFilter
		var got []byte
		for i, at := 0, 0; at < len(stream); i++ {
			n := min(len(stream)-at, 1+int([]uint16{a, b}[i%2])%200)
			got = append(got, filter.Filter(stream[at:at+n])...)
			at += n
			if want, _ := passed(stream[:at]); !bytes.Equal(got, want) {
				t.Fatalf("%q after %d bytes: %q, want %q", stream, at, got, want)
			}
		}
		want, n := passed(stream)
		want = append(want, withoutUsage(stream[n:])...)
		if got = append(got, filter.End()...); !bytes.Equal(got, want) {
			t.Fatalf("%q: %q, want %q", stream, got, want)
		}
	})
}

// withoutUsage is an event as a caller sees it who asked for no usage.
func withoutUsage(event []byte) []byte {
	var data, comments []string
	lines := 0
	for line := range strings.Lines(string(event)) {
		text := strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if strings.HasPrefix(text, ":") {
			comments = append(comments, line)
		} else if field, value, _ := strings.Cut(text, ":"); field == "data" {
			data = append(data, strings.TrimPrefix(value, " "))
			lines++
		}
	}
	for len(data) > 0 && data[0] == "" {
		data = data[1:]
	}
	v := jsontext.Value(strings.Join(data, "\n"))
	var members map[string]json.RawMessage
	if !v.IsValid() || json.Unmarshal(v, &members) != nil {
		return event
	}
	var choices []json.RawMessage
	var usage map[string]json.RawMessage
	if string(members["usage"]) == "null" && lines == 1 && bytes.Contains(event, []byte(`"usage"`)) {
		at := bytes.Index(append([]byte{'\n'}, event...), []byte("\ndata:")) + len("data:")
		return slices.Concat(event[:at], withoutNull(event[at:]))
	}
	if members["choices"] == nil || json.Unmarshal(members["choices"], &choices) != nil || len(choices) > 0 || json.Unmarshal(members["usage"], &usage) != nil || usage == nil ||
		!bytes.Contains(event, []byte(`"usage"`)) { // its name written with escapes: no server does
		return event
	}
	return []byte(strings.Join(comments, ""))
}

// withoutNull is a text that begins with an object, without that object's member usage.
// The decoder says where members begin and end.
func withoutNull(text []byte) []byte {
	type place struct{ name, end int64 }
	var members []place
	this := -1
	d := jsontext.NewDecoder(bytes.NewReader(text))
	d.ReadToken() // the opening brace
	for d.PeekKind() == '"' {
		name, _ := d.ReadValue()
		at := d.InputOffset() - int64(len(name))
		if plain, _ := jsontext.AppendUnquote(nil, name); string(plain) == "usage" {
			this = len(members)
		}
		d.SkipValue()
		members = append(members, place{at, d.InputOffset()})
	}
	m := members[this]
	switch {
	case this < len(members)-1:
		return slices.Concat(text[:m.name], text[members[this+1].name:])
	case this > 0:
		before := members[this-1].end
		return slices.Concat(text[:before+int64(bytes.IndexByte(text[before:], ','))], text[m.end:])
	}
	return slices.Concat(text[:m.name], text[m.end:])
}

// FuzzBody: an answer in one JSON object is read as encoding/json reads it, and the
// same however it is cut.
func FuzzBody(f *testing.F) {
	for _, body := range []string{`{"usage":{"inputTokens":1,"outputTokens":2}}`, `{"a":"\"usage\":","usage" : {"inputTokens":3,"outputTokens":0} ,"b":[{"usage":{}}]}`,
		`{"usage":{"input_tokens":1,"output_tokens":2}}`, `{"images":["a","b",[1,2],{"c":[3]}]}`, `{"usage":{"prompt_tokens":5,"completion_tokens":1}}`, `[]`, `{}{}`, `{"a":1}}`,
		`{"query":"q","documents":["a"],"results":[{}]}`, `{"invocationArn":"arn","modelInput":{"taskType":"MULTI_SHOT_MANUAL","multiShotManualParams":{"shots":[1,2]}}}`, `{"id":"r","background":true,"status":"completed","model":"m","usage":{"input_tokens":1,"output_tokens":2},"output":[{"type":"web_search_call"}]}`,
		`{"trace":{"promptRouter":{"invokedModelId":"m"},"guardrail":{"a":{"topicPolicyUnits":3}}},"usage":{"textUnits":4}}`} {
		f.Add([]byte(body), 1, 3)
	}
	f.Fuzz(func(t *testing.T, body []byte, a, b int) {
		request := string(body) // whatever it is: it is read as well
		before := bytes.Clone(body)
		for _, op := range []bedrock.Operation{bedrock.Converse, bedrock.InvokeModel, bedrock.StartAsyncInvoke, bedrock.ChatCompletions, bedrock.Responses, bedrock.Messages, bedrock.Embeddings, bedrock.GetResponse, bedrock.ApplyGuardrail, bedrock.InvokeGuardrailChecks} {
			for _, status := range []int{200, 400} {
				s := answer{route: route(op), status: status, header: headers(), body: body, request: request, model: "amazon.nova-reel-v1:1"}
				got := s.read()
				if !got.Usage.Known && got.From == "" || !bytes.Equal(body, before) {
					t.Fatalf("%s: %v, body %q", op, fields(got), body)
				}
				if cut := s.read(a, b); cut != got {
					t.Fatalf("%s, cut by %d and %d: %v\nin one piece: %v", op, a, b, fields(cut), fields(got))
				}
			}
		}
		var plain map[string]json.RawMessage
		if !json.Valid(body) || json.Unmarshal(body, &plain) != nil || strings.Contains(string(body), `\u`) {
			return
		}
		got := answer{route: route(bedrock.InvokeModel), status: 200, header: headers(), body: body}.read()
		var images []json.RawMessage
		if json.Unmarshal(plain["images"], &images) == nil && bytes.Count(body, []byte(`"images"`)) == 1 && !bytes.Contains(body, []byte("artifacts")) &&
			got.Usage.Of(waybill.OutputImage) != int64(len(images)) && !got.UnknownOperation {
			t.Fatalf("%d images in %q, metered as %s", len(images), body, usageText(got.Usage))
		}
	})
}

// FuzzBodyUsage: a body of a log record tells what the meter would have read of the
// same answer.
func FuzzBodyUsage(f *testing.F) {
	f.Add([]byte(`{"usage":{"inputTokens":1,"outputTokens":2}}`))
	f.Add([]byte(`{"inputTextTokenCount":7,"results":[{"tokenCount":20}]}`))
	f.Add([]byte(`[{"message":{"usage":{"input_tokens":1}}},{"amazon-bedrock-invocationMetrics":{"inputTokenCount":1,"outputTokenCount":2}}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, ok := bedrock.BodyUsage(body)
		if ok != got.Known {
			t.Fatalf("usage %s, told %v", usageText(got), ok)
		}
		var parts []json.RawMessage
		a := answer{route: route(bedrock.InvokeModel), status: 200, header: headers(), body: body}
		if json.Unmarshal(body, &parts) == nil {
			a = eventStream(bedrock.InvokeModelWithResponseStream)
			for _, p := range parts {
				a.body = append(a.body, part(string(p))...)
			}
		} else if !json.Valid(body) {
			return
		}
		want := a.read()
		if want.UnknownOperation {
			return
		}
		if usageText(got) != usageText(want.Usage) {
			t.Fatalf("%q: %s, metered as %s", body, usageText(got), usageText(want.Usage))
		}
	})
}

// TestLogSamples compares the usage of the bodies in real log records with the counters
// beside them.
func TestLogSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "..", "shared", "samples", "log-*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Skip("the samples are not here")
	}
	compared := 0
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var record struct {
				RequestID string
				Input     struct{ InputTokenCount int64 }
				Output    struct {
					OutputTokenCount int64
					OutputBodyJSON   json.RawMessage `json:"outputBodyJson"`
				}
			}
			if err := json.Unmarshal(lines.Bytes(), &record); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			u, ok := bedrock.BodyUsage(record.Output.OutputBodyJSON)
			if !ok {
				continue
			}
			compared++
			if u.Of(waybill.Input) != record.Input.InputTokenCount || u.Of(waybill.Output) != record.Output.OutputTokenCount {
				t.Errorf("%s, %s: body says %s, counters %d and %d", filepath.Base(name), record.RequestID, usageText(u), record.Input.InputTokenCount, record.Output.OutputTokenCount)
			}
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if compared == 0 {
		t.Error("no record had usage in its body")
	}
}

func BenchmarkMeter(b *testing.B) {
	delta := event("contentBlockDelta", `{"contentBlockIndex":0,"delta":{"text":"some more of it"},"p":"abcdefghijklmnop"}`)
	claude := part(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"some more of it"}}`)
	llama := part(`{"generation":"some","prompt_token_count":null,"generation_token_count":9,"stop_reason":null}`)
	text := []byte(`{"output":{"message":{"content":[{"text":"` + strings.Repeat("some more of it\\n", 1<<10) + `"}]}},"usage":{"inputTokens":1,"outputTokens":2}}`)
	image := []byte(`{"images":["` + strings.Repeat("QUJD", 1<<18) + `"]}`)
	chatDelta := "data: {\"id\":\"c1\",\"choices\":[{\"delta\":{\"content\":\"some more of it\"}}],\"usage\":null}\n\n"
	for _, bb := range []struct {
		name   string
		answer answer
		unit   int
	}{
		{"converse frame", eventStream(bedrock.ConverseStream, bytes.Repeat(delta, 1000)), 1000},
		{"claude chunk", eventStream(bedrock.InvokeModelWithResponseStream, bytes.Repeat(claude, 1000)), 1000},
		{"llama chunk", eventStream(bedrock.InvokeModelWithResponseStream, bytes.Repeat(llama, 1000)), 1000},
		{"chat event", sse(bedrock.ChatCompletions, strings.Repeat(chatDelta, 1000)), 1000},
		{"unary 1KB", answer{route: route(bedrock.Converse), status: 200, header: headers(), body: []byte(`{"metrics":{"latencyMs":50},"output":{"message":{"content":[{"text":"` + strings.Repeat("some more of it, ", 50) + `"}],"role":"assistant"}},"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":200,"totalTokens":210}}`)}, 1},
		{"unary 16KB", answer{route: route(bedrock.Converse), status: 200, header: headers(), body: text}, 1},
		{"image 1MB", answer{route: route(bedrock.InvokeModel), status: 200, header: headers(), body: image}, 1},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.answer.body)))
			b.ReportAllocs()
			for b.Loop() {
				bb.answer.read(16 << 10)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*bb.unit), "ns/unit")
		})
	}
}
