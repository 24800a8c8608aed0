package policy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// golden compares a text with a file, or writes the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("WAYBILL_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// Every mistake of a file is told at once, with its place, what it is about, an excerpt
// and a remedy.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files of mistakes", err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(filepath.Base(file), src, Options{Open: func(name string) ([]byte, error) {
			b, err := os.ReadFile(filepath.Join("testdata/mistakes", name))
			if err != nil {
				return nil, os.ErrNotExist
			}
			return b, nil
		}})
		if err == nil {
			t.Errorf("%s: no mistake was found", file)
			continue
		}
		golden(t, strings.TrimSuffix(file, ".yaml")+".golden", err.Error()+"\n")
	}
	if _, err := Parse("alone.yaml", []byte("import: other.yaml\n"), Options{}); err == nil || !strings.Contains(err.Error(), "files cannot be imported here") {
		t.Errorf("an import that nothing can open: %v", err)
	}
}

// The golden files show every mistake that the package knows to tell.
func TestEveryMistakeIsShown(t *testing.T) {
	shown := ""
	files, _ := filepath.Glob("testdata/*/*.golden")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		shown += string(b)
	}
	elsewhere := map[string]bool{ // shown by other tests
		"files cannot be imported here": true,
	}
	sources, _ := filepath.Glob("*.go")
	verb := regexp.MustCompile(`%[a-z]`)
	told := 0
	for _, file := range sources {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if fn, ok := call.Fun.(*ast.SelectorExpr); !ok || fn.Sel.Name != "Mistake" || len(call.Args) < 2 {
				return true
			}
			lit, ok := call.Args[1].(*ast.BasicLit)
			if !ok {
				return true
			}
			format, _ := strconv.Unquote(lit.Value)
			told++
			var parts []string
			for _, part := range verb.Split(format, -1) {
				parts = append(parts, regexp.QuoteMeta(part))
			}
			if !elsewhere[format] && !regexp.MustCompile(strings.Join(parts, ".*")).MatchString(shown) {
				t.Errorf("%s: no golden file shows %q", file, format)
			}
			return true
		})
	}
	if told < 50 {
		t.Errorf("found %d mistakes in the sources", told)
	}
}

// Mistakes in a file of cases are told like those of a policy.
func TestMistakesInCases(t *testing.T) {
	src, err := os.ReadFile("testdata/cases/mistakes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = parse(t, example).RunCases("mistakes.yaml", src)
	if err == nil {
		t.Fatal("no mistake was found")
	}
	golden(t, "testdata/cases/mistakes.golden", err.Error()+"\n")
}

// A header that is not read is no part of a case; a key may have the blank or the colon
// that stands between key and code.
func TestCasesMeanWhatTheySay(t *testing.T) {
	p := parse(t, "tags: {keys: {'cost center': {required: true}, 'a:b': {required: true}}, rules: [{when: {'a:b': x}, require: [cost center]}]}\n")
	got, err := p.RunCases("c.yaml", []byte(`cases:
  - {name: misspelt, headers: {x-litelm-tags: 'a:b'}, outcome: refused}
  - {name: read, headers: {X-Litellm-Tags: 'cost center:1', x_waybill_tags: 'a:b=2'}, outcome: allowed, request: ['a:b', cost center]}
  - {name: once, caller: {tags: {'a:b': x}}, because: [cost center missing], outcome: refused}
  - {name: keys, because: [cost center missing, 'a:b missing'], outcome: refused}
`))
	if err != nil || len(got) != 4 || fmt.Sprint(got[0].Failures) != "[the headers of the call cannot be read: x-litelm-tags brings no tags]" || got[1].Failures != nil || got[2].Failures != nil || got[3].Failures != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// What is shown of a line has no secrets in it.
func TestExcerptsHideSecrets(t *testing.T) {
	const src = "a: {secretAccessKey: abc123def, 'hashKey': \"x y\", token: 'q', other: shown}\n"
	d, err := ReadYAML("waybilld.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	d.Root().Fields(nil)
	text := d.Err().Error()
	for _, secret := range []string{"abc123def", "x y", "'q'"} {
		if strings.Contains(text, secret) {
			t.Errorf("the excerpt shows %q: %s", secret, text)
		}
	}
	if !strings.Contains(text, "other: shown") {
		t.Errorf("the excerpt hides too much: %s", text)
	}
	for _, src := range []string{"hashkey: correct horse battery staple\n", "a: {hashKey: correct horse, other: 1}\n", "clientSecret: correct,horse}staple\n", "a: {token: [correct horse], b: c}\n"} {
		d, err := ReadYAML("waybilld.yaml", []byte(src))
		if err == nil {
			d.Root().Fields(nil)
			err = d.Err()
		}
		if text := err.Error(); strings.Contains(text, "horse") || strings.Contains(text, "staple") {
			t.Errorf("the excerpt shows a secret: %s", text)
		}
	}
	if _, err := ReadYAML("waybilld.yaml", []byte("secretAccessKey: *correct\n")); err == nil || strings.Contains(err.Error(), "correct") {
		t.Errorf("what is not YAML is told with a secret: %v", err)
	}
}

// A file that is no text in UTF-8 is told where, not with what the reader made of it.
func TestFilesThatAreNoText(t *testing.T) {
	for src, place := range map[string]string{"mode: \xff\n": "f.yaml:1:7: is not text", "mode: warn\nunknown: dr\x01p\n": "f.yaml:2:12: is not text", "\xff\xfem\x00:\x00 \x00x\x00": "f.yaml:1:1: is not text",
		"a: \x00": "f.yaml:1:4: is not text"} {
		if _, err := ReadYAML("f.yaml", []byte(src)); err == nil || !strings.HasPrefix(err.Error(), place) {
			t.Errorf("%q: %v", src, err)
		}
	}
	for _, src := range []string{"\ufeffmode: warn\r\n", "# ä\tb\nmode: warn\n"} {
		if _, err := ReadYAML("f.yaml", []byte(src)); err != nil {
			t.Errorf("%q: %v", src, err)
		}
	}
}
