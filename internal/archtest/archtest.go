// Package archtest says which package may import which, as a test. The list in
// arch_test.go reads as the layers in ARCHITECTURE.md do.
package archtest
