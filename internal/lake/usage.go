package lake

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
)

// mergeSQL is the rule by which the sources of a call become one call. Within a source
// the larger counter wins, kind by kind: a streamed call may leave a zero record before
// the full one. The fullest record tells the rest of the call as well, its time and its
// tags; of equals the tagged one, then the latest: no order of reading matters. Between
// the sources the log wins for the kinds of usage that it tells, and the gateway for
// everything else. The log tells tokens all together, so that its zeroes count as well; of
// images, seconds, search units and guardrail units it tells those that it has. It does not
// know the life of cache writes: the gateway's split of them stands, as far as the log has
// as many. A log that has only zeroes does not win: its full record is still to come.
// A look at a response that was made in the background tells its usage and nothing else,
// whatever its own record says: not who looks has asked for the response, nor when they
// look.
func mergeSQL(from string) string {
	var b strings.Builder
	used := make([]string, len(waybill.Kinds))
	for i, k := range waybill.Kinds {
		used[i] = fmt.Sprintf("coalesce(%s, 0)", k)
	}
	b.WriteString(`
WITH r AS (SELECT *, CASE WHEN request_id <> '' THEN account || '/' || region || '/' || request_id ELSE 'call/' || call_id END AS k,
             (((CASE outcome WHEN 'interrupted' THEN 0 WHEN 'failed' THEN 2 ELSE 4 END + known::BIGINT) * 134217728
               + CASE WHEN known THEN least(` + strings.Join(used, " + ") + `, 134217727) ELSE 0 END) * 2 + (tag_set <> '')::BIGINT) * 4294967296 + epoch_us(started_at) // 1000000
             - CASE WHEN operation IN ('GetResponse', 'CancelResponse') THEN 7000000000000000000 ELSE 0 END AS rank FROM ` + from + `),
c AS (SELECT k,
  coalesce(bool_or(source = 'gateway'), false) AS has_g, coalesce(bool_or(source = 'log'), false) AS has_l,
  arg_max(r, rank) FILTER (source = 'gateway') AS g, arg_max(r, rank) FILTER (source = 'log') AS l,
  coalesce(bool_or(known) FILTER (source = 'gateway'), false) AS g_known, coalesce(bool_or(known) FILTER (source = 'log'), false) AS l_known`)
	for _, k := range waybill.Kinds {
		fmt.Fprintf(&b, ",\n  coalesce(max(%[1]s) FILTER (source = 'gateway' AND known), 0) AS g_%[1]s, coalesce(max(%[1]s) FILTER (source = 'log' AND known), 0) AS l_%[1]s", k)
	}
	fmt.Fprintf(&b, `
  FROM r GROUP BY k),
d AS (SELECT *, l_known AND (NOT g_known OR %s > 0) AS by_log,
  l_cache_write_5m + l_cache_write_30m + l_cache_write_1h AS l_writes,
  l_cache_write_30m + l_cache_write_1h > 0 AND (NOT g_known OR l_cache_write_5m + l_cache_write_30m + l_cache_write_1h <> g_cache_write_5m + g_cache_write_30m + g_cache_write_1h) AS log_splits FROM c),
m AS (SELECT CASE WHEN has_g THEN g.started_at ELSE l.started_at END AS moment,
  CASE WHEN has_g AND has_l THEN 'both' WHEN has_g THEN 'gateway' ELSE 'log' END AS sources,
  g_known OR l_known AS known`, "l_"+strings.Join(tokenColumns, " + l_"))
	pick := func(name, expr string) { fmt.Fprintf(&b, ",\n  %s AS %s", expr, name) }
	for _, name := range []string{"account", "region", "endpoint", "model", "model_id", "profile", "project", "scope", "tier", "principal", "principal_arn", "session_name", "operation", "issuer", "key_id", "model_asked"} {
		pick(name, fmt.Sprintf("coalesce(nullif(g.%[1]s, ''), l.%[1]s, '')", name))
	}
	pick("latency_mode", "coalesce(CASE WHEN has_g THEN g.latency_mode ELSE l.latency_mode END, '')")
	pick("tag_set", "coalesce(CASE WHEN has_g THEN g.tag_set ELSE l.tag_set END, '')")
	pick("outcome", "CASE WHEN has_g THEN g.outcome ELSE l.outcome END")
	pick("policy_outcome", "coalesce(g.policy_outcome, '')")
	for _, k := range waybill.Kinds {
		log := "l_" + string(k)
		switch k {
		case waybill.CacheWrite1h:
			log = "CASE WHEN log_splits THEN l_cache_write_1h ELSE least(g_cache_write_1h, l_writes) END"
		case waybill.CacheWrite30m:
			log = "CASE WHEN log_splits THEN l_cache_write_30m ELSE least(g_cache_write_30m, l_writes - least(g_cache_write_1h, l_writes)) END"
		case waybill.CacheWrite5m:
			log = "CASE WHEN log_splits THEN l_cache_write_5m ELSE greatest(l_writes - g_cache_write_30m - g_cache_write_1h, 0) END"
		}
		by := "by_log"
		if !slices.Contains(tokenColumns, string(k)) {
			by = log + " > 0"
		}
		pick(string(k), fmt.Sprintf("CASE WHEN %s THEN %s ELSE g_%s END", by, log, k))
	}
	b.WriteString("\n  FROM d)\n")
	return b.String()
}

// tokenColumns are the kinds of usage that a record of the log tells all together.
var tokenColumns = []string{string(waybill.Input), string(waybill.Output), string(waybill.CacheRead), string(waybill.CacheWrite5m), string(waybill.CacheWrite30m), string(waybill.CacheWrite1h)}

// mergeVersion counts the changes of mergeSQL: a roll-up by an older rule is made again.
const mergeVersion = 3

var cellColumns = []string{"account", "region", "endpoint", "model", "model_id", "profile", "project", "scope", "tier", "latency_mode", "context_bucket",
	"principal", "principal_arn", "session_name", "tag_set", "sources", "outcome", "policy_outcome", "operation", "issuer", "key_id", "model_asked"}

// rollUp makes the roll-up of a period from the files of invocations, if it is not
// there already, by the roll-up's newest version. Calls whose sources disagree on the side of midnight at the turn of a
// month are found by looking an hour over the edge.
func (l *Lake) rollUp(ctx context.Context, p waybill.Period) (files []string, covers string, err error) {
	all, _, err := l.dataFiles(ctx, &invocations)
	if err != nil {
		return nil, "", fmt.Errorf("read invocations: %w", err)
	}
	around := ofPeriod(all, p.Prev(), p, p.Next())
	covers = digest(append([]string{fmt.Sprintf("usage_hours version %d, merged by rule %d", usageHours.version, mergeVersion)}, around...))
	have, _, err := l.dataFiles(ctx, &usageHours)
	if err != nil {
		return nil, "", fmt.Errorf("read the roll-up: %w", err)
	}
	have = ofPeriod(have, p)
	if len(have) > 0 {
		from, err := l.scan(ctx, have)
		if err != nil {
			return nil, "", err
		}
		var n int
		if err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM "+from+" WHERE covers <> ?", covers).Scan(&n); err != nil {
			return nil, "", fmt.Errorf("read the roll-up: %w", err)
		}
		if n == 0 {
			return have, covers, nil
		}
	}
	if len(around) == 0 {
		return nil, covers, nil
	}
	from, err := l.scan(ctx, around)
	if err != nil {
		return nil, "", err
	}
	window := fmt.Sprintf("(SELECT * FROM %s WHERE started_at >= TIMESTAMP '%s' AND started_at < TIMESTAMP '%s')", from,
		p.Start().Add(-3600e9).Format("2006-01-02 15:04:05"), p.End().Add(3600e9).Format("2006-01-02 15:04:05"))
	context := strings.Join(slices.DeleteFunc(slices.Clone(tokenColumns), func(c string) bool { return c == string(waybill.Output) }), " + ")
	var sums []string
	for _, k := range waybill.Kinds {
		sums = append(sums, fmt.Sprintf("sum(CASE WHEN known THEN %[1]s ELSE 0 END) AS %[1]s", k))
	}
	query := mergeSQL(window) + fmt.Sprintf(`
SELECT '%s' AS period, '%s' AS covers, epoch_us(moment) // 3600000000 AS hour, %s,
  count(*) AS calls, count(*) FILTER (NOT known) AS unknown, %s, 0 AS reasoning
FROM (SELECT *, CASE WHEN known AND %[5]s > 100000 THEN (%[5]s - 1) // 1000 * 1000 ELSE 0 END AS context_bucket FROM m
      WHERE moment >= TIMESTAMP '%[6]s' AND moment < TIMESTAMP '%[7]s')
GROUP BY ALL`, p, covers, strings.Join(cellColumns, ", "), strings.Join(sums, ", "), context,
		p.Start().Format("2006-01-02 15:04:05"), p.End().Format("2006-01-02 15:04:05"))
	name, rows, err := l.write(ctx, &usageHours, p.String(), query)
	if err != nil {
		return nil, "", err
	}
	if rows == 0 {
		return nil, covers, nil
	}
	if err := l.replace(ctx, &usageHours, p, []string{name}, nil, nil); err != nil {
		return nil, "", err
	}
	return []string{name}, covers, nil
}

// Usage gives the hourly roll-up of a period and the tags of its tag sets.
func (l *Lake) Usage(ctx context.Context, p waybill.Period) ([]waybill.UsageTotal, map[string]waybill.Tags, error) {
	files, _, err := l.rollUp(ctx, p)
	if err != nil || len(files) == 0 {
		return nil, nil, err
	}
	from, err := l.scan(ctx, files)
	if err != nil {
		return nil, nil, err
	}
	kinds := make([]string, len(waybill.Kinds))
	for i, k := range waybill.Kinds {
		kinds[i] = string(k)
	}
	rows, err := l.db.QueryContext(ctx, "SELECT hour, "+strings.Join(cellColumns, ", ")+", calls, unknown, "+strings.Join(kinds, ", ")+" FROM "+from+" ORDER BY ALL")
	if err != nil {
		return nil, nil, fmt.Errorf("read the roll-up: %w", err)
	}
	defer rows.Close()
	var out []waybill.UsageTotal
	for rows.Next() {
		var u waybill.UsageTotal
		var hour int32
		quantities := make([]int64, len(kinds))
		dest := []any{&hour, &u.Account, &u.Region, &u.Endpoint, &u.Model, &u.ModelID, &u.Profile, &u.Project, &u.Scope, &u.Tier, &u.LatencyMode, &u.ContextBucket,
			&u.Principal, &u.PrincipalARN, &u.SessionName, &u.TagSet, &u.Sources, &u.Outcome, &u.PolicyOutcome, &u.Operation, &u.Issuer, &u.KeyID, &u.ModelAsked, &u.Calls, &u.Unknown}
		for i := range quantities {
			dest = append(dest, &quantities[i])
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, nil, fmt.Errorf("read the roll-up: %w", err)
		}
		u.Hour, u.Usage = waybill.Hour(hour), waybill.NewUsage()
		for i, n := range quantities {
			u.Usage.Set(waybill.Kinds[i], n)
		}
		out = append(out, u)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	tags, err := l.readTagSets(ctx)
	return out, tags, err
}

// Periods lists the billing periods that the lake has calls of, and those it has a bill
// of, in order.
func (l *Lake) Periods(ctx context.Context) (calls, bills []waybill.Period, err error) {
	of := func(spec *tableSpec) ([]waybill.Period, error) {
		files, _, err := l.dataFiles(ctx, spec)
		if err != nil {
			return nil, fmt.Errorf("list periods: %w", err)
		}
		var out []waybill.Period
		for _, f := range files {
			_, rest, _ := strings.Cut(f, "/period=")
			text, _, _ := strings.Cut(rest, "/")
			if p, err := waybill.ParsePeriod(text); err == nil {
				out = append(out, p)
			}
		}
		slices.SortFunc(out, func(a, b waybill.Period) int { return a.Start().Compare(b.Start()) })
		return slices.Compact(out), nil
	}
	if calls, err = of(&invocations); err != nil {
		return nil, nil, err
	}
	bills, err = of(&lineItems)
	return calls, bills, err
}
