//go:build !race

package credential

const raced = false
