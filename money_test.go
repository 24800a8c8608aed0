package waybill_test

import (
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/apd/v3"

	"github.com/waybill-dev/waybill"
)

func TestParseMoney(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		err      error
	}{
		{"0", "0", nil}, {"-0", "0", nil}, {"12.50", "12.5", nil}, {"-0.000000000000000001", "-0.000000000000000001", nil},
		{"1.0E-5", "0.00001", nil}, {"6e3", "6000", nil}, {".5", "0.5", nil}, {"5.", "5", nil}, {"+3", "3", nil},
		{"0.30000000000000004", "0.30000000000000004", nil},
		{"99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999", nil},
		{"0.0000000000000000001", "", waybill.ErrPrecision}, {"100000000000000000000", "", waybill.ErrPrecision}, {"1e999", "", waybill.ErrPrecision},
		{"", "", waybill.ErrDecimal}, {"1,5", "", waybill.ErrDecimal}, {"NaN", "", waybill.ErrDecimal}, {"1e", "", waybill.ErrDecimal}, {"--1", "", waybill.ErrDecimal},
		{"1e-99999", "", waybill.ErrDecimal}, {strings.Repeat("9", 200), "", waybill.ErrDecimal}, {".", "", waybill.ErrDecimal},
	} {
		got, err := waybill.ParseMoney(tt.in)
		if !errors.Is(err, tt.err) || err == nil && got.String() != tt.want {
			t.Errorf("ParseMoney(%q) = %s, %v; want %s, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
	m, rounded, err := waybill.ParseMoneyRounded("1.2345678901234567895E-1")
	if err != nil || !rounded || m.String() != "0.123456789012345679" {
		t.Errorf("rounded to %s, %v, %v", m, rounded, err)
	}
}

// Our arithmetic agrees with an independent decimal library.
func TestArithmeticAgainstAnOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ctx := apd.BaseContext.WithPrecision(80)
	text := func() string {
		return fmt.Sprintf("%s%d.%018d", []string{"", "-"}[r.IntN(2)], r.Int64N(1_000_000_000), r.Int64N(1_000_000_000_000_000_000))
	}
	for range 2000 {
		a, b, k := text(), text(), r.Int64N(1_000_000)
		x, err1 := waybill.ParseMoney(a)
		y, err2 := waybill.ParseMoney(b)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		dx, _, _ := apd.NewFromString(a)
		dy, _, _ := apd.NewFromString(b)
		sum, diff := new(apd.Decimal), new(apd.Decimal)
		ctx.Add(sum, dx, dy)
		ctx.Sub(diff, dx, dy)
		same := func(what string, got waybill.Money, want *apd.Decimal) {
			d, _, err := apd.NewFromString(got.String())
			if err != nil || d.Cmp(want) != 0 {
				t.Fatalf("%s %s %s = %s, want %s", a, what, b, got, want)
			}
		}
		same("+", x.Add(y), sum)
		same("-", x.Sub(y), diff)
		if x.Cmp(y) != dx.Cmp(dy) {
			t.Fatalf("%s cmp %s = %d", a, b, x.Cmp(y))
		}
		rate, err := waybill.ParseRate(fmt.Sprintf("%d.%04d", r.IntN(100), r.IntN(10000)), 1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		dr, _, _ := apd.NewFromString(rate.String())
		ctx.Mul(sum, dr, apd.New(k, 0))
		same("x", rate.Of(k), sum)
		for places := range 12 {
			want := new(apd.Decimal)
			even := ctx.WithPrecision(80)
			even.Rounding = apd.RoundHalfEven
			even.Quantize(want, dx, -int32(places))
			got, _, _ := apd.NewFromString(x.Round(places))
			if got.Cmp(want) != 0 {
				t.Fatalf("%s rounded to %d places is %s, want %s", a, places, x.Round(places), want)
			}
		}
	}
}

// Whatever is allotted adds up, and nobody is a unit further from their share than one.
func TestAllotAddsUp(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		m := waybill.MoneyFromUnscaled(big.NewInt(r.Int64N(2_000_000_000) - 1_000_000_000))
		weights := make([]*big.Int, 1+r.IntN(40))
		total := new(big.Int)
		for i := range weights {
			weights[i] = big.NewInt(r.Int64N(1000) * int64(r.IntN(2)))
			total.Add(total, weights[i])
		}
		parts := m.Allot(weights)
		if total.Sign() == 0 {
			if parts != nil {
				t.Fatal("something was given to nobody")
			}
			continue
		}
		var sum waybill.Money
		for i, p := range parts {
			sum = sum.Add(p)
			exact := new(big.Rat).Mul(new(big.Rat).SetInt(m.Unscaled()), new(big.Rat).SetFrac(weights[i], total))
			if d := new(big.Rat).Sub(exact, new(big.Rat).SetInt(p.Unscaled())); d.Abs(d).Cmp(big.NewRat(1, 1)) >= 0 {
				t.Fatalf("part %d of %s is %s, its share is %s", i, m, p, exact)
			}
			if weights[i].Sign() == 0 && !p.IsZero() {
				t.Fatal("a part without weight got something")
			}
		}
		if sum.Cmp(m) != 0 {
			t.Fatalf("parts of %s add up to %s", m, sum)
		}
	}
}

func TestModelID(t *testing.T) {
	for _, tt := range []struct {
		id    waybill.ModelID
		base  string
		scope waybill.Scope
		app   bool
	}{
		{"anthropic.claude-sonnet-4-6", "anthropic.claude-sonnet-4-6", waybill.Plain, false},
		{"us.anthropic.claude-sonnet-4-6", "anthropic.claude-sonnet-4-6", waybill.Geo, false},
		{"us-gov.anthropic.claude-sonnet-4-6", "anthropic.claude-sonnet-4-6", waybill.Geo, false},
		{"mars.anthropic.claude-sonnet-4-6", "anthropic.claude-sonnet-4-6", waybill.Geo, false},
		{"global.anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-haiku-4-5-20251001-v1:0", waybill.Global, false},
		{"arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0", waybill.Plain, false},
		{"arn:aws:bedrock:us-east-1:111122223333:inference-profile/eu.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0", waybill.Geo, false},
		{"arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123", "abc123", waybill.Plain, true},
		{"deepseek.v3.2", "deepseek.v3.2", waybill.Plain, false},
		{"", "", waybill.Plain, false},
	} {
		if tt.id.Base() != tt.base || tt.id.Scope() != tt.scope || tt.id.IsApplicationProfile() != tt.app {
			t.Errorf("%s: %s %s %v", tt.id, tt.id.Base(), tt.id.Scope(), tt.id.IsApplicationProfile())
		}
	}
}

func TestTagsAreCanonical(t *testing.T) {
	a := waybill.NewTags(waybill.Tag{Key: "b", Value: "2"}, waybill.Tag{Key: "a", Value: "1"}, waybill.Tag{Key: "b", Value: "3"})
	b := waybill.TagsFromMap(map[string]string{"a": "1", "b": "3"})
	if !a.Equal(b) || a.ID() != b.ID() || a.Canonical() != `{"a":"1","b":"3"}` {
		t.Errorf("%s and %s", a.Canonical(), b.Canonical())
	}
	var c waybill.Tags
	if err := c.UnmarshalJSON([]byte(a.Canonical())); err != nil || !c.Equal(a) {
		t.Errorf("read back as %s, %v", c.Canonical(), err)
	}
	if (waybill.Tags{}).ID() != "" || a.ID() == waybill.NewTags().ID() {
		t.Error("the empty set has an id")
	}
}

func TestContextBucket(t *testing.T) {
	for n, want := range map[int64]int64{0: 0, 100_000: 0, 100_001: 100_000, 200_000: 199_000, 200_001: 200_000, 272_001: 272_000} {
		if got := waybill.ContextBucketOf(n); got != want {
			t.Errorf("ContextBucketOf(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestUsageMerges(t *testing.T) {
	known := waybill.NewUsage().With(waybill.Input, 5)
	if got := known.Larger(waybill.NewUsage()); got != known {
		t.Errorf("zeroes won: %v", got)
	}
	if got := (waybill.Usage{}).Larger(known); got != known {
		t.Errorf("the unknown won: %v", got)
	}
	if got := known.Add(waybill.Usage{}); got.Known {
		t.Error("a sum with something unknown is known")
	}
	b, err := known.MarshalJSON()
	var back waybill.Usage
	if err != nil || back.UnmarshalJSON(b) != nil || back != known {
		t.Errorf("%s read back as %v", b, back)
	}
	if err := back.UnmarshalJSON([]byte(`{"telepathy":3}`)); err == nil {
		t.Error("usage of an unknown kind was dropped in silence")
	}
}
