//go:build race

package gateway_test

// raceEnabled says that the race detector is on: it multiplies time and memory.
const raceEnabled = true
