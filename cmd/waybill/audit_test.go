package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/internal/control"
)

// The history is what audits earlier than the one at hand found. A line that is damaged,
// cut short or long beyond measure costs that line, and no other.
func TestHistory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "scores.jsonl")
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	add := func(days int) {
		t.Helper()
		if err := appendLine(file, control.Score{At: at.AddDate(0, 0, days), Currency: "USD"}); err != nil {
			t.Fatal(err)
		}
	}
	spoil := func(text string) {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, text...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add(-2)
	spoil(strings.Repeat("x", 100_000) + "\n")
	add(-3)
	spoil(`{"at":"2026-11-1`) // a crash
	add(-1)
	add(0)
	add(1)
	for _, tt := range []struct {
		days, earlier int
		kept          bool
	}{{-3, 0, true}, {0, 3, true}, {5, 5, false}} {
		earlier, kept, err := readHistory(file, at.AddDate(0, 0, tt.days))
		if err != nil || len(earlier) != tt.earlier || kept != tt.kept {
			t.Errorf("at day %d: %d earlier, kept: %t (%v), want %+v", tt.days, len(earlier), kept, err, tt)
		}
		for i := 1; i < len(earlier); i++ {
			if earlier[i].At.Before(earlier[i-1].At) {
				t.Errorf("not in order: %v", earlier)
			}
		}
	}
}
