package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/control"
	"github.com/waybill-dev/waybill/internal/policy"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

const evidenceRates = `model,region,scope,usage_kind,tier,context,per,price,currency,valid_from,valid_to,source
example.model-v1:0,*,plain,input,standard,,1000000,1,USD,2026-01-01,,example
`

// A month with calls of the gateway and of the log: what the controls are told of it.
func TestEvidence(t *testing.T) {
	begin := time.Date(2026, 10, 5, 0, 0, 0, 0, time.UTC)
	team, other := waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}), waybill.NewTags(waybill.Tag{Key: "team", Value: "ann@example.com"})
	period, err := waybill.ParsePeriod("2026-10")
	if err != nil {
		t.Fatal(err)
	}
	cell := func(hour int, account, sources, session string, tags waybill.Tags, outcome waybill.Outcome) waybill.UsageTotal {
		u := waybill.Usage{Known: true}
		u.Set(waybill.Input, 1_000_000)
		return waybill.UsageTotal{Hour: waybill.HourOf(begin.Add(time.Duration(hour) * time.Hour)), Account: account, Region: "us-east-1", Endpoint: waybill.Runtime, Model: "example.model-v1:0", ModelID: "example.model-v1:0",
			Scope: waybill.Plain, Tier: "standard", PrincipalARN: "arn:aws:sts::" + account + ":assumed-role/r/" + session, SessionName: session, TagSet: tags.ID(), Sources: sources, Outcome: outcome, Calls: 1, Usage: u}
	}
	c := &cells{periods: []waybill.Period{period}, tags: map[string]waybill.Tags{team.ID(): team, other.ID(): other}, usage: map[waybill.Period][]waybill.UsageTotal{period: {
		cell(0, "111122223333", "both", "a", team, waybill.Completed),
		cell(1, "111122223333", "gateway", "a", team, waybill.Completed), // not in the log
		cell(2, "111122223333", "gateway", "b", team, waybill.Completed), // nor this
		cell(3, "111122223333", "both", "a", team, waybill.Completed),
		cell(3, "111122223333", "gateway", "b", team, waybill.Completed), // late, in an hour that is logged
		cell(3, "111122223333", "log", "c", other, waybill.Completed),
		cell(3, "444455556666", "log", "c", other, waybill.Completed),
		cell(4, "111122223333", "gateway", "a", team, waybill.Refused),
		cell(30, "111122223333", "gateway", "a", team, waybill.Completed), // too new to be missed, and outside
	}}}
	card, err := ratecard.Parse("rates.csv", strings.NewReader(evidenceRates))
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse("policy.yaml", []byte("tags: {keys: {team: {carriers: [session, request]}}}"), policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := &control.Evidence{Since: begin, Until: begin.AddDate(0, 0, 1)}
	byDay := make(days)
	if err := (evidence{policy: p}).addCalls(t.Context(), e, byDay, c, card); err != nil {
		t.Fatal(err)
	}
	c.within(e.Since, e.Until, byDay.addTokens)
	e.Days = byDay.list()

	if got, want := fmt.Sprint(e.Total), "7"; got != want {
		t.Errorf("total is %s, want %s", got, want)
	}
	if len(e.Days) != 2 || e.Days[0].Account != "111122223333" || e.Days[0].Calls != 6 || e.Days[0].Input != 6_000_000 || e.Days[1].Calls != 1 {
		t.Errorf("days are %+v", e.Days)
	}
	carried := make(map[string]string)
	for _, k := range e.Keys {
		carried[k.Key+" "+k.Carrier] = k.Cost.String()
	}
	// Nobody knows what rode on the sessions of calls that only the log tells of.
	if carried["team request"] != "7" || carried["team session"] != "5" || len(carried) != 2 {
		t.Errorf("keys are %v", carried)
	}
	for _, v := range e.Values {
		if v.Value == "ann@example.com" || v.Value == "" && v.Sensitive == "" {
			t.Errorf("value %+v", v)
		}
	}
	found := gaps(c, e.Since, e.Until)
	if len(found) != 1 || found[0].Calls != 2 || !found[0].From.Equal(begin.Add(time.Hour)) || !found[0].To.Equal(begin.Add(3*time.Hour)) {
		t.Errorf("gaps are %+v", found)
	}
	if got := peakSessions(c, e.Since, e.Until); got != 2 {
		t.Errorf("%d sessions at the peak, want 2", got)
	}
}

// A key that is personal data itself is told by its kind, as values are.
func TestSensitiveKeyIsNotKept(t *testing.T) {
	to := make(map[[3]string]*control.ValueUsage)
	addValue(to, "ann@example.com", "x", "log", 1, waybill.Money{})
	for id, v := range to {
		if strings.Contains(fmt.Sprint(id, *v), "ann@") || v.Key != policy.Shown("ann@example.com") {
			t.Errorf("kept is %+v", v)
		}
	}
}
