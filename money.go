package waybill

import (
	"errors"
	"fmt"
	"math/big"
	"sort"
	"strings"
)

// scale is the number of decimal places of Money, Quantity and Rate. It is the
// scale of DECIMAL(38,18), the type they are stored as.
const scale = 18

// Errors that ParseMoney, ParseQuantity and ParseRate wrap.
var (
	// ErrDecimal is text that is not a decimal number.
	ErrDecimal = errors.New("not a decimal number")
	// ErrPrecision is a number with more than 18 decimal places, or more than
	// 20 digits before the point: it cannot be kept exactly.
	ErrPrecision = errors.New("more digits than DECIMAL(38,18) holds")
)

var (
	one     = new(big.Int).Exp(big.NewInt(10), big.NewInt(scale), nil)
	ceiling = new(big.Int).Exp(big.NewInt(10), big.NewInt(38), nil)
)

// fixed is a number of 10^-18. The zero value is zero; a non-nil n is never changed.
type fixed struct{ n *big.Int }

func (f fixed) big() *big.Int {
	if f.n == nil {
		return new(big.Int)
	}
	return f.n
}

func (f fixed) add(g fixed) fixed   { return fixed{new(big.Int).Add(f.big(), g.big())} }
func (f fixed) sub(g fixed) fixed   { return fixed{new(big.Int).Sub(f.big(), g.big())} }
func (f fixed) neg() fixed          { return fixed{new(big.Int).Neg(f.big())} }
func (f fixed) cmp(g fixed) int     { return f.big().Cmp(g.big()) }
func (f fixed) sign() int           { return f.big().Sign() }
func (f fixed) times(k int64) fixed { return fixed{new(big.Int).Mul(f.big(), big.NewInt(k))} }

// timesFixed multiplies and rounds half to even at 18 places.
func (f fixed) timesFixed(g fixed) fixed {
	return divide(new(big.Int).Mul(f.big(), g.big()), one)
}

// divide is n/d rounded half to even; d must be positive.
func divide(n, d *big.Int) fixed {
	q, r := new(big.Int).QuoRem(n, d, new(big.Int))
	twice := new(big.Int).Lsh(new(big.Int).Abs(r), 1)
	if c := twice.Cmp(d); c > 0 || c == 0 && q.Bit(0) == 1 {
		if n.Sign() < 0 {
			q.Sub(q, big.NewInt(1))
		} else {
			q.Add(q, big.NewInt(1))
		}
	}
	return fixed{q}
}

// parseFixed reads a decimal, with or without an exponent ("1.0E-5"). Digits past
// the eighteenth place are refused unless round is set: then they are rounded half
// to even, and rounded says so.
func parseFixed(s string, round bool) (f fixed, rounded bool, err error) {
	text := strings.TrimSpace(s)
	mantissa, exponent := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa = text[:i]
		e := text[i+1:]
		neg := strings.HasPrefix(e, "-")
		e = strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(e, "-"), "+"), "0")
		if text[i+1:] == "" || text[len(text)-1] < '0' || text[len(text)-1] > '9' || len(e) > 3 {
			return fixed{}, false, fmt.Errorf("%q: %w", clip(s), ErrDecimal)
		}
		for _, c := range e {
			if c < '0' || c > '9' {
				return fixed{}, false, fmt.Errorf("%q: %w", clip(s), ErrDecimal)
			}
			exponent = exponent*10 + int(c-'0')
		}
		if neg {
			exponent = -exponent
		}
	}
	sign := false
	switch {
	case strings.HasPrefix(mantissa, "-"):
		sign, mantissa = true, mantissa[1:]
	case strings.HasPrefix(mantissa, "+"):
		mantissa = mantissa[1:]
	}
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := whole + frac
	if digits == "" || len(digits) > 120 {
		return fixed{}, false, fmt.Errorf("%q: %w", clip(s), ErrDecimal)
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return fixed{}, false, fmt.Errorf("%q: %w", clip(s), ErrDecimal)
		}
	}
	n, _ := new(big.Int).SetString(digits, 10)
	if sign {
		n.Neg(n)
	}
	if shift := scale - len(frac) + exponent; shift >= 0 {
		n.Mul(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(shift)), nil))
	} else {
		d := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(-shift)), nil)
		exact := new(big.Int).Rem(n, d).Sign() == 0
		if !exact && !round {
			return fixed{}, false, fmt.Errorf("%q: %w", clip(s), ErrPrecision)
		}
		n = divide(n, d).n
		rounded = !exact
	}
	if n.CmpAbs(ceiling) >= 0 {
		return fixed{}, false, fmt.Errorf("%q: %w", clip(s), ErrPrecision)
	}
	return fixed{n}, rounded, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}

// String is the shortest plain decimal text: "-0.00021", "3", never an exponent.
func (f fixed) String() string {
	n := f.big()
	s := new(big.Int).Abs(n).String()
	if len(s) <= scale {
		s = strings.Repeat("0", scale+1-len(s)) + s
	}
	whole, frac := s[:len(s)-scale], strings.TrimRight(s[len(s)-scale:], "0")
	out := whole
	if frac != "" {
		out += "." + frac
	}
	if n.Sign() < 0 {
		out = "-" + out
	}
	return out
}

// round is the text with exactly places digits after the point, half to even.
func (f fixed) round(places int) string {
	if places >= scale {
		places = scale
	}
	d := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale-places)), nil)
	r := divide(f.big(), d)
	s := fixed{new(big.Int).Mul(r.n, d)}.String()
	whole, frac, _ := strings.Cut(s, ".")
	if places == 0 {
		return whole
	}
	return whole + "." + frac + strings.Repeat("0", places-len(frac))
}

// Money is an exact amount in the currency of the bill, to 18 decimal places. The
// zero value is zero. Amounts are immutable: every operation returns a new one.
// It is stored as DECIMAL(38,18) and written as a decimal string, never a float.
type Money struct{ f fixed }

// ParseMoney reads a plain or scientific decimal. It refuses what it cannot keep
// exactly with ErrPrecision.
func ParseMoney(s string) (Money, error) {
	f, _, err := parseFixed(s, false)
	return Money{f}, err
}

// ParseMoneyRounded reads a decimal that may have more than 18 places, as the
// shortest text of a double can. It rounds half to even and says whether it did.
func ParseMoneyRounded(s string) (m Money, rounded bool, err error) {
	f, rounded, err := parseFixed(s, true)
	return Money{f}, rounded, err
}

// Add is m + n.
func (m Money) Add(n Money) Money { return Money{m.f.add(n.f)} }

// Sub is m - n.
func (m Money) Sub(n Money) Money { return Money{m.f.sub(n.f)} }

// Neg is -m.
func (m Money) Neg() Money { return Money{m.f.neg()} }

// Abs is m without its sign.
func (m Money) Abs() Money {
	if m.Sign() < 0 {
		return m.Neg()
	}
	return m
}

// Cmp is -1, 0 or +1 as m is less than, equal to or greater than n.
func (m Money) Cmp(n Money) int { return m.f.cmp(n.f) }

// Sign is -1, 0 or +1.
func (m Money) Sign() int { return m.f.sign() }

// IsZero reports whether m is exactly zero.
func (m Money) IsZero() bool { return m.f.sign() == 0 }

// String is the shortest exact decimal text.
func (m Money) String() string { return m.f.String() }

// Round is the text with places digits after the point, rounded half to even. It
// is for display only: a rounded amount is never calculated with.
func (m Money) Round(places int) string { return m.f.round(places) }

// MarshalText writes the exact decimal string, so that JSON holds "0.1" and not 0.1.
func (m Money) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (m *Money) UnmarshalText(b []byte) error {
	v, err := ParseMoney(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}

// Unscaled is the amount as a count of 10^-18: the integer inside a DECIMAL(38,18).
func (m Money) Unscaled() *big.Int { return new(big.Int).Set(m.f.big()) }

// MoneyFromUnscaled is the amount of n times 10^-18.
func MoneyFromUnscaled(n *big.Int) Money { return Money{fixed{new(big.Int).Set(n)}} }

// Allot splits m into parts in proportion to weights, by largest remainder, so that
// the parts add up to m exactly. The smallest part is 10^-18. Remainders that are
// equal go to the lower index first. Negative weights count as zero. If every
// weight is zero the whole of m cannot be given to anyone: Allot returns nil.
func (m Money) Allot(weights []*big.Int) []Money {
	sum := new(big.Int)
	for _, w := range weights {
		if w != nil && w.Sign() > 0 {
			sum.Add(sum, w)
		}
	}
	if sum.Sign() == 0 {
		return nil
	}
	total := m.Abs().f.big()
	type rest struct {
		index int
		r     *big.Int
	}
	parts := make([]*big.Int, len(weights))
	rests := make([]rest, 0, len(weights))
	given := new(big.Int)
	for i, w := range weights {
		if w == nil || w.Sign() <= 0 {
			parts[i] = new(big.Int)
			continue
		}
		q, r := new(big.Int).QuoRem(new(big.Int).Mul(total, w), sum, new(big.Int))
		parts[i] = q
		given.Add(given, q)
		rests = append(rests, rest{i, r})
	}
	left := int(new(big.Int).Sub(total, given).Int64()) // fewer than len(weights)
	sort.SliceStable(rests, func(a, b int) bool { return rests[a].r.Cmp(rests[b].r) > 0 })
	for _, r := range rests[:left] {
		parts[r.index].Add(parts[r.index], big.NewInt(1))
	}
	out := make([]Money, len(parts))
	for i, p := range parts {
		if m.Sign() < 0 {
			p.Neg(p)
		}
		out[i] = Money{fixed{p}}
	}
	return out
}

// Quantity is an exact amount of usage in single units (tokens, images, seconds),
// to 18 decimal places: the bill counts in thousands or millions of tokens, with
// fractions.
type Quantity struct{ f fixed }

// Count is the quantity of n whole units.
func Count(n int64) Quantity { return Quantity{fixed{one}.times(n)} }

// ParseQuantity reads a plain or scientific decimal, refusing what it cannot keep exactly.
func ParseQuantity(s string) (Quantity, error) {
	f, _, err := parseFixed(s, false)
	return Quantity{f}, err
}

// ParseQuantityRounded is to ParseQuantity what ParseMoneyRounded is to ParseMoney.
func ParseQuantityRounded(s string) (q Quantity, rounded bool, err error) {
	f, rounded, err := parseFixed(s, true)
	return Quantity{f}, rounded, err
}

// QuantityFromUnscaled is the quantity of n times 10^-18.
func QuantityFromUnscaled(n *big.Int) Quantity { return Quantity{fixed{new(big.Int).Set(n)}} }

// Unscaled is the quantity as a count of 10^-18.
func (q Quantity) Unscaled() *big.Int { return new(big.Int).Set(q.f.big()) }

// Add is q + r.
func (q Quantity) Add(r Quantity) Quantity { return Quantity{q.f.add(r.f)} }

// Sub is q - r.
func (q Quantity) Sub(r Quantity) Quantity { return Quantity{q.f.sub(r.f)} }

// Times is q multiplied by a whole number, such as 1,000 for a row counted in
// thousands of tokens.
func (q Quantity) Times(n int64) Quantity { return Quantity{q.f.times(n)} }

// Cmp compares as Money.Cmp does.
func (q Quantity) Cmp(r Quantity) int { return q.f.cmp(r.f) }

// Sign is -1, 0 or +1.
func (q Quantity) Sign() int { return q.f.sign() }

// IsZero reports whether q is exactly zero.
func (q Quantity) IsZero() bool { return q.f.sign() == 0 }

// String is the shortest exact decimal text.
func (q Quantity) String() string { return q.f.String() }

// MarshalText writes the exact decimal string.
func (q Quantity) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (q *Quantity) UnmarshalText(b []byte) error {
	v, err := ParseQuantity(string(b))
	if err != nil {
		return err
	}
	*q = v
	return nil
}

// Rate is money per single unit of usage: per token, not per thousand tokens.
type Rate struct{ f fixed }

// ParseRate reads a price for a number of units ("3.30" per 1,000,000) and refuses
// one whose price per single unit has more than 18 decimal places.
func ParseRate(price string, per int64) (Rate, error) {
	if per <= 0 {
		return Rate{}, fmt.Errorf("price per %d units: the number must be positive", per)
	}
	f, _, err := parseFixed(price, false)
	if err != nil {
		return Rate{}, err
	}
	q, r := new(big.Int).QuoRem(f.big(), big.NewInt(per), new(big.Int))
	if r.Sign() != 0 {
		return Rate{}, fmt.Errorf("%s per %d units: %w", price, per, ErrPrecision)
	}
	return Rate{fixed{q}}, nil
}

// Of is the cost of n units, exactly.
func (r Rate) Of(n int64) Money { return Money{r.f.times(n)} }

// OfQuantity is the cost of q units, rounded half to even at the eighteenth place.
func (r Rate) OfQuantity(q Quantity) Money { return Money{r.f.timesFixed(q.f)} }

// Cmp compares as Money.Cmp does.
func (r Rate) Cmp(s Rate) int { return r.f.cmp(s.f) }

// IsZero reports a price of zero, which is a price: usage without one is unpriced.
func (r Rate) IsZero() bool { return r.f.sign() == 0 }

// Per is the price of n units as exact text, such as the price of a million tokens.
func (r Rate) Per(n int64) string { return r.f.times(n).String() }

// String is the price of one unit as exact text.
func (r Rate) String() string { return r.f.String() }
