package lake

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/iceberg-go"
	duckdb "github.com/duckdb/duckdb-go/v2"
	"github.com/google/uuid"

	"github.com/waybill-dev/waybill"
)

// A Row is an invocation and where it was read.
type Row struct {
	waybill.Invocation
	Origin string // URI of the object
	Line   int64  // record in it, from 1
}

// AppendInvocations adds rows, and says in the same commit which objects they are
// from. An object whose rows are all in quarantine is still loaded.
func (l *Lake) AppendInvocations(ctx context.Context, loads []Load, rows []Row) error {
	sets := make(map[string]waybill.Tags)
	byPeriod := make(map[waybill.Period][]Row)
	for _, r := range rows {
		byPeriod[waybill.PeriodOf(r.StartedAt)] = append(byPeriod[waybill.PeriodOf(r.StartedAt)], r)
		sets[r.Tags.ID()] = r.Tags
	}
	if err := l.addTagSets(ctx, sets); err != nil {
		return err
	}
	var files []string
	for p, some := range byPeriod {
		stage := "stage_" + strings.ReplaceAll(uuid.NewString(), "-", "")
		if err := l.fill(ctx, stage, &invocations, func(add func(...driver.Value) error) error {
			for i := range some {
				if err := add(invocationValues(p, &some[i])...); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("stage invocations: %w", err)
		}
		name, _, err := l.write(ctx, &invocations, p.String(), "SELECT * FROM "+stage+" ORDER BY day, account, region, started_at")
		if _, dropErr := l.db.ExecContext(ctx, "DROP TABLE "+stage); err == nil {
			err = dropErr
		}
		if err != nil {
			return err
		}
		files = append(files, name)
	}
	props, err := l.putLoads(ctx, &invocations, loads)
	if err != nil {
		return fmt.Errorf("store the list of loads: %w", err)
	}
	if len(files) == 0 {
		return l.commitProperties(ctx, &invocations, props)
	}
	return l.commit(ctx, &invocations, files, props)
}

// commitProperties records loads that brought no rows: as a property of the table.
func (l *Lake) commitProperties(ctx context.Context, spec *tableSpec, props iceberg.Properties) error {
	t, err := l.catalog.open(ctx, spec)
	if err != nil {
		return err
	}
	tx := t.NewTransaction()
	if err := tx.SetProperties(iceberg.Properties{loadsProperty + "." + uuid.NewString(): props[loadsProperty]}); err != nil {
		return fmt.Errorf("commit %s: %w", spec.name, err)
	}
	if _, err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit %s: %w", spec.name, err)
	}
	return nil
}

// fill makes a temporary table of a table's columns and appends rows to it. Decimals
// are staged as text, so that no digit passes through a float.
func (l *Lake) fill(ctx context.Context, name string, spec *tableSpec, rows func(add func(...driver.Value) error) error) error {
	defs := make([]string, len(spec.columns))
	for i, c := range spec.columns {
		typ := c.typ
		if strings.HasPrefix(typ, "DECIMAL") {
			typ = "VARCHAR"
		}
		defs[i] = c.name + " " + typ
	}
	conn, err := l.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "CREATE TEMP TABLE "+name+" ("+strings.Join(defs, ", ")+")"); err != nil {
		return err
	}
	return conn.Raw(func(raw any) error {
		a, err := duckdb.NewAppender(raw.(driver.Conn), "temp", "", name)
		if err != nil {
			return err
		}
		return errors.Join(rows(func(v ...driver.Value) error { return a.AppendRow(v...) }), a.Close())
	})
}

func invocationValues(p waybill.Period, r *Row) []driver.Value {
	v := &r.Invocation
	out := []driver.Value{p.String(), int32(waybill.DayOf(v.StartedAt)), string(v.Source), v.CallID, v.RequestID, v.StartedAt.UTC(),
		v.Account, v.Region, v.InferenceRegion, string(v.Endpoint), v.Operation, string(v.ModelID), string(v.ModelAsked), v.Model, v.Profile, v.Project, string(v.Scope),
		v.Principal, v.Issuer, v.KeyID, v.PrincipalARN, v.SessionName, v.Tags.ID(), v.Carried, v.PolicyVersion, string(v.PolicyOutcome), strings.Join(v.Reasons, ","),
		v.Usage.Known, v.UsageFrom, v.TierAsked, v.Tier, v.LatencyMode, v.Streamed, v.StopReason, string(v.Outcome), int64(v.Status), v.ErrorCode,
		int64(v.Latency), int64(v.TimeToFirstByte), v.RequestBytes, v.ResponseBytes, v.ClientLeft, v.SDKInvocationID, v.TraceParent, v.Gateway, r.Origin, r.Line}
	for _, k := range waybill.Kinds {
		out = append(out, v.Usage.Of(k))
	}
	return append(out, v.Usage.Reasoning)
}

// addTagSets stores the sets that are not there yet. They are committed before the
// rows that name them: a crash between the two leaves only an unused set.
func (l *Lake) addTagSets(ctx context.Context, sets map[string]waybill.Tags) error {
	delete(sets, "")
	if len(sets) == 0 {
		return nil
	}
	files, _, err := l.dataFiles(ctx, &tagSets)
	if err != nil {
		return fmt.Errorf("read tag sets: %w", err)
	}
	if len(files) > 0 {
		from, err := l.scan(ctx, files)
		if err != nil {
			return err
		}
		rows, err := l.db.QueryContext(ctx, "SELECT DISTINCT id FROM "+from)
		if err != nil {
			return fmt.Errorf("read tag sets: %w", err)
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			delete(sets, id)
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	if len(sets) == 0 {
		return nil
	}
	stage := "stage_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	err = l.fill(ctx, stage, &tagSets, func(add func(...driver.Value) error) error {
		for id, tags := range sets {
			for k, v := range tags.All() {
				if err := add(id, k, v); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("stage tag sets: %w", err)
	}
	name, rows, err := l.write(ctx, &tagSets, "", "SELECT * FROM "+stage+" ORDER BY id, key")
	if _, dropErr := l.db.ExecContext(ctx, "DROP TABLE "+stage); err == nil {
		err = dropErr
	}
	if err != nil || rows == 0 {
		return err
	}
	return l.commit(ctx, &tagSets, []string{name}, nil)
}

// readTagSets gives the tags of every set.
func (l *Lake) readTagSets(ctx context.Context) (map[string]waybill.Tags, error) {
	files, _, err := l.dataFiles(ctx, &tagSets)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	from, err := l.scan(ctx, files)
	if err != nil {
		return nil, err
	}
	rows, err := l.db.QueryContext(ctx, "SELECT id, key, value FROM "+from)
	if err != nil {
		return nil, fmt.Errorf("read tag sets: %w", err)
	}
	defer rows.Close()
	maps := make(map[string]map[string]string)
	for rows.Next() {
		var id, k, v string
		if err := rows.Scan(&id, &k, &v); err != nil {
			return nil, err
		}
		if maps[id] == nil {
			maps[id] = make(map[string]string)
		}
		maps[id][k] = v
	}
	out := make(map[string]waybill.Tags, len(maps))
	for id, m := range maps {
		out[id] = waybill.TagsFromMap(m)
	}
	return out, rows.Err()
}
