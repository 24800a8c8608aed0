package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/waybill-dev/waybill"
	root   = "../.."
)

// allowed says which of our own packages each package may import.
// Each entry may name only entries above it, so the list reads as the layers do.
var allowed = []struct {
	pkg     string
	imports []string
}{
	{".", nil}, // the vocabulary

	// What we know. Pure: no network, no disk, no clock.
	{"internal/screen", nil},
	{"internal/policy", []string{".", "internal/screen"}},
	{"internal/bedrock", []string{"."}},
	{"internal/ratecard", []string{"."}},
	{"internal/iam", nil},

	// What we touch. One outside thing each.
	{"internal/identity", []string{"."}},
	{"internal/identity/pgkeys", []string{".", "internal/identity"}},
	{"internal/credential", []string{"."}},
	{"internal/profile", []string{"."}},
	{"internal/signin", []string{"."}},
	{"internal/journal", []string{"."}},
	{"internal/upstream", nil},
	{"internal/downstream", nil},
	{"internal/lake", []string{"."}},
	{"internal/control", []string{".", "internal/policy", "internal/screen", "internal/iam"}},

	// What we do. The three flows.
	{"internal/gateway", []string{".", "internal/policy", "internal/bedrock"}},
	{"internal/ingest", []string{".", "internal/bedrock", "internal/journal"}},
	{"internal/ledger", []string{".", "internal/ratecard"}},

	// What others build in: public, and light to carry.
	{"stamp", []string{".", "internal/policy", "internal/bedrock"}},

	// What we show.
	{"internal/report", []string{".", "internal/ledger", "internal/control"}},

	// The stand-in for AWS, and the month played against it.
	{"internal/fakeaws", nil}, // shares nothing with what it tests
	{"internal/demo", []string{"internal/fakeaws"}},
	{"internal/bench", []string{".", "internal/identity", "internal/journal", "internal/fakeaws"}},

	// Where it all meets.
	{"cmd/waybilld", []string{".", "internal/policy", "internal/ratecard", "internal/identity", "internal/identity/pgkeys", "internal/credential", "internal/profile", "internal/journal", "internal/upstream", "internal/downstream", "internal/gateway"}},
	{"cmd/waybill", []string{".", "internal/policy", "internal/bedrock", "internal/ratecard", "internal/iam", "internal/identity", "internal/identity/pgkeys", "internal/signin", "internal/lake",
		"internal/screen", "internal/control", "internal/ingest", "internal/ledger", "internal/report", "internal/demo"}},

	// For tests only.
	{"internal/archtest", nil},
	{"internal/clients", nil},
}

// banned are modules no package reachable from a program, or from what others build
// in, may import, and why.
var banned = map[string]map[string]string{
	"cmd/waybilld": {
		"C":                         "the gateway ships as a static binary",
		"github.com/duckdb/":        "the gateway holds credentials; it does not run a database",
		"github.com/apache/iceberg": "the gateway writes journals, not tables",
		"github.com/waybill-dev/waybill/internal/fakeaws": "the gateway never meets the stand-in for AWS",
	},
	"stamp": {
		"C":                         "other people's programs are built without cgo",
		"github.com/duckdb/":        "other people's programs carry no database",
		"github.com/apache/iceberg": "other people's programs carry no tables",
		"github.com/waybill-dev/waybill/internal/fakeaws": "other people's programs never meet the stand-in for AWS",
	},
}

type pkg struct {
	imports []string
	docs    []string // files that carry a package comment
}

// packages parses the import clauses and package comments of the whole module.
// It reads the files itself, rather than asking the go command, so that the go
// command sees what the test depends on and never answers from its cache.
func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	pkgs := make(map[string]*pkg)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != root):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		p := pkgs[dir]
		if p == nil {
			p = new(pkg)
			pkgs[dir] = p
		}
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		if f.Doc != nil {
			p.docs = append(p.docs, path)
		}
		for _, spec := range f.Imports {
			p.imports = append(p.imports, importPath(spec))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

func importPath(spec *ast.ImportSpec) string {
	s, _ := strconv.Unquote(spec.Path.Value) // the parser has already checked it
	return s
}

// ours turns an import path of this module into a directory.
func ours(path string) (dir string, ok bool) {
	if path == module {
		return ".", true
	}
	return strings.CutPrefix(path, module+"/")
}

func TestImports(t *testing.T) {
	pkgs := packages(t)
	above := make(map[string]bool)
	for _, rule := range allowed {
		p := pkgs[rule.pkg]
		if p == nil {
			t.Errorf("%s is in allowed but not in the tree", rule.pkg)
			continue
		}
		for _, dir := range rule.imports {
			if !above[dir] {
				t.Errorf("allowed lets %s import %s, which is not above it", rule.pkg, dir)
			}
		}
		above[rule.pkg] = true
		for _, path := range p.imports {
			if dir, ok := ours(path); ok && !slices.Contains(rule.imports, dir) {
				t.Errorf("%s may not import %s; see the layers in ARCHITECTURE.md", rule.pkg, dir)
			}
		}
		delete(pkgs, rule.pkg)
	}
	for dir := range pkgs {
		t.Errorf("%s has no place in the layers; add it to allowed and to ARCHITECTURE.md", dir)
	}
}

func TestPrograms(t *testing.T) {
	pkgs := packages(t)
	for program, bans := range banned {
		seen := make(map[string]bool)
		var visit func(dir, via string)
		visit = func(dir, via string) {
			if seen[dir] || pkgs[dir] == nil {
				return
			}
			seen[dir] = true
			for _, path := range pkgs[dir].imports {
				if next, ok := ours(path); ok {
					visit(next, via+" > "+next)
				}
				for prefix, why := range bans {
					if strings.HasPrefix(path, prefix) {
						t.Errorf("%s imports %s: %s", via, path, why)
					}
				}
			}
		}
		visit(program, program)
	}
}

func TestPackageComments(t *testing.T) {
	for dir, p := range packages(t) {
		if len(p.docs) != 1 {
			t.Errorf("%s: %d files carry a package comment, want 1: %v", dir, len(p.docs), p.docs)
		}
	}
}
