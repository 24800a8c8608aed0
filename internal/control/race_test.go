//go:build race

package control

// raced is whether the race detector is on: it makes a proof ten times as long, and finds
// nothing in what one goroutine does.
const raced = true
