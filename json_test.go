package waybill

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An entry is read back as the one that encoding/json would have written, whichever of its
// fields are set; a field that AppendJSON does not know is lost, and is seen here.
func TestAppendJSON(t *testing.T) {
	check := func(name string, e Entry) {
		t.Helper()
		slow, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fast := e.AppendJSON(nil)
		var got, want, whole Entry
		if err := json.Unmarshal(slow, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(fast, &got); err != nil {
			t.Fatalf("%s: %v: %s", name, err, fast)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(Usage{}, Tags{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		whole = e
		if !json.Valid(whole.AppendJSON([]byte("["))[1:]) {
			t.Errorf("%s: not JSON behind something else", name)
		}
	}
	check("nothing set", Entry{})
	var all Entry
	all.Kind = Closed
	v := reflect.ValueOf(&all.Invocation).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		one := Entry{Kind: Opened}
		for _, f := range []reflect.Value{v.Field(i), reflect.ValueOf(&one.Invocation).Elem().Field(i)} {
			switch f.Interface().(type) {
			case time.Time:
				f.Set(reflect.ValueOf(time.Date(2026, 11, 30, 1, 2, 3, 4567, time.UTC)))
			case Tags:
				f.Set(reflect.ValueOf(NewTags(Tag{"team", "a \"b\" \\ <c>"}, Tag{"user", "\x00\x1f\u2028é\xff!"})))
			case Usage:
				u := NewUsage().With(Input, 3).With(GuardrailUnit, 1<<40)
				u.Reasoning = 7
				f.Set(reflect.ValueOf(u))
			case []string:
				f.Set(reflect.ValueOf([]string{"team:missing", "x\n"}))
			default:
				switch f.Kind() {
				case reflect.String:
					f.SetString(fmt.Sprintf("%s \"%d\" <\t> \xfe", name, i))
				case reflect.Bool:
					f.SetBool(true)
				case reflect.Int, reflect.Int64:
					f.SetInt(int64(i) + 1)
				default:
					t.Fatalf("a field of a new kind: %s", name)
				}
			}
		}
		check(name, one)
	}
	check("all set", all)
	check("usage of nothing", Entry{Invocation: Invocation{Usage: NewUsage()}})
}

func BenchmarkAppendJSON(b *testing.B) {
	e := Entry{Kind: Closed, Invocation: Invocation{CallID: "0193-5b2f2a1c-6a5e", RequestID: "5b2f2a1c-6a5e-4d7c-9f0e-2d8f6f0f6b11", Source: FromGateway, StartedAt: time.Unix(1e9, 0).UTC(),
		Account: "111122223333", Region: "us-east-1", Endpoint: Runtime, Operation: "Converse", ModelID: "anthropic.claude-haiku-4-5-20251001-v1:0", Principal: "user-17",
		Tags:  NewTags(Tag{"team", "checkout"}, Tag{"environment", "production"}, Tag{"application", "cart-helper"}, Tag{"costCenter", "CC-2001"}),
		Usage: NewUsage().With(Input, 240).With(Output, 190), Outcome: Completed, Latency: time.Second}}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
}
