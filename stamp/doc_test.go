package stamp_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The page shows the code that is tested, and the policy that it reads.
func TestPageShowsTheExample(t *testing.T) {
	page := readFile(t, "../docs/stamp.md")
	_, rest, ok1 := strings.Cut(readFile(t, "example_test.go"), "\t// docs/stamp.md begins\n")
	code, _, ok2 := strings.Cut(rest, "\t// docs/stamp.md ends\n")
	if !ok1 || !ok2 {
		t.Fatal("the example is not marked")
	}
	lines := strings.SplitAfter(code, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "\t")
	}
	for language, want := range map[string]string{"go": strings.Join(lines, ""), "yaml": readFile(t, "testdata/policy.yaml")} {
		_, rest, _ := strings.Cut(page, "```"+language+"\n")
		got, _, ok := strings.Cut(rest, "```\n")
		if !ok {
			t.Errorf("the page has no %s", language)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s on the page (-tested +page):\n%s", language, diff)
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
