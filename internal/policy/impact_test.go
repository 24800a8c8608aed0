package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/waybill-dev/waybill"
)

func dollars(n int64) waybill.Money {
	m, err := waybill.ParseMoney(fmt.Sprint(n))
	if err != nil {
		panic(err) // a whole number
	}
	return m
}

// A replay says which callers, calls and dollars would be refused or renamed.
func TestReplay(t *testing.T) {
	p := parse(t, `
tags:
  keys:
    team: {required: true, values: [search, ads], aliases: {find: search}}
    user: {from: caller.subject, transform: hmac}
    department: {from: claims.department, required: true}
    stage: {default: dev}
reorganisations: [{key: team, from: 2026-11-10, became: {growth: ads}}]
`)
	day := func(s string) waybill.Day { d, _ := waybill.ParseDay(s); return d }
	tags := func(pairs ...string) waybill.Tags {
		var out []waybill.Tag
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, waybill.Tag{Key: pairs[i], Value: pairs[i+1]})
		}
		return waybill.NewTags(out...)
	}
	hash := func(who string) string {
		return p.Decide(&Request{Principal: waybill.Principal{Subject: who}}).Tags.Map()["user"]
	}
	past := []Past{
		{Principal: "same", Tags: tags("team", "search", "department", "D1", "stage", "dev", "user", hash("same")), Day: day("2026-11-01"), Calls: 1, Cost: dollars(1)},
		{Principal: "renamed", Tags: tags("team", "find", "department", "D1", "stage", "prod", "user", hash("renamed")), Day: day("2026-11-01"), Calls: 10, Cost: dollars(2)},
		{Principal: "reorganised", Tags: tags("team", "growth", "department", "D1", "stage", "prod", "user", "reorganised"), Day: day("2026-11-11"), Calls: 100, Cost: dollars(4)},
		{Principal: "refused", Tags: tags("team", "growth", "department", "D1", "stage", "prod"), Day: day("2026-11-01"), Calls: 1000, Cost: dollars(8)},
		{Principal: "undecided", Tags: tags("team", "search"), Day: day("2026-11-01"), Calls: 10000, Cost: dollars(16)},
		{Principal: "freed", Tags: tags("team", "ads", "department", "D1", "stage", "dev", "user", hash("freed")), Day: day("2026-11-01"), Calls: 100000, Refused: true},
	}
	got := p.Replay(past)
	tally := func(t Tally) string { return fmt.Sprintf("%d/%s", t.Calls, t.Cost) }
	text := strings.Join([]string{"total " + tally(got.Total), "same " + tally(got.Same), "changed " + tally(got.Changed), "warned " + tally(got.Warned),
		"refused " + tally(got.Refused), "undecided " + tally(got.Undecided), "freed " + tally(got.Freed)}, ", ")
	if want := "total 111111/31, same 100001/1, changed 110/6, warned 0/0, refused 1000/8, undecided 10000/16, freed 100000/0"; text != want {
		t.Errorf("%s\nwant %s", text, want)
	}
	if c := got.Callers[0]; c.Caller != "refused" || tally(c.Refused) != "1000/8" || strings.Join(c.Why, ",") != "team:not_allowed" {
		t.Errorf("dearest refusal %+v", c)
	}
	var renamed []string
	for _, r := range got.Renamed {
		renamed = append(renamed, fmt.Sprintf("%s %s>%s %s", r.Key, r.From, r.To, tally(r.Tally)))
	}
	want := fmt.Sprintf("stage >dev 10000/16; user >%s 10000/16; team growth>ads 100/4; user reorganised>%s 100/4; team find>search 10/2", hash("undecided"), hash("reorganised"))
	if strings.Join(renamed, "; ") != want {
		t.Errorf("renamed %s\nwant %s", strings.Join(renamed, "; "), want)
	}
	if len(got.Notes) != 1 || !strings.Contains(got.Notes[0], "department") {
		t.Errorf("notes %q", got.Notes)
	}
}

// A call is counted once under a violation, however many rules it breaks with it.
func TestReplayCountsCallsOnce(t *testing.T) {
	p := parse(t, `
tags:
  keys: {team: {values: [a, b, c]}, stage: {}}
  rules:
    - {when: {stage: prod}, allow: {team: [a]}}
    - {when: {stage: prod}, allow: {team: [a, b]}}
`)
	got := p.Replay([]Past{{Principal: "x", Tags: waybill.NewTags(waybill.Tag{Key: "team", Value: "c"}, waybill.Tag{Key: "stage", Value: "prod"}), Day: 20000, Calls: 7, Cost: dollars(3)}})
	if len(got.Violations) != 1 || got.Violations[0].Calls != 7 || got.Violations[0].Cost.String() != "3" || got.Refused.Calls != 7 {
		t.Errorf("violations %+v of %+v", got.Violations, got.Total)
	}
}

// Every call is in exactly one outcome, and the outcomes add up.
func TestReplayAddsUp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		p := randomPolicy(t, r)
		var past []Past
		for range 50 {
			req := randomRequest(r, p)
			var tags []waybill.Tag
			for _, a := range req.Asked {
				tags = append(tags, waybill.Tag{Key: a.Key, Value: a.Value})
			}
			past = append(past, Past{Principal: fmt.Sprint("caller-", r.IntN(5)), Tags: waybill.NewTags(tags...), Day: 20000, Calls: r.Int64N(100), Cost: dollars(r.Int64N(1000))})
		}
		got := p.Replay(past)
		var sum, callers Tally
		for _, part := range []Tally{got.Same, got.Changed, got.Warned, got.Refused, got.Undecided} {
			sum.Calls, sum.Cost = sum.Calls+part.Calls, sum.Cost.Add(part.Cost)
		}
		for _, c := range got.Callers {
			callers.Calls, callers.Cost = callers.Calls+c.Total.Calls, callers.Cost.Add(c.Total.Cost)
		}
		if sum.Calls != got.Total.Calls || sum.Cost.Cmp(got.Total.Cost) != 0 || callers.Calls != got.Total.Calls || callers.Cost.Cmp(got.Total.Cost) != 0 {
			t.Fatalf("outcomes %v, callers %v, total %v", sum, callers, got.Total)
		}
	}
}
