package lake

import (
	"os"
	"path/filepath"
	"testing"
)

// docs/schema.md says what the tables are.
func TestSchemaDocumentIsCurrent(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "schema.md")
	want := SchemaDocument()
	if os.Getenv("WAYBILL_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/schema.md is not what the code has: make golden")
	}
}
