package gateway

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

// An amount for show is the float that is nearest to it, however small or large.
func TestDollars(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	amounts := []int64{0, 1, -1, 3, 1e18, 1<<53 - 1, 1 << 53, 1<<53 + 1, -1 << 53, -1<<53 - 1, 9_007_199_254_740_993}
	for range 20_000 {
		amounts = append(amounts, random.Int64()>>random.IntN(63))
	}
	for _, n := range amounts {
		want, _ := new(big.Rat).SetFrac(big.NewInt(n), dollar).Float64()
		if got := dollars(big.NewInt(n)); got != want {
			t.Fatalf("%d: %v, want %v", n, got, want)
		}
	}
	if got := dollars(new(big.Int).Mul(big.NewInt(5_000_000_000), dollar)); got != 5e9 { // more than 64 bits
		t.Errorf("%v, want 5e9", got)
	}
}
