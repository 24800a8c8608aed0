package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A decoder of its own: fromNode reports false to leave the node to the struct's
// fields.
type nodeDecoder interface{ fromNode(Node) bool }

var nodeType = reflect.TypeFor[Node]()

// decode reads a node into a value strictly, and notes every mistake. A struct is read
// from a mapping by its `yaml` tags; the enum of a `jsonschema` tag bounds a text; a
// field At of type Node gets the place.
func decode(n Node, into any) {
	v := reflect.ValueOf(into).Elem()
	if d, ok := into.(nodeDecoder); ok && d.fromNode(n) {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(n.Text())
	case reflect.Bool:
		v.SetBool(n.Bool())
	case reflect.Int:
		v.SetInt(int64(n.whole()))
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		decode(n, p.Interface())
		v.Set(p)
	case reflect.Slice:
		for i, item := range n.List() {
			e := reflect.New(v.Type().Elem())
			if _, isRule := e.Interface().(*RuleFile); isRule {
				item = item.Of(fmt.Sprintf("rule %d", i+1))
			}
			decode(item, e.Interface())
			v.Set(reflect.Append(v, e.Elem()))
		}
	case reflect.Struct:
		decodeStruct(n, v)
	}
}

func decodeStruct(n Node, v reflect.Value) {
	fields := make(map[string]int)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Type == nodeType {
			v.Field(i).Set(reflect.ValueOf(n))
		} else {
			fields[f.Tag.Get("yaml")] = i
		}
	}
	n.Each(func(name string, k, child Node) {
		i, ok := fields[name]
		if !ok {
			names := make([]string, 0, len(fields))
			for name := range fields {
				names = append(names, name)
			}
			k.unknown(name, names)
			return
		}
		f := v.Type().Field(i)
		if allowed := enum(f.Tag.Get("jsonschema")); allowed != nil {
			v.Field(i).SetString(child.OneOf(allowed...))
			return
		}
		decode(child, v.Field(i).Addr().Interface())
	})
}

// enum is the list of values that a `jsonschema` tag allows.
func enum(tag string) []string {
	var out []string
	for _, part := range strings.Split(tag, ",") {
		if text, ok := strings.CutPrefix(part, "enum="); ok {
			out = append(out, text)
		}
	}
	return slices.Clip(out)
}
