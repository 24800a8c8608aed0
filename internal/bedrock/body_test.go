package bedrock_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

var (
	converse = bedrock.Route{Operation: bedrock.Converse, Carrier: bedrock.MetadataBody, Spends: true}
	chat     = bedrock.Route{Operation: bedrock.ChatCompletions, Shape: bedrock.OpenAI, ModelInBody: true, Spends: true}
)

func tags(pairs ...string) waybill.Tags {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return waybill.TagsFromMap(m)
}

func TestStamp(t *testing.T) {
	team := tags("team", "search")
	tests := []struct {
		name, body string
		stamp      waybill.Tags
		want       string
		asked      waybill.Tags
	}{
		{"put first", `{"messages":[]}`, team, `{"requestMetadata":{"team":"search"},"messages":[]}`, tags()},
		{"into an empty object", " { } ", team, ` {"requestMetadata":{"team":"search"} } `, tags()},
		{"in place of the caller's", `{"a":1, "requestMetadata" : {"team":"ads"} , "b":2}`, team, `{"a":1, "requestMetadata" : {"team":"search"} , "b":2}`, tags("team", "ads")},
		{"in place of null", `{"requestMetadata":null}`, team, `{"requestMetadata":{"team":"search"}}`, tags()},
		{"the name written with an escape", `{"\u0072equestMetadata":{"k":"v"}}`, team, `{"\u0072equestMetadata":{"team":"search"}}`, tags("k", "v")},
		{"another case is another member", `{"RequestMetadata":1}`, team, `{"requestMetadata":{"team":"search"},"RequestMetadata":1}`, tags()},
		{"a nested one is not ours", `{"x":{"requestMetadata":{}}}`, team, `{"requestMetadata":{"team":"search"},"x":{"requestMetadata":{}}}`, tags()},
		{"no tags, no member", `{"a":1}`, tags(), `{"a":1}`, tags()},
		{"taken out, alone", `{ "requestMetadata":{} }`, tags(), `{  }`, tags()},
		{"taken out, first", `{"requestMetadata":{}, "b":2}`, tags(), `{"b":2}`, tags()},
		{"taken out, last", `{"b":"," , "requestMetadata":{}}`, tags(), `{"b":"," }`, tags()},
		{"taken out, between", `{"a":1,"requestMetadata":null,"b":2}`, tags(), `{"a":1,"b":2}`, tags()},
		{"values that need escapes", "{}", tags("k", "a\"\\\u2028é"), "{\"requestMetadata\":{\"k\":\"a\\\"\\\\\u2028é\"}}", tags()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := []byte(tt.body)
			b, err := bedrock.ReadBody(src, converse)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(b.Stamp(tt.stamp)); got != tt.want {
				t.Errorf("stamped\n%s\nwant\n%s", got, tt.want)
			}
			if !b.Metadata.Equal(tt.asked) {
				t.Errorf("the caller's own = %s, want %s", b.Metadata.Canonical(), tt.asked.Canonical())
			}
			if string(src) != tt.body {
				t.Errorf("the body that was read changed: %s", src)
			}
		})
	}
}

func TestRefusedBodies(t *testing.T) {
	for _, body := range []string{"", " ", "null", "[]", `"x"`, "{", `{"a":1`, `{"a":1}}`, `{"a":1} {"b":2}`, `{"a":1,}`, `{'a':1}`, "\ufeff{}",
		`{"a":1,"a":2}`, `{"requestMetadata":{"a":"b"},"\u0072equestMetadata":{}}`, `{"x":{"a":1,"a":2}}`, `{"a":NaN}`, "{\"a\":\"\xff\"}",
		`{"requestMetadata":[]}`, `{"requestMetadata":"team=search"}`, `{"requestMetadata":{"a":1}}`, `{"requestMetadata":{"a":null}}`,
		`{"requestMetadata":{"a":"b","a":"c"}}`, `{"requestMetadata":{"a":{"b":"c"}}}`, `{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}"} {
		if _, err := bedrock.ReadBody([]byte(body), converse); waybill.KindOf(err) != waybill.Invalid {
			t.Errorf("%.60q: error %v, want one of kind Invalid", body, err)
		}
	}
}

// A refusal goes to logs and to the caller's terminal: it names no content.
func TestRefusedBodyIsNotRepeated(t *testing.T) {
	_, err := bedrock.ReadBody([]byte(`{"prompt-of-user-17":1,"prompt-of-user-17":2}`), converse)
	if e, ok := err.(*waybill.Error); !ok || strings.Contains(e.Message, "user-17") {
		t.Errorf("error %v", err)
	}
}

func TestReadBody(t *testing.T) {
	async := bedrock.Route{Operation: bedrock.StartAsyncInvoke, ModelInBody: true}
	tests := []struct {
		name  string
		route bedrock.Route
		body  string
		want  bedrock.Body
	}{
		{"chat", chat, `{"model":"openai.gpt-oss-120b-1:0","stream":true,"service_tier":"flex"}`,
			bedrock.Body{Model: "openai.gpt-oss-120b-1:0", Stream: true, Tier: "flex"}},
		{"a second name of the model counts for nothing", chat, `{"model":"expensive","modelId":"cheap","Model":"cheap"}`, bedrock.Body{Model: "expensive"}},
		{"async", async, `{"model":"cheap","modelId":"amazon.nova-reel-v1:1"}`, bedrock.Body{Model: "amazon.nova-reel-v1:1"}},
		{"a model that is no string", chat, `{"model":["m"]}`, bedrock.Body{}},
		{"converse", converse, `{"model":"m","serviceTier":{"type":"priority","Type":"default"},"performanceConfig":{"latency":"optimized"}}`,
			bedrock.Body{Tier: "priority", LatencyMode: "optimized"}},
		{"the tier of the other shape", chat, `{"service_tier":"priority","serviceTier":{"type":"flex"},"performanceConfig":{"latency":"optimized"}}`, bedrock.Body{Tier: "priority"}},
		{"the tier of the other shape", converse, `{"serviceTier":{"type":"priority"},"service_tier":"flex","stream":true}`, bedrock.Body{Tier: "priority"}},
		{"stream in quotes", chat, `{"stream":"true"}`, bedrock.Body{}},
	}
	for _, tt := range tests {
		b, err := bedrock.ReadBody([]byte(tt.body), tt.route)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if b.Model != tt.want.Model || b.Stream != tt.want.Stream || b.Tier != tt.want.Tier || b.LatencyMode != tt.want.LatencyMode {
			t.Errorf("%s: %q, stream %v, tier %q, latency %q", tt.name, b.Model, b.Stream, b.Tier, b.LatencyMode)
		}
	}
}

func TestWithUsage(t *testing.T) {
	tests := []struct{ body, want string }{
		{`{}`, `{"stream_options":{"include_usage":true}}`},
		{`{"stream":true}`, `{"stream_options":{"include_usage":true},"stream":true}`},
		{`{"stream_options":null,"a":1}`, `{"stream_options":{"include_usage":true},"a":1}`},
		{`{"stream_options": {} }`, `{"stream_options": {"include_usage":true} }`},
		{`{"stream_options":{ "x":1}}`, `{"stream_options":{"include_usage":true, "x":1}}`},
		{`{"stream_options":{"include_usage":false}}`, `{"stream_options":{"include_usage":true}}`},
	}
	for _, tt := range tests {
		b, err := bedrock.ReadBody([]byte(tt.body), chat)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.WithUsage()
		if err != nil || string(got) != tt.want || b.AsksUsage() {
			t.Errorf("%s -> %s, %v, asked %v; want %s", tt.body, got, err, b.AsksUsage(), tt.want)
		}
		if again, err := bedrock.ReadBody(got, chat); err != nil || !again.AsksUsage() {
			t.Errorf("%s does not ask for usage: %v", got, err)
		}
	}
	b, err := bedrock.ReadBody([]byte(`{"stream_options":[1]}`), chat)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.WithUsage(); waybill.KindOf(err) != waybill.Invalid {
		t.Errorf("stream_options that is an array: %v", err)
	}
}

func TestParseMetadata(t *testing.T) {
	got, err := bedrock.ParseMetadata(` {"team":"search", "app":"chat"} `)
	if want := tags("team", "search", "app", "chat"); err != nil || !got.Equal(want) {
		t.Errorf("got %s, %v", got.Canonical(), err)
	}
	for _, header := range []string{"", "x", "[]", `{"a":1}`, `{"a":null}`, `{"a":"b","a":"c"}`, `{"a":"b"} {}`, `{"a":"` + strings.Repeat("x", 8500) + `"}`} {
		if _, err := bedrock.ParseMetadata(header); waybill.KindOf(err) != waybill.Invalid {
			t.Errorf("%.40q: error %v, want one of kind Invalid", header, err)
		}
	}
}

// Callers forge owners by another spelling of the header, or a second one.
func TestTakeHeaders(t *testing.T) {
	h := http.Header{"X-Amzn-Bedrock-Request-Metadata": {"1", "2"}, "x-amzn-bedrock-REQUEST-metadata": {"3"}, "X_Amzn_Bedrock_Request_Metadata": {"4"},
		"Openai-Project": {"5"}, "anthropic-workspace": {"6"}, "Anthropic-Workspace-Id": {"7"}, "X-Amzn-Bedrock-Projectidentifier": {"8"}, "X-Amzn-Bedrock-Trace": {"ENABLED"}}
	if diff := cmp.Diff([]string{"1", "2", "4", "3"}, bedrock.TakeMetadata(h)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"7", "5", "8", "6"}, bedrock.TakeProject(h)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(http.Header{"X-Amzn-Bedrock-Trace": {"ENABLED"}}, h); diff != "" {
		t.Error(diff)
	}
}

// Whatever the body: it is refused, or stamping changes requestMetadata and nothing
// else, as a parser that is not ours sees it.
func FuzzStamp(f *testing.F) {
	for _, body := range []string{`{}`, ` { "a" : 1 } `, `{"requestMetadata":{"k":"v"}}`, `{"\u0072equestMetadata":{"k":"v"},"b":[1,{"requestMetadata":2}]}`,
		`{"a":1,"requestMetadata":null}`, `{"a":"\",","requestMetadata":{} , "c":1e400}`, `{"messages":[{"role":"user","content":[{"text":"hé"}]}]}`, `{"":{}}`} {
		f.Add([]byte(body), "team", "search")
		f.Add([]byte(body), "", "")
	}
	f.Fuzz(func(t *testing.T, body []byte, key, value string) {
		b, err := bedrock.ReadBody(body, converse)
		if err != nil {
			if waybill.KindOf(err) != waybill.Invalid {
				t.Fatalf("error %v is not for the caller", err)
			}
			return
		}
		var before, after map[string]json.RawMessage
		if err := json.Unmarshal(body, &before); err != nil {
			t.Fatalf("%q was accepted: %v", body, err)
		}
		stamp := tags()
		if key != "" {
			stamp = tags(key, value)
		}
		out := b.Stamp(stamp)
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%q became %q: %v", body, out, err)
		}
		again, err := bedrock.ReadBody(out, converse)
		if err != nil {
			t.Fatalf("%q became %q: %v", body, out, err)
		}
		if !bytes.Equal(again.Stamp(stamp), out) {
			t.Fatalf("stamping %q twice changes it", out)
		}
		if _, there := after["requestMetadata"]; there != (stamp.Len() > 0) {
			t.Fatalf("%q: member there: %v", out, there)
		}
		if stamp.Len() > 0 {
			if start, end := placeOf(t, body, "requestMetadata"); len(out) < start+len(body)-end || !bytes.HasPrefix(out, body[:start]) || !bytes.HasSuffix(out, body[end:]) {
				t.Fatalf("%q became %q: it moved bytes outside %d to %d", body, out, start, end)
			}
			var got map[string]string
			if err := json.Unmarshal(after["requestMetadata"], &got); err != nil || !waybill.TagsFromMap(got).Equal(again.Metadata) {
				t.Fatalf("%q: %v, read again %s", out, err, again.Metadata.Canonical())
			}
		}
		delete(before, "requestMetadata")
		delete(after, "requestMetadata")
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%q became %q", body, out)
		}
	})
}

func BenchmarkStamp(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"1KB", 1 << 10}, {"20KB", 20 << 10}, {"200KB", 200 << 10}} {
		turn := `{"role":"user","content":[{"text":"` + strings.Repeat("What did \\\"it\\\" cost? ", 8) + `"}]}`
		body := []byte(`{"messages":[` + turn + strings.Repeat(","+turn, size.n/len(turn)) + `],"inferenceConfig":{"maxTokens":100}}`)
		stamp := tags("team", "search", "environment", "production", "user", "user-17")
		b.Run(size.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				read, err := bedrock.ReadBody(body, converse)
				if err != nil {
					b.Fatal(err)
				}
				read.Stamp(stamp)
			}
		})
	}
}

// The metadata header is read as AWS reads it, or not at all: what is taken has one
// value for each key, and is written back as the same set.
func FuzzMetadataHeader(f *testing.F) {
	for _, s := range []string{`{"team":"search"}`, ` {"a":"b" , "c":""} `, `{"a":"b","a":"c"}`, `{"a":1}`, `{"a":null}`, `{"\u0061":"x","a":"y"}`, `{}`, `[]`, `{"a":"b"}x`, `{"a":"` + "\xff" + `"}`, `{"a":{"b":"c"}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		tags, err := bedrock.ParseMetadata(header)
		if err != nil {
			if tags.Len() > 0 || len(header) > 8 && strings.Contains(err.Error(), header) {
				t.Errorf("tags beside an error, or an error that repeats the header: %v", err)
			}
			return
		}
		again, err := bedrock.ParseMetadata(tags.Canonical())
		if err != nil || !again.Equal(tags) {
			t.Errorf("%s is read back as %s (%v)", tags.Canonical(), again.Canonical(), err)
		}
		var oracle map[string]string
		if json.Unmarshal([]byte(header), &oracle) != nil || !waybill.TagsFromMap(oracle).Equal(tags) {
			t.Errorf("%q: read %s, the standard library reads %v", header, tags.Canonical(), oracle)
		}
	})
}

// Another model takes the place of the body's one member, and no other byte moves.
func TestWithModel(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{`{"model":"a"}`, `{"model":"arn:b"}`},
		{"{ \"x\" : {\"model\":\"in\"} ,\n\"model\"\t: \"a\\u0061\" , \"y\":1 }", "{ \"x\" : {\"model\":\"in\"} ,\n\"model\"\t: \"arn:b\" , \"y\":1 }"},
		{`{"mod\u0065l":"a"}`, `{"mod\u0065l":"arn:b"}`},
		{`{"model":null}`, `{"model":"arn:b"}`},
		{`{"modelId":"a"}`, `{"modelId":"a"}`},
	} {
		b, err := bedrock.ReadBody([]byte(tt.body), chat)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(b.WithModel("arn:b")); got != tt.want {
			t.Errorf("%s became %s, want %s", tt.body, got, tt.want)
		}
	}
}
