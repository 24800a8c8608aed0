package bedrock_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

func read(t *testing.T, body string, r bedrock.Route) *bedrock.Body {
	t.Helper()
	b, err := bedrock.ReadBody([]byte(body), r)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return b
}

// The member metadata of OpenAI's shapes holds the caller's own pairs as well.
func TestStampMetadata(t *testing.T) {
	team := tags("app", "chat", "team", "search")
	const ours = `"app":"chat","team":"search"`
	tests := []struct{ name, body, want string }{
		{"put first", `{"model":"m"}`, `{"metadata":{` + ours + `},"model":"m"}`},
		{"into an empty object", ` { } `, ` {"metadata":{` + ours + `} } `},
		{"in place of null", `{"metadata" : null }`, `{"metadata" : {` + ours + `} }`},
		{"in place of an empty one", `{"metadata":{ }}`, `{"metadata":{` + ours + `}}`},
		{"beside the caller's", `{"a":1,"metadata": { "ticket" : "T-1" , "x":"\u00e9" } ,"b":2}`, `{"a":1,"metadata": {` + ours + `,"ticket" : "T-1" , "x":"\u00e9"} ,"b":2}`},
		{"a key that is ours", `{"metadata":{"ticket":"T-1", "team":"ads", "y":"z"}}`, `{"metadata":{` + ours + `,"ticket":"T-1","y":"z"}}`},
		{"in another case, escaped", `{"metadata":{"\u0054EAM":"ads"}}`, `{"metadata":{` + ours + `}}`},
		{"the name written with an escape", `{"\u006detadata":{"k":"v"}}`, `{"\u006detadata":{` + ours + `,"k":"v"}}`},
		{"a nested one is not ours", `{"x":{"metadata":{}}}`, `{"metadata":{` + ours + `},"x":{"metadata":{}}}`},
		{"fourteen of the caller's", `{"metadata":{` + pairs(14) + `}}`, `{"metadata":{` + ours + `,` + pairs(14) + `}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := read(t, tt.body, chat).StampMetadata(team)
			if err != nil || string(got) != tt.want {
				t.Errorf("stamped\n%s, %v\nwant\n%s", got, err, tt.want)
			}
			read(t, string(got), chat)
		})
	}
	b := read(t, `{"metadata":{"a":"b"}}`, chat)
	if got, err := b.StampMetadata(tags()); err != nil || string(got) != `{"metadata":{"a":"b"}}` {
		t.Errorf("without tags: %s, %v", got, err)
	}
}

func pairs(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"k%d":"v"`, i))
	}
	return strings.Join(all, ",")
}

func TestMetadataThatDoesNotFit(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		tags waybill.Tags
	}{
		"fifteen of the caller's": {`{"metadata":{` + pairs(15) + `}}`, tags("app", "chat", "team", "search")},
		"a key of 65 characters":  {`{}`, tags(strings.Repeat("k", 65), "v")},
		"a value of 513":          {`{}`, tags("k", strings.Repeat("v", 513))},
		"a string":                {`{"metadata":"x"}`, tags("k", "v")},
		"an array":                {`{"metadata":["x"]}`, tags("k", "v")},
		"a number in it":          {`{"metadata":{"a":"b","c":1}}`, tags("k", "v")},
	} {
		got, err := read(t, tt.body, chat).StampMetadata(tt.tags)
		if waybill.KindOf(err) != waybill.Invalid || got != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := read(t, `{"metadata":{"app":"x",`+pairs(14)+`}}`, chat).StampMetadata(tags("app", "chat", "team", "search")); err != nil {
		t.Errorf("sixteen with one replaced: %v", err)
	}
}

// All edits are made at once, in whatever order the members come.
func TestEdit(t *testing.T) {
	const m, u = `"metadata":{"k":"v"}`, `"stream_options":{"include_usage":true}`
	tests := []struct{ body, want string }{
		{`{}`, `{` + m + `,` + u + `}`},
		{`{"a":1}`, `{` + m + `,` + u + `,"a":1}`},
		{`{"metadata":{},"a":1,"stream_options":null}`, `{` + m + `,"a":1,` + u + `}`},
		{`{"stream_options":{"include_usage": false ,"x":1},"a":1,"metadata":null}`, `{"stream_options":{"include_usage": true ,"x":1},"a":1,` + m + `}`},
		{`{"stream_options":{},"a":1}`, `{` + m + `,` + u + `,"a":1}`},
		{`{"metadata":{},"a":1}`, `{` + u + `,` + m + `,"a":1}`},
		{`{"stream_options":{"include_usage":true}}`, `{` + m + `,` + u + `}`},
		{`{"stream_options":{} , "model" : "a", "metadata":{}}`, `{` + u + ` , "model" : "arn:b", ` + m + `}`},
		{`{"metadata":null,"model":7,"stream_options":null}`, `{` + m + `,"model":"arn:b",` + u + `}`},
	}
	for _, tt := range tests {
		got, err := read(t, tt.body, chat).Edit(bedrock.Edits{Model: "arn:b", Metadata: tags("k", "v"), Usage: true})
		if err != nil || string(got) != tt.want {
			t.Errorf("%s -> %s, %v; want %s", tt.body, got, err, tt.want)
		}
	}
}

// outside is a body without the values of the members named, as its bytes.
func outside(t *testing.T, body []byte, names ...string) map[string]string {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	rest := map[string]string{}
	for name, v := range members {
		rest[name] = string(v)
	}
	for _, name := range names {
		delete(rest, name)
	}
	return rest
}

// FuzzEdit: whatever the body, the edits change the members they name and not a byte of
// another, and what they change reads as it should.
func FuzzEdit(f *testing.F) {
	for _, body := range []string{`{}`, ` { "a" : 1 } `, `{"metadata":{"k":"v","K":"w"},"stream_options":{"include_usage":false}}`, `{"stream_options":{"\u0069nclude_usage":0},"metadata":null}`,
		`{"a":"\"metadata\":{}","metadata":{ "é":"\ud83d\ude00" }}`, `{"metadata":{"k":1}}`, `{"stream_options":[]}`, `{"x":{"metadata":{"a":"b"}},"\u006detadata":{}}`} {
		f.Add([]byte(body), "team", "search", true)
		f.Add([]byte(body), "k", "v", false)
	}
	f.Fuzz(func(t *testing.T, body []byte, key, value string, withUsage bool) {
		b, err := bedrock.ReadBody(body, chat)
		if err != nil {
			return
		}
		before := bytes.Clone(body)
		own := tags()
		if key != "" {
			own = tags(strings.ToValidUTF8(key, ""), strings.ToValidUTF8(value, ""))
		}
		out, err := b.Edit(bedrock.Edits{Metadata: own, Usage: withUsage})
		if !bytes.Equal(body, before) {
			t.Fatalf("the body that was read changed: %q", body)
		}
		if err != nil {
			if waybill.KindOf(err) != waybill.Invalid || out != nil {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		again, err := bedrock.ReadBody(out, chat)
		if err != nil {
			t.Fatalf("%q became %q: %v", body, out, err)
		}
		if was, is := outside(t, body, "metadata", "stream_options"), outside(t, out, "metadata", "stream_options"); !reflect.DeepEqual(was, is) {
			t.Fatalf("%q became %q", body, out)
		}
		if withUsage && !again.AsksUsage() {
			t.Fatalf("%q became %q, which asks for no usage", body, out)
		}
		was, is := outside(t, body), outside(t, out)
		if !withUsage && was["stream_options"] != is["stream_options"] || own.Len() == 0 && was["metadata"] != is["metadata"] {
			t.Fatalf("%q became %q", body, out)
		}
		if own.Len() > 0 {
			var theirs, both map[string]string
			if was["metadata"] != "" {
				if err := json.Unmarshal([]byte(was["metadata"]), &theirs); err != nil {
					t.Fatal(err)
				}
			}
			if err := json.Unmarshal([]byte(is["metadata"]), &both); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{}
			for k, v := range theirs {
				if !strings.EqualFold(k, own.List()[0].Key) {
					want[k] = v
				}
			}
			want[own.List()[0].Key] = own.List()[0].Value
			if !reflect.DeepEqual(both, want) {
				t.Fatalf("%q became %q: metadata %v, want %v", body, out, both, want)
			}
		}
		if withUsage == (own.Len() > 0) {
			return
		}
		name := "metadata" // the one edit: around its place every byte stands
		if withUsage {
			name = "stream_options"
		}
		start, end := placeOf(t, body, name)
		if len(out) < start+len(body)-end || !bytes.HasPrefix(out, body[:start]) || !bytes.HasSuffix(out, body[end:]) {
			t.Fatalf("%q became %q: it moved bytes outside %d to %d", body, out, start, end)
		}
	})
}

// placeOf is where jsontext finds the value of a top-level member, or after the opening
// brace if there is none.
func placeOf(t *testing.T, body []byte, name string) (start, end int) {
	t.Helper()
	d := jsontext.NewDecoder(bytes.NewReader(body))
	read := func() jsontext.Token {
		token, err := d.ReadToken()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	read()
	open := int(d.InputOffset())
	for d.PeekKind() != '}' {
		is := read().String() == name
		v, err := d.ReadValue()
		if err != nil {
			t.Fatal(err)
		}
		if end = int(d.InputOffset()); is {
			return end - len(v), end
		}
	}
	return open, open
}
