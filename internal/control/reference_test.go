package control

import (
	"os"
	"strings"
	"testing"
)

// The list of controls in the documentation is that of the code.
func TestReference(t *testing.T) {
	const file = "../../docs/control/audit.md"
	const mark = "<!-- made by waybill audit --controls: run the tests with WAYBILL_UPDATE=1 -->\n\n"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, list, ok := strings.Cut(string(b), mark)
	if !ok {
		t.Fatalf("%s has no mark", file)
	}
	if list == Reference() {
		return
	}
	if os.Getenv("WAYBILL_UPDATE") == "" {
		t.Fatalf("%s is not the list of controls: run the tests with WAYBILL_UPDATE=1", file)
	}
	if err := os.WriteFile(file, []byte(head+mark+Reference()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The example files are those that the documentation shows.
func TestExamples(t *testing.T) {
	for doc, example := range map[string]string{"guard.md": "guard.yaml", "setup.md": "accounts.yaml"} {
		text, err := os.ReadFile("../../docs/control/" + doc)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "```yaml\n")
		shown, _, _ := strings.Cut(rest, "```")
		if held, err := os.ReadFile("../../examples/control/" + example); err != nil || string(held) != shown {
			t.Errorf("examples/control/%s is not what %s shows (%v)", example, doc, err)
		}
	}
}

// Every control says all there is to say of it.
func TestControlsAreTold(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range Controls() {
		if c.ID == "" || seen[c.ID] || c.Title == "" || len(c.Practices) == 0 || c.Severity.rank() < 0 || c.Holds == "" || c.Seen == "" || c.Why == "" || c.Remedy == "" {
			t.Errorf("control %q: %+v", c.ID, c)
		}
		seen[c.ID] = true
	}
}
