// Package ratecard knows what AWS charges and under which names: which model and
// kind of usage a usage type of the bill stands for, in all three dialects; which
// model a billing name means; and the rate of a usage key on each day.
//
// It holds no price and no ratio between prices. Prices come from a rate card file,
// each with its usage kind, scope, dates and source; what has no price is unpriced.
package ratecard
