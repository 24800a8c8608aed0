package lake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
	icebergio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
)

// A catalog knows which version of each table is the newest.
type catalog struct {
	store    store
	location string // URI of the lake
}

func (c *catalog) uri(name string) string { return c.location + "/" + name }

func (c *catalog) name(uri string) string { return strings.TrimPrefix(uri, c.location+"/") }

func (c *catalog) fs(context.Context) (icebergio.IO, error) { return fileIO{c}, nil }

// latest is the newest metadata file of a table and its number: the highest, since
// nothing is ever overwritten. 0 means that the table does not exist.
func (c *catalog) latest(ctx context.Context, tableName string) (string, int, error) {
	names, err := c.store.list(ctx, tableName+"/metadata")
	if err != nil {
		return "", 0, err
	}
	best := 0
	for _, name := range names {
		text, ok := strings.CutSuffix(name[strings.LastIndexByte(name, '/')+1:], ".metadata.json")
		if n, err := strconv.Atoi(strings.TrimPrefix(text, "v")); ok && err == nil && n > best {
			best = n
		}
	}
	return metadataName(tableName, best), best, nil
}

func metadataName(tableName string, n int) string {
	return fmt.Sprintf("%s/metadata/v%d.metadata.json", tableName, n)
}

// LoadTable is table.CatalogIO's.
func (c *catalog) LoadTable(ctx context.Context, id table.Identifier) (*table.Table, error) {
	name, n, err := c.latest(ctx, id[0])
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("table %s: %w", id[0], fs.ErrNotExist)
	}
	return table.NewFromLocation(ctx, id, c.uri(name), c.fs, c)
}

// CommitTable publishes the next version of a table, or reports that another writer
// was first. Every refusal that a fresh look could cure wraps table.ErrCommitFailed:
// only those does iceberg-go retry.
func (c *catalog) CommitTable(ctx context.Context, id table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	name, n, err := c.latest(ctx, id[0])
	if err != nil {
		return nil, "", err
	}
	current, err := table.NewFromLocation(ctx, id, c.uri(name), c.fs, c)
	if err != nil {
		return nil, "", err
	}
	for _, r := range reqs {
		if err := r.Validate(current.Metadata()); err != nil {
			return nil, "", fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
		}
	}
	next, err := table.UpdateTableMetadata(current.Metadata(), updates, c.uri(name))
	if err != nil {
		return nil, "", err
	}
	body, err := json.Marshal(next)
	if err != nil {
		return nil, "", err
	}
	to := metadataName(id[0], n+1)
	switch err := c.store.putNew(ctx, to, body); {
	case errors.Is(err, fs.ErrExist):
		return nil, "", fmt.Errorf("%w: %s is taken", table.ErrCommitFailed, to)
	case err != nil: // we cannot know: must not be retried blindly
		return nil, "", err
	}
	_ = c.store.put(ctx, id[0]+"/metadata/version-hint.text", []byte(strconv.Itoa(n+1))) // for other engines only; we never read it
	return next, c.uri(to), nil
}

// open gives a table to write to: it creates one where there is none, and brings one of
// an older version up to this one.
func (c *catalog) open(ctx context.Context, s *tableSpec) (*table.Table, error) {
	t, err := c.LoadTable(ctx, table.Identifier{s.name})
	if err == nil {
		return c.upgrade(ctx, s, t)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	meta, err := table.NewMetadata(s.schema(), iceberg.UnpartitionedSpec, table.UnsortedSortOrder, c.uri(s.name), iceberg.Properties{
		"format-version": "2", "commit.retry.num-retries": "20", "commit.retry.min-wait-ms": "20", "waybill.schema": strconv.Itoa(s.version)})
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", s.name, err)
	}
	body, err := json.Marshal(meta)
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", s.name, err)
	}
	if err := c.store.putNew(ctx, metadataName(s.name, 1), body); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create table %s: %w", s.name, err)
	}
	if t, err = c.LoadTable(ctx, table.Identifier{s.name}); err != nil {
		return nil, err
	}
	return c.upgrade(ctx, s, t) // somebody older may have been first
}

// upgrade gives a table the columns that a newer version of it has. Files of the older
// version stay as they are: for them the columns are null. A table of a version newer
// than ours keeps its columns.
func (c *catalog) upgrade(ctx context.Context, s *tableSpec, t *table.Table) (*table.Table, error) {
	for try := 0; ; try++ {
		if have, _ := strconv.Atoi(t.Metadata().Properties()["waybill.schema"]); have >= s.version {
			break
		}
		err := c.addColumns(ctx, s, t)
		if err != nil && (try == 3 || !errors.Is(err, table.ErrCommitFailed)) {
			return nil, fmt.Errorf("bring table %s to version %d: %w", s.name, s.version, err)
		}
		if t, err = c.LoadTable(ctx, table.Identifier{s.name}); err != nil { // ours, or that of who was first
			return nil, err
		}
	}
	for i, col := range s.columns { // data files name columns by their place, see fieldIDs
		if f, ok := t.Schema().FindFieldByID(i + 1); !ok || f.Name != col.name {
			return nil, fmt.Errorf("table %s: its field %d is not %s: another program has changed its columns", s.name, i+1, col.name)
		}
	}
	return t, nil
}

func (c *catalog) addColumns(ctx context.Context, s *tableSpec, t *table.Table) error {
	tx := t.NewTransaction()
	change := tx.UpdateSchema(true, false, table.WithNameMapping(t.Metadata().NameMapping()))
	for _, f := range s.schema().Fields() {
		if _, ok := t.Schema().FindFieldByName(f.Name); !ok {
			change.AddColumn([]string{f.Name}, f.Type, f.Doc, false, nil)
		}
	}
	if err := change.Commit(); err != nil {
		return err
	}
	if err := tx.SetProperties(iceberg.Properties{"waybill.schema": strconv.Itoa(s.version)}); err != nil {
		return err
	}
	_, err := tx.Commit(ctx)
	return err
}

// fileIO shows the store to iceberg-go.
type fileIO struct{ c *catalog }

func (f fileIO) ReadFile(name string) ([]byte, error) {
	return f.c.store.get(context.Background(), f.c.name(name))
}

func (f fileIO) Open(name string) (icebergio.File, error) {
	b, err := f.ReadFile(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return memFile{bytes.NewReader(b), name}, nil
}

// Remove does nothing: files that no snapshot names are harmless.
func (f fileIO) Remove(string) error { return nil }

func (f fileIO) WriteFile(name string, b []byte) error {
	return f.c.store.put(context.Background(), f.c.name(name), b)
}

func (f fileIO) Create(name string) (icebergio.FileWriter, error) {
	return &memWriter{f: f, name: name}, nil
}

type memWriter struct {
	bytes.Buffer
	f    fileIO
	name string
	done bool
}

func (w *memWriter) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	return w.f.WriteFile(w.name, w.Bytes())
}

var _ io.ReaderFrom = (*memWriter)(nil)
