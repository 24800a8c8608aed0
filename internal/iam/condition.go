package iam

import (
	"fmt"
	"math/big"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Condition is one key under one operator. Conditions of a statement all hold, or the
// statement does not apply.
type Condition struct {
	Operator string // as written, such as ForAnyValue:StringLikeIfExists
	Key      string
	Values   []string

	op       operator
	folded   string // Key in lower case
	operands []operand
}

// An operator is a comparison with its prefix and suffix: IAM User Guide, "Condition
// operators" and "Set operators for multivalued context keys".
type operator struct {
	set      string // "", ForAllValues or ForAnyValue
	name     string // without Not
	not      bool
	ifExists bool
}

// operators says which comparison each is, and whether it is the negation of one.
var operators = map[string]operator{
	"StringEquals":              {name: "StringEquals"},
	"StringNotEquals":           {name: "StringEquals", not: true},
	"StringEqualsIgnoreCase":    {name: "StringEqualsIgnoreCase"},
	"StringNotEqualsIgnoreCase": {name: "StringEqualsIgnoreCase", not: true},
	"StringLike":                {name: "StringLike"},
	"StringNotLike":             {name: "StringLike", not: true},
	"ArnEquals":                 {name: "ArnLike"}, // AWS's two behave alike
	"ArnLike":                   {name: "ArnLike"},
	"ArnNotEquals":              {name: "ArnLike", not: true},
	"ArnNotLike":                {name: "ArnLike", not: true},
	"NumericEquals":             {name: "NumericEquals"},
	"NumericNotEquals":          {name: "NumericEquals", not: true},
	"NumericLessThan":           {name: "NumericLessThan"},
	"NumericLessThanEquals":     {name: "NumericLessThanEquals"},
	"NumericGreaterThan":        {name: "NumericGreaterThan"},
	"NumericGreaterThanEquals":  {name: "NumericGreaterThanEquals"},
	"DateEquals":                {name: "DateEquals"},
	"DateNotEquals":             {name: "DateEquals", not: true},
	"DateLessThan":              {name: "DateLessThan"},
	"DateLessThanEquals":        {name: "DateLessThanEquals"},
	"DateGreaterThan":           {name: "DateGreaterThan"},
	"DateGreaterThanEquals":     {name: "DateGreaterThanEquals"},
	"Bool":                      {name: "Bool"},
	"Null":                      {name: "Null"},
	"IpAddress":                 {name: "IpAddress"},
	"NotIpAddress":              {name: "IpAddress", not: true},
}

func parseOperator(text string) (operator, error) {
	set, name := "", text
	if before, after, ok := strings.Cut(text, ":"); ok {
		if before != "ForAllValues" && before != "ForAnyValue" {
			return operator{}, fmt.Errorf("operator %q: %s is neither ForAllValues nor ForAnyValue", text, before)
		}
		set, name = before, after
	}
	base, ifExists := strings.CutSuffix(name, "IfExists")
	op, ok := operators[base]
	switch {
	case base == "BinaryEquals":
		return op, fmt.Errorf("operator %q compares bytes, which is not evaluated here", text)
	case !ok:
		return op, fmt.Errorf("operator %q is not known", text)
	case op.name == "Null" && (ifExists || set != ""):
		return op, fmt.Errorf("operator %q: Null stands alone", text)
	case set == "ForAnyValue" && ifExists:
		return op, fmt.Errorf("operator %q: AWS does not say what IfExists means with ForAnyValue", text)
	}
	op.set, op.ifExists = set, ifExists
	return op, nil
}

// An operand is one value of a condition, read for its operator.
type operand struct {
	text     pattern
	segments []pattern // of an ARN
	boolean  bool
	prefix   netip.Prefix
	number   *big.Rat
	date     time.Time
	late     bool // has variables: read when they are known
}

func (op operator) operand(text string, variables bool) (operand, error) {
	var o operand
	var err error
	if o.text, err = compile(text, variables); err != nil {
		return o, err
	}
	for _, part := range o.text {
		o.late = o.late || part.variable != ""
	}
	switch {
	case op.name == "ArnLike":
		var ok bool
		if o.segments, ok = o.text.split(); !ok {
			return o, fmt.Errorf("%q is no ARN of six parts", text)
		}
	case strings.HasPrefix(op.name, "String"):
	case o.late:
		if op.name == "Null" || op.name == "Bool" {
			return o, fmt.Errorf("a policy variable is no truth value")
		}
	default:
		err = o.read(op.name, text)
	}
	return o, err
}

// read reads a value that is neither a text nor an ARN.
func (o *operand) read(operator, text string) (err error) {
	switch {
	case operator == "Bool", operator == "Null":
		if !strings.EqualFold(text, "true") && !strings.EqualFold(text, "false") {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		o.boolean = strings.EqualFold(text, "true")
	case operator == "IpAddress":
		o.prefix, err = parsePrefix(text)
	case strings.HasPrefix(operator, "Numeric"):
		o.number, err = parseNumber(text)
	default:
		o.date, err = parseDate(text)
	}
	return err
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return p, fmt.Errorf("%q is no range of addresses", text)
		}
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is no address", text)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

var numberText = regexp.MustCompile(`^[-+]?[0-9]{1,30}(\.[0-9]{1,30})?$`)

func parseNumber(text string) (*big.Rat, error) {
	if !numberText.MatchString(text) {
		return nil, fmt.Errorf("%q is no number", text)
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, fmt.Errorf("%q is no number", text)
	}
	return r, nil
}

// parseDate reads the W3C's profile of ISO 8601, or seconds since 1970.
func parseDate(text string) (time.Time, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && len(text) != 4 {
		return time.Unix(n, 0).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01", "2006"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no date", text)
}

// truth is an answer that may not be known.
type truth int8

const (
	no truth = iota
	unknown
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// opposite of what is not known is not known.
func (t truth) opposite() truth { return yes - t }

// applies reports whether the condition holds for a request.
func (c *Condition) applies(l *lookup) (truth, error) {
	values, there := l.get(c.folded)
	if c.op.name == "Null" {
		result := no
		for _, o := range c.operands { // true: the key is absent
			if o.boolean {
				result = max(result, there.opposite())
			} else {
				result = max(result, there)
			}
		}
		return result, nil
	}
	switch {
	case there == unknown:
		return unknown, nil
	case there == no && c.op.set == "ForAllValues":
		return yes, nil // of nothing, everything is true
	case there == no && c.op.set == "ForAnyValue":
		return no, nil
	case there == no:
		return truthOf(c.op.ifExists || c.op.not), nil
	case len(values) > 1 && c.op.set == "":
		return no, fmt.Errorf("%s of %s: the key has %d values, and the operator needs ForAllValues or ForAnyValue", c.Operator, c.Key, len(values))
	}
	all, some := yes, no
	for _, v := range values {
		one, err := c.oneOf(v, l)
		if err != nil {
			return no, fmt.Errorf("%s of %s: %w", c.Operator, c.Key, err)
		}
		if c.op.not {
			one = one.opposite()
		}
		all, some = min(all, one), max(some, one)
	}
	if c.op.set == "ForAnyValue" {
		return some, nil
	}
	return all, nil
}

// oneOf compares a value of the request with each of the condition's.
func (c *Condition) oneOf(value string, l *lookup) (truth, error) {
	result := no
	for i := range c.operands {
		is, err := c.op.compare(&c.operands[i], value, l)
		if err != nil {
			return no, err
		}
		result = max(result, is)
	}
	return result, nil
}

func (op operator) compare(o *operand, value string, l *lookup) (truth, error) {
	if op.name == "ArnLike" {
		return o.likeARN(value, l)
	}
	if strings.HasPrefix(op.name, "String") {
		pattern, is, err := o.text.resolve(l)
		if err != nil || is != yes {
			return is, err
		}
		switch op.name {
		case "StringLike":
			return truthOf(pattern.matches(value, everywhere)), nil
		case "StringEqualsIgnoreCase":
			return truthOf(strings.EqualFold(pattern.text(), value)), nil
		}
		return truthOf(pattern.text() == value), nil
	}
	mine := *o
	if o.late {
		pattern, is, err := o.text.resolve(l)
		if err != nil || is != yes {
			return is, err
		}
		if err := mine.read(op.name, pattern.text()); err != nil {
			return no, err
		}
	}
	var theirs operand
	if op.name == "Bool" && !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
		return no, nil // a key of another type, which no truth value equals
	}
	if err := theirs.read(op.name, value); err != nil {
		return no, fmt.Errorf("the request's value: %w", err)
	}
	switch {
	case op.name == "Bool":
		return truthOf(mine.boolean == theirs.boolean), nil
	case op.name == "IpAddress":
		return truthOf(mine.prefix.Bits() <= theirs.prefix.Bits() && mine.prefix.Contains(theirs.prefix.Addr())), nil
	case strings.HasPrefix(op.name, "Numeric"):
		return truthOf(ordered(strings.TrimPrefix(op.name, "Numeric"), theirs.number.Cmp(mine.number))), nil
	}
	return truthOf(ordered(strings.TrimPrefix(op.name, "Date"), theirs.date.Compare(mine.date))), nil
}

func ordered(relation string, sign int) bool {
	switch relation {
	case "LessThan":
		return sign < 0
	case "LessThanEquals":
		return sign <= 0
	case "GreaterThan":
		return sign > 0
	case "GreaterThanEquals":
		return sign >= 0
	}
	return sign == 0
}

// likeARN compares the six segments one by one.
func (o *operand) likeARN(value string, l *lookup) (truth, error) {
	segments := strings.SplitN(value, ":", 6)
	if len(segments) != 6 {
		return no, nil
	}
	result := yes
	for i, s := range o.segments {
		pattern, is, err := s.resolve(l)
		if err != nil {
			return no, err
		}
		if is == yes {
			is = truthOf(pattern.matches(segments[i], everywhere))
		}
		result = min(result, is)
	}
	return result, nil
}
