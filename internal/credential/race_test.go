//go:build race

package credential

// raced is whether the race detector, which makes a day ten times as long, is on.
const raced = true
