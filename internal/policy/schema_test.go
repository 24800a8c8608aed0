package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill/internal/screen"

	"github.com/invopop/jsonschema"
	orderedmap "github.com/pb33f/ordered-map/v2"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

const schemaBase = "https://raw.githubusercontent.com/waybill-dev/waybill/main/internal/policy/schema/"

// scalar is any text: YAML reads some as numbers or booleans, and the policy keeps
// them as they are written.
func scalar() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}}
}

func oneOrMany(one *jsonschema.Schema) *jsonschema.Schema {
	many := *one
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{one, {Type: "array", Items: &many}}}
}

// reflector makes schemas of the file's types. Types that are read in a way of their
// own (fromNode) are described here.
func reflector(t *testing.T) *jsonschema.Reflector {
	r := &jsonschema.Reflector{FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, DoNotReference: true, Anonymous: true}
	if err := r.AddGoComments("github.com/waybill-dev/waybill/internal/policy", "."); err != nil {
		t.Fatal(err)
	}
	for name, text := range r.CommentMap {
		r.CommentMap[name] = strings.ReplaceAll(text, "\n", " ")
	}
	inline := func(v any) *jsonschema.Schema {
		s := r.Reflect(v)
		s.Version, s.ID = "", ""
		return s
	}
	busy := make(map[reflect.Type]bool) // types whose mapping is a form beside the struct's own
	r.Mapper = func(typ reflect.Type) *jsonschema.Schema {
		switch reflect.New(typ).Interface().(type) {
		case *string, *Mode:
			return nil
		case *Texts:
			return oneOrMany(scalar())
		case *Carriers:
			return oneOrMany(&jsonschema.Schema{Type: "string", Enum: []any{OnRequest, OnSession, OnPrincipal, OnResource}})
		case *Whole:
			return &jsonschema.Schema{Type: "integer"}
		case *Date:
			return &jsonschema.Schema{Type: "string", Format: "date"}
		case *Condition:
			return &jsonschema.Schema{Ref: "#/$defs/condition"}
		}
		if strings.HasPrefix(typ.Name(), "Ordered[") {
			value := typ.Elem().Field(2).Type
			var of *jsonschema.Schema
			if value.Kind() == reflect.String {
				of = scalar()
			} else {
				of = inline(reflect.New(value).Interface())
			}
			of.Description = ""
			return &jsonschema.Schema{Type: "object", AdditionalProperties: of}
		}
		short := map[reflect.Type]*jsonschema.Schema{reflect.TypeFor[DistinctFile](): {Type: "integer", Minimum: "1"}, reflect.TypeFor[CallerFile](): {Type: "string"}}[typ]
		if short != nil && !busy[typ] {
			busy[typ] = true
			defer delete(busy, typ)
			return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{short, inline(reflect.New(typ).Interface())}}
		}
		return nil
	}
	return r
}

func schemaOf(t *testing.T, name, title string, v any) string {
	s := reflector(t).Reflect(v)
	s.ID, s.Title = jsonschema.ID(schemaBase+name), title
	values := oneOrMany(scalar())
	s.Definitions = jsonschema.Definitions{"condition": {Type: "object", Description: "Every key named has one of its values, in which * stands for any text; not holds an exception.",
		AdditionalProperties: values, Properties: orderedProperty("not", &jsonschema.Schema{Ref: "#/$defs/condition"})}}
	loosen(s)
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func orderedProperty(name string, of *jsonschema.Schema) *orderedmap.OrderedMap[string, *jsonschema.Schema] {
	p := jsonschema.NewProperties()
	p.Set(name, of)
	return p
}

// loosen lets every free text be a number or a boolean to YAML.
func loosen(s *jsonschema.Schema) {
	if s == nil || s.Properties == nil && s.Items == nil && s.AdditionalProperties == nil && s.AnyOf == nil {
		return
	}
	for _, sub := range append(append([]*jsonschema.Schema{}, s.AnyOf...), s.Items, s.AdditionalProperties) {
		loosen(sub)
	}
	if s.Properties == nil {
		return
	}
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		p := pair.Value
		if p.Type == "string" && p.Format == "" {
			if p.Enum == nil {
				p.Type, p.AnyOf = "", scalar().AnyOf
			} else if fmt.Sprint(p.Enum) == "[1]" {
				p.Type, p.Enum = "", []any{1, "1"}
			}
		}
		loosen(p)
	}
}

// The schemas, and the reference made of the same comments, are up to date.
func TestSchemas(t *testing.T) {
	golden(t, "schema/tag-policy.json", schemaOf(t, "tag-policy.json", "Waybill tag policy", &File{}))
	golden(t, "schema/tag-policy-cases.json", schemaOf(t, "tag-policy-cases.json", "Cases of a Waybill tag policy", &CasesFile{}))
}

func validate(t *testing.T, schema []byte, src []byte) error {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Load(src, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	inst, err := validator.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(inst)
}

// Every example names its schema, is valid by it, has no mistake, and its cases hold.
func TestExamples(t *testing.T) {
	files, _ := filepath.Glob("../../examples/policy/*.yaml")
	if len(files) < 3 {
		t.Fatalf("examples: %v", files)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cases := strings.HasSuffix(file, ".cases.yaml")
		name, schema := "tag-policy.json", Schema
		if cases {
			name, schema = "tag-policy-cases.json", CasesSchema
		}
		if want := "# yaml-language-server: $schema=" + schemaBase + name + "\n"; !strings.HasPrefix(string(src), want) {
			t.Errorf("%s does not begin with %s", file, want)
		}
		if err := validate(t, schema, src); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		policyFile := file
		if cases {
			policyFile = strings.TrimSuffix(file, ".cases.yaml") + ".yaml"
		}
		text, err := os.ReadFile(policyFile)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse(policyFile, text, Options{HashKey: secret.HashKey, Open: os.ReadFile})
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if len(p.Warnings()) > 0 {
			t.Errorf("%s: %q", policyFile, p.Warnings())
		}
		if !cases {
			continue
		}
		results, err := p.RunCases(file, src)
		if err != nil || len(results) == 0 {
			t.Errorf("%s: %v", file, err)
		}
		for _, r := range results {
			if len(r.Failures) > 0 {
				t.Errorf("%s: %s: %q", r.Position, r.Name, r.Failures)
			}
		}
	}
}

// A policy shown in the documents is one that the reader and the schema take, and a
// whole one names its schema.
func TestPoliciesInDocuments(t *testing.T) {
	shown := 0
	for _, file := range []string{"../../docs/operate/policy.md", "../../docs/stamp.md"} {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(src), "```yaml\n")[1:] {
			text, _, _ := strings.Cut(part, "```")
			if !strings.Contains(text, "tags:") {
				text += "tags: {keys: {team: {values: [search, ads]}, costCenter: {}}}\n" // a piece of a policy
			} else if !strings.HasPrefix(text, "# yaml-language-server: $schema="+schemaBase) {
				t.Errorf("%s: an example does not name its schema", file)
			}
			if err := validate(t, Schema, []byte(text)); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if _, err := Parse(file, []byte(text), secret); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			shown++
		}
	}
	if shown < 4 {
		t.Errorf("%d examples were found", shown)
	}
}

// What the reader refuses as unknown or of the wrong shape, the schema refuses too.
func TestSchemaRefuses(t *testing.T) {
	for _, src := range []string{"tag: {}", "mode: sometimes", "tags: {keys: {team: {colour: red}}}", "tags: {keys: {team: {carriers: [sesion]}}}", "tags: {keys: {team: {maxDistinct: {limit: 3, action: drop}}}}", "tags: {keys: [team]}", "tags: {rules: [{when: {team: {a: b}}}]}", "version: 2"} {
		if validate(t, Schema, []byte(src)) == nil {
			t.Errorf("the schema takes %s", src)
		}
		if _, err := Parse("policy.yaml", []byte(src), Options{}); err == nil {
			t.Errorf("the reader takes %s", src)
		}
	}
}

// docs/operate/policy-reference.md is made of the comments of the file's types.
func TestReference(t *testing.T) {
	comments := reflector(t).CommentMap
	var b strings.Builder
	b.WriteString("# Reference of the tag policy\n\nMade from internal/policy/file.go by `make golden`; do not edit.\n[policy.md](policy.md) says how to write one.\n")
	seen := make(map[reflect.Type]bool)
	var section func(title string, typ reflect.Type)
	section = func(title string, typ reflect.Type) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		fmt.Fprintf(&b, "\n## %s\n\n| field | takes | meaning |\n| --- | --- | --- |\n", title)
		type next struct {
			title string
			typ   reflect.Type
		}
		var later []next
		for i := range typ.NumField() {
			f := typ.Field(i)
			name := f.Tag.Get("yaml")
			if name == "-" {
				continue
			}
			takes, sub := takesOf(f)
			if sub != nil {
				path := name
				if typ != reflect.TypeFor[File]() && typ != reflect.TypeFor[TagsFile]() && typ != reflect.TypeFor[CasesFile]() {
					path = title + ": " + name
				} else if typ == reflect.TypeFor[TagsFile]() {
					path = "tags." + name
				}
				later = append(later, next{path, sub})
			}
			doc := comments["github.com/waybill-dev/waybill/internal/policy."+typ.Name()+"."+f.Name]
			if doc == "" {
				t.Errorf("%s.%s has no comment", typ.Name(), f.Name)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, takes, strings.ReplaceAll(strings.ReplaceAll(doc, "|", "\\|"), f.Name+" ", strings.ToLower(f.Name[:1])+f.Name[1:]+" "))
		}
		for _, n := range later {
			section(n.title, n.typ)
		}
	}
	section("The file", reflect.TypeFor[File]())
	section("The file of cases", reflect.TypeFor[CasesFile]())
	b.WriteString("\n## Codes of violations\n\n| code | meaning |\n| --- | --- |\n")
	for _, code := range sortedKeys(Codes) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", code, Codes[code])
	}
	b.WriteString("\n## What screening finds\n\nA finding is recorded as `KEY:sensitive_KIND`, and never holds a part of the value.\n\n| kind | what |\n| --- | --- |\n")
	for _, k := range screen.Kinds() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", k.Kind, k.Name)
	}
	golden(t, "../../docs/operate/policy-reference.md", b.String())
}

// takesOf says what a field takes, and which struct is within it.
func takesOf(f reflect.StructField) (string, reflect.Type) {
	if e := enum(f.Tag.Get("jsonschema")); e != nil {
		return strings.Join(e, ", "), nil
	}
	typ := f.Type
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch reflect.New(typ).Interface().(type) {
	case *Texts:
		return "a text or a list", nil
	case *Carriers:
		return "request, session, principal, resource", nil
	case *Whole:
		return "a whole number", nil
	case *Date:
		return "YYYY-MM-DD", nil
	case *Condition:
		return "a condition", nil
	case *DistinctFile:
		return "a number, or a mapping", typ
	case *CallerFile:
		return "a subject, or a mapping", typ
	case *Ordered[string]:
		return "a mapping of texts", nil
	case *Ordered[Texts]:
		return "a mapping of lists", nil
	}
	switch typ.Kind() {
	case reflect.Bool:
		return "true, false", nil
	case reflect.Int:
		return "a whole number", nil
	case reflect.String:
		return "a text", nil
	case reflect.Slice:
		if strings.HasPrefix(typ.Name(), "Ordered[") {
			return "a mapping", typ.Elem().Field(2).Type
		}
		return "a list", typ.Elem()
	}
	return "a mapping", typ
}

func sortedKeys(m map[string]string) []string {
	return strings.Split(sorted(keysOf(m)), ", ")
}

func keysOf(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	return out
}
