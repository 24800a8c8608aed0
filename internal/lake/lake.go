package lake

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	_ "github.com/duckdb/duckdb-go/v2" // the engine, as a database/sql driver
	"github.com/google/uuid"

	"github.com/waybill-dev/waybill"
)

// Config says how a lake is worked with. The zero value works.
type Config struct {
	// Cache holds copies of objects of a lake on S3; empty means a folder of the user's
	// cache directory.
	Cache string
	// Memory bounds the engine, in its own words ("4GB"); empty leaves it to the engine.
	Memory string
}

// A Lake is the tables at one location.
type Lake struct {
	catalog *catalog
	db      *sql.DB
	temp    string
}

// Open opens a lake on a directory or at s3://bucket/prefix, creating what is missing
// when it is first written.
func Open(ctx context.Context, location string, c Config) (*Lake, error) {
	var s store
	if strings.HasPrefix(location, "s3://") {
		if c.Cache == "" {
			dir, err := os.UserCacheDir()
			if err != nil {
				return nil, fmt.Errorf("open lake: %w", err)
			}
			sum := sha256.Sum256([]byte(location))
			c.Cache = filepath.Join(dir, "waybill", hex.EncodeToString(sum[:8]))
		}
		var err error
		if s, err = newS3Store(ctx, location, c.Cache); err != nil {
			return nil, fmt.Errorf("open lake: %w", err)
		}
		location = strings.TrimRight(location, "/")
	} else {
		dir, err := filepath.Abs(location)
		if err != nil {
			return nil, fmt.Errorf("open lake: %w", err)
		}
		s, location = dirStore{dir}, "file://"+filepath.ToSlash(dir)
	}
	temp, err := os.MkdirTemp("", "waybill-lake-*")
	if err != nil {
		return nil, fmt.Errorf("open lake: %w", err)
	}
	db, err := sql.Open("duckdb", "")
	if err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	db.SetMaxOpenConns(1) // temporary tables belong to a connection
	for _, q := range []string{"SET TimeZone='UTC'", "SET temp_directory='" + quote(temp) + "'", "SET preserve_insertion_order=false"} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return nil, errors.Join(fmt.Errorf("open engine: %w", err), db.Close())
		}
	}
	if c.Memory != "" {
		if _, err := db.ExecContext(ctx, "SET memory_limit='"+quote(c.Memory)+"'"); err != nil {
			return nil, errors.Join(fmt.Errorf("open engine: %w", err), db.Close())
		}
	}
	return &Lake{&catalog{s, location}, db, temp}, nil
}

// Close ends the work with a lake.
func (l *Lake) Close() error { return errors.Join(l.db.Close(), os.RemoveAll(l.temp)) }

func quote(s string) string { return strings.ReplaceAll(s, "'", "''") }

// A Load says that an object is in, and what became of it.
type Load struct {
	Object      waybill.Object `json:"object"`
	Kind        string         `json:"kind"` // journal, log, cur
	Period      string         `json:"period,omitempty"`
	Rows        int64          `json:"rows"`
	Other       int64          `json:"other,omitempty"`   // what is not a record, and known not to be one
	Rounded     int64          `json:"rounded,omitempty"` // amounts with more than 18 decimal places
	LoadedAt    time.Time      `json:"loaded_at"`
	Quarantined []Quarantine   `json:"quarantined,omitempty"`
}

// A Quarantine is a row that could not be read: its place and why, never its content.
type Quarantine struct {
	Object string `json:"object"`
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

const loadsProperty = "waybill.loads"

// Loads lists what has been loaded, of all kinds.
func (l *Lake) Loads(ctx context.Context) ([]Load, error) {
	var out []Load
	for _, spec := range []*tableSpec{&invocations, &lineItems} {
		t, err := l.catalog.LoadTable(ctx, table.Identifier{spec.name})
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read loads: %w", err)
		}
		var names []string
		for _, s := range t.Metadata().Snapshots() {
			if s.Summary != nil && s.Summary.Properties[loadsProperty] != "" {
				names = append(names, s.Summary.Properties[loadsProperty])
			}
		}
		for key, name := range t.Metadata().Properties() { // loads that brought no rows
			if strings.HasPrefix(key, loadsProperty+".") {
				names = append(names, name)
			}
		}
		for _, name := range names {
			body, err := l.catalog.store.get(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("read loads: %w", err)
			}
			var some []Load
			if err := json.Unmarshal(body, &some); err != nil {
				return nil, fmt.Errorf("read loads: %w", err)
			}
			out = append(out, some...)
		}
	}
	return out, nil
}

// putLoads writes the list that a snapshot will name.
func (l *Lake) putLoads(ctx context.Context, spec *tableSpec, loads []Load) (iceberg.Properties, error) {
	body, err := json.Marshal(loads)
	if err != nil {
		return nil, err
	}
	name := spec.name + "/loads/" + uuid.NewString() + ".json"
	return iceberg.Properties{loadsProperty: name}, l.catalog.store.put(ctx, name, body)
}

// dataFiles lists the files of a table as it is, or none if it does not exist.
func (l *Lake) dataFiles(ctx context.Context, spec *tableSpec) ([]string, *table.Table, error) {
	t, err := l.catalog.LoadTable(ctx, table.Identifier{spec.name})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	files, err := l.filesOf(ctx, t)
	return files, t, err
}

func (l *Lake) filesOf(ctx context.Context, t *table.Table) ([]string, error) {
	if t.CurrentSnapshot() == nil {
		return nil, nil
	}
	tasks, err := t.Scan().PlanFiles(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, task := range tasks {
		out = append(out, l.catalog.name(task.File.FilePath()))
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// ofPeriod keeps the files of some periods: every file holds rows of one.
func ofPeriod(files []string, some ...waybill.Period) []string {
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		return !slices.ContainsFunc(some, func(p waybill.Period) bool { return strings.Contains(f, "/period="+p.String()+"/") })
	})
}

// scan is the FROM of a query over files; it fetches those that are elsewhere.
func (l *Lake) scan(ctx context.Context, files []string) (string, error) {
	paths := make([]string, len(files))
	for i, f := range files {
		p, err := l.catalog.store.local(ctx, f)
		if err != nil {
			return "", fmt.Errorf("fetch %s: %w", f, err)
		}
		paths[i] = "'" + quote(p) + "'"
	}
	return "read_parquet([" + strings.Join(paths, ", ") + "])", nil
}

// write turns a query's rows into a data file of a table. It returns the file's name
// and the number of its rows; without rows there is no file.
func (l *Lake) write(ctx context.Context, spec *tableSpec, period, query string, args ...any) (name string, rows int64, err error) {
	return l.writeAs(ctx, spec, period, uuid.NewString(), query, args...)
}

// writeAs is write with the name of the file, without its ending, which must be new.
func (l *Lake) writeAs(ctx context.Context, spec *tableSpec, period, id, query string, args ...any) (name string, rows int64, err error) {
	temp := filepath.Join(l.temp, id+".parquet")
	res, err := l.db.ExecContext(ctx, fmt.Sprintf("COPY (SELECT %s FROM (%s)) TO '%s' (FORMAT parquet, COMPRESSION zstd, FIELD_IDS %s)", spec.casts(), query, quote(temp), spec.fieldIDs()), args...)
	if err != nil {
		return "", 0, fmt.Errorf("write %s: %w", spec.name, err)
	}
	if rows, err = res.RowsAffected(); err != nil || rows == 0 {
		return "", 0, errors.Join(err, os.Remove(temp))
	}
	name = spec.name + "/data/" + id + ".parquet"
	if period != "" {
		name = spec.name + "/data/period=" + period + "/" + id + ".parquet"
	}
	if err := l.catalog.store.putFile(ctx, name, temp); err != nil {
		return "", 0, fmt.Errorf("store %s: %w", name, err)
	}
	return name, rows, nil
}

// commit adds files to a table in one snapshot. Others may add theirs at the same time.
func (l *Lake) commit(ctx context.Context, spec *tableSpec, add []string, props iceberg.Properties) error {
	t, err := l.catalog.open(ctx, spec)
	if err != nil {
		return fmt.Errorf("commit %s: %w", spec.name, err)
	}
	tx := t.NewTransaction()
	if err = tx.AddFiles(ctx, l.uris(add), props, false); err == nil {
		_, err = tx.Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", spec.name, err)
	}
	return nil
}

// replace puts files, or none, in the place of those that a table has of a period and that
// old picks, in one snapshot; a nil old picks all. Of two who do so at once the later stands,
// and the earlier is replaced: they never add up. So a commit holds only while the table is
// as we saw it; else we look again.
func (l *Lake) replace(ctx context.Context, spec *tableSpec, p waybill.Period, add []string, props iceberg.Properties, old func(files []string) ([]string, error)) error {
	for try := 0; ; try++ {
		err := l.tryReplace(ctx, spec, p, add, props, old)
		if err == nil {
			return nil
		}
		if try == 20 || !errors.Is(err, table.ErrCommitFailed) {
			return fmt.Errorf("commit %s: %w", spec.name, err)
		}
	}
}

func (l *Lake) tryReplace(ctx context.Context, spec *tableSpec, p waybill.Period, add []string, props iceberg.Properties, pick func(files []string) ([]string, error)) error {
	t, err := l.catalog.open(ctx, spec)
	if err != nil {
		return err
	}
	files, err := l.filesOf(ctx, t)
	if err != nil {
		return err
	}
	old := ofPeriod(files, p)
	if pick != nil && len(old) > 0 {
		if old, err = pick(old); err != nil {
			return err
		}
	}
	tx := t.NewTransaction()
	switch {
	case len(old) > 0:
		err = tx.ReplaceDataFiles(ctx, l.uris(old), l.uris(add), props)
	case len(add) > 0:
		err = tx.AddFiles(ctx, l.uris(add), props, false)
	default:
		return l.commitProperties(ctx, spec, props)
	}
	if err == nil {
		err = tx.AssertRefSnapshotID("main")
	}
	if err == nil {
		_, err = tx.Commit(ctx)
	}
	return err
}

func (l *Lake) uris(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = l.catalog.uri(n)
	}
	return out
}

// digest names a list of files.
func digest(files []string) string {
	sum := sha256.Sum256([]byte(strings.Join(files, "\n")))
	return hex.EncodeToString(sum[:12])
}
