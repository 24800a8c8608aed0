package policy

import (
	"strings"

	"github.com/waybill-dev/waybill"
)

// A reorganisation says that values of a key became others on a day.
type reorganisation struct {
	key      int
	from     waybill.Day
	until    waybill.Day       // the first day on which it no longer holds; 0 is never
	became   map[string]string // by the old value; in lower case if fold
	fold     bool
	position string
}

func (r *reorganisation) overlaps(o reorganisation) bool {
	return (r.until == 0 || o.from < r.until) && (o.until == 0 || r.from < o.until)
}

func (r *reorganisation) holds(day waybill.Day) bool {
	return day >= r.from && (r.until == 0 || day < r.until)
}

// to is what an old value became.
func (r *reorganisation) to(value string) (string, bool) {
	if r.fold {
		value = strings.ToLower(value)
	}
	to, ok := r.became[value]
	return to, ok
}

// reorganised is what an old value of a key is called on a day. It changes the values
// of callers who have not heard of the reorganisation yet.
func (p *Policy) reorganised(key int, value string, day waybill.Day) (string, *reorganisation) {
	var by *reorganisation
	for i := range p.reorganisations {
		if r := &p.reorganisations[i]; r.key == key && r.holds(day) {
			if to, ok := r.to(value); ok {
				value, by = to, r
			}
		}
	}
	return value, by
}

// Reorganised is the value under which a report as of one day shows a value that was
// stamped on another: every reorganisation that has begun by asOf and had not ended
// when the value was stamped is applied, in the order of their days. Values stamped
// after an ended reorganisation keep their new meaning.
func (p *Policy) Reorganised(key, value string, stamped, asOf waybill.Day) string {
	k, ok := p.byName[key]
	if !ok {
		return value
	}
	for i := range p.reorganisations {
		r := &p.reorganisations[i]
		if r.key == k && r.from <= asOf && (r.until == 0 || stamped < r.until) {
			if to, ok := r.to(value); ok {
				value = to
			}
		}
	}
	return value
}

// HasReorganisations reports whether there is anything for Reorganised to do.
func (p *Policy) HasReorganisations() bool { return len(p.reorganisations) > 0 }
