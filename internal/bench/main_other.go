//go:build !linux

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: it pins processes and reads their clocks as Linux alone lets it; run it on Linux")
	os.Exit(2)
}
