package policy

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// A pseudonym is an HMAC-SHA-256, whatever the length of the key and of the value.
func TestPseudonymIsHMAC(t *testing.T) {
	for _, n := range []int{16, 63, 64, 65, 200} {
		e := Epoch{ID: "7", Key: bytes.Repeat([]byte{'k', 0xfe}, n)[:n]}.use()
		for _, value := range []string{"", "user-17", strings.Repeat("x", 110), strings.Repeat("x", 127), strings.Repeat("é", 2000)} {
			h := hmac.New(sha256.New, e.Key)
			h.Write([]byte("user\x00" + value))
			want := "h7-" + hex.EncodeToString(h.Sum(nil))[:20]
			if got := e.pseudonym("user", value); got != want {
				t.Errorf("key of %d bytes, value of %d: %s, want %s", n, len(value), got, want)
			}
		}
	}
}
