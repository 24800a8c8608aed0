package bedrock_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

// plain is a route whose members are not looked into: its bodies are refused for their
// grammar or not at all.
var plain = bedrock.Route{Operation: bedrock.Messages, Shape: bedrock.Anthropic}

// oneObject is what jsontext, which encoding/json/v2 stands on, says of a body.
func oneObject(body []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	if v.Kind() != '{' {
		return errors.New("no object")
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return errors.New("something follows")
	}
	return nil
}

// grammar holds a text for each rule of JSON that a reader can get wrong.
func grammar() []string {
	texts := []string{
		`{}`, ` { } `, "\t\r\n{\"a\":1}\n", "\ufeff{}", "\v{}", "\u00a0{}", `{"a":1} `, `{"a":1}{`, `{"a":1},`, `{"a":1}` + "\x00", "", " ", "{", "}", "[]", `"{}"`, "null",
		`{"a"}`, `{"a":}`, `{"a" 1}`, `{"a":1 "b":2}`, `{,}`, `{"a":1,}`, `{,"a":1}`, `{a:1}`, `{1:1}`, `{"a":1,,"b":2}`, `{"a"::1}`, `{"a":1:2}`,
		`{"a":[]}`, `{"a":[ ]}`, `{"a":[1 2]}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1}`, `{"a":{]}`, `{"a":[`, `{"a":[1`, `{"a":[1,`,
		`{"a":true}`, `{"a":tru}`, `{"a":truE}`, `{"a":truee}`, `{"a":nul`, `{"a":null}`, `{"a":false}`, `{"a":fals }`, `{"a":NaN}`, `{"a":Infinity}`, `{"a":undefined}`, `{"a":'x'}`,
		`{"a":1 /* c */}`, `{"a":1} // c`,
		`{"a":"` + "\t" + `"}`, `{"a":"` + "\x00" + `"}`, `{"a":"` + "\x1f" + `"}`, `{"a":"` + "\x7f" + `"}`, `{"a":"` + "\n" + `"}`, `{"a":"x`, `{"a":"x\`, `{"a":"x\"`, `{"a":"x\"}`,
		`{"a":"\b\f\n\r\t\/\\\""}`, `{"a":"\a"}`, `{"a":"\v"}`, `{"a":"\0"}`, `{"a":"\x41"}`, `{"a":"\'"}`, `{"a":"\u"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"\uABcd"}`, `{"a":"\U0041"}`, `{"a":"\u00`,
		`{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\ude00"}`, `{"a":"\ude00\ud83d"}`, `{"a":"\ud83dx"}`, `{"a":"\ud83d\n"}`, `{"a":"\ud83d\u0041"}`, `{"a":"\ud83d\ud83d\ude00"}`, `{"a":"\ud83d\ue000"}`, `{"a":"\ud83d\udbff"}`, `{"a":"\udbff\udc00"}`, `{"a":"\ud7ff\ue000"}`, `{"a":"\ud83d\ude0`, `{"a":"\uDBFF\uDFFF"}`, `{"a":"\uFFFF"}`,
		`{"a":"é日本😀"}`, "{\"a\":\"\xff\"}", "{\"a\":\"\xc3\"}", "{\"a\":\"\xc3(\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"a\":\"\xc0\xaf\"}", "{\"\xff\":1}", "{}\xff", "{\"a\":\"\ufffd\"}", "é{}",
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"":1,"":2}`, `{"a":1,"A":2}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"b":2}]}`, `{"a":[{"b":1},{"b":2}]}`, `{"a":{"b":1},"b":2}`, `{"a":{"a":{"a":1}}}`, `{"\ud83d\ude00":1,"😀":2}`, `{"\/":1,"/":2}`,
		`{"x":{"a":1,"b":2,"c":{"a":1,"b":2}},"a":{"b":1,"x":2}}`,
	}
	for _, n := range []string{"0", "-0", "00", "01", "-", "+1", "1.", ".1", "1.0", "-1.5e10", "1e", "1e+", "1E-05", "1e5.5", "0x1", "1_0", "--1", "0.0", "0e0", "1e400", "9007199254740993", "1a", "1.a", "-a", "1 ", "0 1"} {
		texts = append(texts, `{"a":`+n+`}`, `{"a":[`+n+`,`+n+`]}`, `{"a":`+n)
	}
	// What the reader takes eight at a time ends at every place.
	for n := range 40 {
		x := strings.Repeat("x", n)
		for _, end := range []string{`"`, `\"`, `\\`, `\`, "\n", "\x1f", " ", "!", "#", "\x02", "é", "\x7f", `\u0041`, `\ud83d\ude00`} {
			texts = append(texts, `{"a":"`+x+end+`"}`, `{"a":"`+x+end+`x"}`, `{"a":"`+x+end, `{"`+x+end+`":1}`)
		}
	}
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf(`"k%d":%d`, i, i)
	}
	for n := range many { // names are compared in another way once there are many
		all := strings.Join(many[:n+1], ",")
		texts = append(texts, "{"+all+"}", "{"+all+`,"k0":1}`, "{"+all+`,"k`+strconv.Itoa(n)+`":1}`, `{"x":{`+all+`},`+all+"}", `{"x":[{`+all+`},{`+all+`,"\u006b0":1}]}`)
	}
	for _, depth := range []int{9_998, 9_999, 10_000, 10_001} {
		texts = append(texts, `{"a":`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+"}",
			strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth), strings.Repeat(`{"a":`, depth))
	}
	return texts
}

// What is taken and what is refused is what jsontext takes and refuses.
func TestStrict(t *testing.T) {
	taken := 0
	for _, text := range grammar() {
		_, err := bedrock.ReadBody([]byte(text), plain)
		want := oneObject([]byte(text))
		if (err == nil) != (want == nil) {
			t.Errorf("%.100q (%d bytes): %v, jsontext: %v", text, len(text), err, want)
		}
		if err == nil {
			taken++
		}
	}
	if taken < 400 || taken > len(grammar())-400 {
		t.Errorf("%d texts of %d were taken: the table tests one side", taken, len(grammar()))
	}
}

// FuzzStrict compares with jsontext, in which values are taken, what their members are
// and what strings mean.
func FuzzStrict(f *testing.F) {
	for _, text := range grammar() {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		route := bedrock.Route{Operation: bedrock.ChatCompletions, Shape: bedrock.OpenAI, ModelInBody: true}
		b, err := bedrock.ReadBody(body, route)
		want := oneObject(body)
		if (err == nil) != (want == nil) {
			t.Fatalf("%q: %v, jsontext: %v", body, err, want)
		}
		if err != nil {
			if waybill.KindOf(err) != waybill.Invalid {
				t.Fatalf("error %v is not for the caller", err)
			}
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err != nil {
			t.Fatal(err)
		}
		read := func(v json.RawMessage) (s string) {
			if len(v) > 0 && json.Unmarshal(v, &s) != nil {
				return ""
			}
			return s
		}
		if string(b.Model) != read(members["model"]) || b.Tier != read(members["service_tier"]) || b.Stream != (string(members["stream"]) == "true") {
			t.Fatalf("%q: model %q, tier %q, stream %v", body, b.Model, b.Tier, b.Stream)
		}
	})
}

// A body that is an attack on the reader is read in the time of its length.
func TestManyNames(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"a":0`)
	for i := range 300_000 { // compared one with each other, that is an hour
		fmt.Fprintf(&b, `,"%d":0`, i)
	}
	b.WriteString("}")
	if _, err := bedrock.ReadBody([]byte(b.String()), plain); err != nil {
		t.Error(err)
	}
}

func BenchmarkReadBody(b *testing.B) {
	for _, kind := range []struct{ name, text string }{{"prose", "What did it cost, and who is to pay for it in the end? "}, {"escapes", `What did \"it\" cost? `}, {"japanese", "費用はいくらですか。"}} {
		for _, size := range []struct {
			name string
			n    int
		}{{"1KB", 1 << 10}, {"20KB", 20 << 10}, {"200KB", 200 << 10}} {
			turn := `{"role":"user","content":[{"text":"` + strings.Repeat(kind.text, 8) + `"}]}`
			body := []byte(`{"messages":[` + turn + strings.Repeat(","+turn, size.n/len(turn)) + `],"inferenceConfig":{"maxTokens":100}}`)
			b.Run(kind.name+"/"+size.name, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := bedrock.ReadBody(body, converse); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run(kind.name+"/"+size.name+"/jsontext", func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					if !jsontext.Value(body).IsValid() {
						b.Fatal("not valid")
					}
				}
			})
		}
	}
}
