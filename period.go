package waybill

import (
	"fmt"
	"time"
)

// A Period is a billing period: one UTC month. It holds its start and not its end.
type Period struct {
	Year  int
	Month time.Month
}

// PeriodOf is the billing period that t falls in.
func PeriodOf(t time.Time) Period {
	t = t.UTC()
	return Period{t.Year(), t.Month()}
}

// ParsePeriod reads "2026-07".
func ParsePeriod(s string) (Period, error) {
	t, err := time.Parse("2006-01", s)
	if err != nil {
		return Period{}, fmt.Errorf("billing period %q: write it as YYYY-MM", s)
	}
	return PeriodOf(t), nil
}

// Start is the first instant of the period.
func (p Period) Start() time.Time { return time.Date(p.Year, p.Month, 1, 0, 0, 0, 0, time.UTC) }

// End is the first instant after the period.
func (p Period) End() time.Time { return p.Start().AddDate(0, 1, 0) }

// Contains reports whether t falls in the period.
func (p Period) Contains(t time.Time) bool { return !t.Before(p.Start()) && t.Before(p.End()) }

// Next is the period after p.
func (p Period) Next() Period { return PeriodOf(p.End()) }

// Prev is the period before p.
func (p Period) Prev() Period { return PeriodOf(p.Start().Add(-time.Second)) }

// IsZero reports whether p is no period.
func (p Period) IsZero() bool { return p.Year == 0 }

// String is "2026-07".
func (p Period) String() string { return fmt.Sprintf("%04d-%02d", p.Year, int(p.Month)) }

// MarshalText writes String.
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Period) UnmarshalText(b []byte) error {
	v, err := ParsePeriod(string(b))
	if err != nil {
		return err
	}
	*p = v
	return nil
}

// A Day is a UTC day: the days since 1970-01-01.
type Day int32

// DayOf is the UTC day of t.
func DayOf(t time.Time) Day { return Day(floorDiv(t.Unix(), 86400)) }

// ParseDay reads "2026-07-31".
func ParseDay(s string) (Day, error) {
	t, err := time.Parse("2006-01-02", s)
	if err != nil {
		return 0, fmt.Errorf("day %q: write it as YYYY-MM-DD", s)
	}
	return DayOf(t), nil
}

// Start is the first instant of the day.
func (d Day) Start() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// String is "2026-07-31".
func (d Day) String() string { return d.Start().Format("2006-01-02") }

// An Hour is a UTC hour: the hours since 1970-01-01T00.
type Hour int32

// HourOf is the UTC hour of t.
func HourOf(t time.Time) Hour { return Hour(floorDiv(t.Unix(), 3600)) }

// Start is the first instant of the hour.
func (h Hour) Start() time.Time { return time.Unix(int64(h)*3600, 0).UTC() }

// Day is the day the hour is in.
func (h Hour) Day() Day { return Day(floorDiv(int64(h), 24)) }

// String is "2026-07-31T23Z".
func (h Hour) String() string { return h.Start().Format("2006-01-02T15Z") }

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && a < 0 {
		q--
	}
	return q
}
