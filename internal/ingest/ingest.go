package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/journal"
)

// A Lake keeps what is ingested. Every method is one commit: after an error nothing
// of it is there.
type Lake interface {
	// Loaded gives the objects that are in, as URI and version.
	Loaded(ctx context.Context) (map[waybill.Object]bool, error)
	// Append adds calls together with the objects they are from.
	Append(ctx context.Context, loads []Load, rows []Row) error
	// Replace puts an export in the place of its payer's billing period, and completes the load:
	// rows that cannot be read are in its quarantine.
	Replace(ctx context.Context, e Export, now time.Time) (Load, error)
}

// A Row is a call and where it was read.
type Row struct {
	waybill.Invocation
	Origin string
	Line   int64
}

// A Load is one object and what became of it.
type Load struct {
	Object      waybill.Object
	Kind        string // journal, log, cur
	Period      string
	Rows        int64
	Other       int64 // texts that are known not to be records
	Rounded     int64 // amounts with more decimal places than are kept
	LoadedAt    time.Time
	Quarantined []Quarantine
}

// A Quarantine is a row that could not be read: its place and the reason, not its
// content.
type Quarantine struct {
	Object string `json:"object"`
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

// Options say what to ingest. Empty locations are left out.
type Options struct {
	Journal string // directory
	Logs    string // directory or s3://bucket/prefix
	CUR     string // directory or s3://bucket/prefix
	Now     func() time.Time
	// Progress is told what has been done; nil means nobody wants to know.
	Progress func(kind string, done, of int)
	// BatchRows bounds the rows of one commit; 0 means 200,000.
	BatchRows int
}

// A Summary says what a run did.
type Summary struct {
	Loaded      map[string]int   // objects by kind
	Skipped     map[string]int   // loaded before
	Rows        map[string]int64 // rows by kind
	Other       int64            // texts and objects that are known not to be records
	Rounded     int64
	Quarantined []Quarantine
}

// Run ingests. It may be stopped at any instant and run again.
func Run(ctx context.Context, lake Lake, o Options) (*Summary, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BatchRows == 0 {
		o.BatchRows = 200_000
	}
	if o.Progress == nil {
		o.Progress = func(string, int, int) {}
	}
	loaded, err := lake.Loaded(ctx)
	if err != nil {
		return nil, err
	}
	s := &Summary{Loaded: map[string]int{}, Skipped: map[string]int{}, Rows: map[string]int64{}}
	r := &run{ctx: ctx, lake: lake, o: o, loaded: loaded, s: s}
	if o.Journal != "" {
		if _, err := journal.Recover(o.Journal); err != nil {
			return s, err
		}
		if err := r.calls("journal", o.Journal, func(uri string) bool { return strings.HasSuffix(uri, ".wbj") }, r.readSegment); err != nil {
			return s, err
		}
	}
	if o.Logs != "" {
		if err := r.calls("log", o.Logs, isLogObject, r.readLog); err != nil {
			return s, err
		}
	}
	if o.CUR != "" {
		if err := r.exports(o.CUR); err != nil {
			return s, err
		}
	}
	return s, nil
}

type run struct {
	ctx    context.Context
	lake   Lake
	o      Options
	loaded map[waybill.Object]bool
	s      *Summary
}

// fresh lists the objects that are to be loaded.
func (r *run) fresh(src source, kind string, want func(string) bool) ([]waybill.Object, error) {
	objects, err := src.list(r.ctx)
	if err != nil {
		return nil, err
	}
	var out []waybill.Object
	for _, o := range objects {
		if !want(o.URI) || o.Size == 0 {
			if kind == "log" {
				r.s.Other++
			}
			continue
		}
		if o, err = withVersion(r.ctx, src, o); err != nil {
			return nil, err
		}
		if r.loaded[waybill.Object{URI: o.URI, Version: o.Version}] {
			r.s.Skipped[kind]++
			continue
		}
		out = append(out, o)
	}
	return out, nil
}

type reader func(io.Reader, *Load, func(waybill.Invocation, int64)) error

// calls loads objects that hold calls, in batches.
func (r *run) calls(kind, location string, want func(string) bool, read reader) error {
	src, err := openSource(r.ctx, location)
	if err != nil {
		return err
	}
	objects, err := r.fresh(src, kind, want)
	if err != nil {
		return err
	}
	var loads []Load
	var rows []Row
	flush := func() error {
		if len(loads) == 0 {
			return nil
		}
		if err := r.lake.Append(r.ctx, loads, rows); err != nil {
			return err
		}
		for _, l := range loads {
			r.count(l)
		}
		loads, rows = nil, nil
		return nil
	}
	for i, o := range objects {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		load := Load{Object: o, Kind: kind, LoadedAt: r.o.Now().UTC()}
		body, err := src.open(r.ctx, o)
		if err != nil {
			return err
		}
		err = read(body, &load, func(v waybill.Invocation, line int64) {
			rows = append(rows, Row{v, o.URI, line})
			load.Rows++
		})
		body.Close()
		if err != nil { // the object itself is broken: what came before is kept
			load.Quarantined = append(load.Quarantined, Quarantine{o.URI, 0, "the object cannot be read to its end: " + err.Error()})
		}
		loads = append(loads, load)
		if len(rows) >= r.o.BatchRows {
			if err := flush(); err != nil {
				return err
			}
		}
		r.o.Progress(kind, i+1, len(objects))
	}
	return flush()
}

func (r *run) count(l Load) {
	r.s.Loaded[l.Kind]++
	r.s.Rows[l.Kind] += l.Rows
	r.s.Other += l.Other
	r.s.Rounded += l.Rounded
	r.s.Quarantined = append(r.s.Quarantined, l.Quarantined...)
}

func (r *run) readLog(body io.Reader, l *Load, add func(waybill.Invocation, int64)) error {
	lr, err := newLogReader(body)
	if err != nil {
		return err
	}
	other, err := lr.each(func(v waybill.Invocation, line int64) error {
		add(v, line)
		return nil
	}, func(line int64, reason string) {
		l.Quarantined = append(l.Quarantined, Quarantine{l.Object.URI, line, reason})
	})
	l.Other = other
	return err
}

func (r *run) readSegment(body io.Reader, l *Load, add func(waybill.Invocation, int64)) error {
	jr, err := journal.NewReader(body)
	if err != nil {
		return err
	}
	for n := int64(1); ; n++ {
		e, err := jr.Next()
		if errors.Is(err, io.EOF) {
			if !jr.Sealed() { // zeros, or nothing, in the place of entries and a footer
				return journal.ErrTorn
			}
			return nil
		}
		if bad := (*journal.EntryError)(nil); errors.As(err, &bad) {
			l.Quarantined = append(l.Quarantined, Quarantine{l.Object.URI, n, "not an entry that this version understands"})
			continue
		}
		if err != nil {
			return err
		}
		if e.Kind == waybill.Closed {
			add(e.Invocation, n)
		}
	}
}

// exports loads the newest delivery of each billing period.
func (r *run) exports(location string) error {
	src, err := openSource(r.ctx, location)
	if err != nil {
		return err
	}
	manifests, err := r.fresh(src, "cur", isManifest)
	if err != nil {
		return err
	}
	for i, o := range manifests {
		if err := r.export(src, o); err != nil {
			return fmt.Errorf("load the export of %s: %w", o.URI, err)
		}
		r.o.Progress("cur", i+1, len(manifests))
	}
	if len(manifests) == 0 && r.s.Skipped["cur"] == 0 {
		return &waybill.Error{Kind: waybill.NotFound, Message: location + " has no manifest of a CUR 2.0 export", Hint: "name the folder above data/ and metadata/"}
	}
	return nil
}

func (r *run) export(src source, o waybill.Object) error {
	dir, err := os.MkdirTemp("", "waybill-cur-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	e, err := fetchExport(r.ctx, src, o, filepath.Clean(dir))
	if err != nil {
		return err
	}
	load, err := r.lake.Replace(r.ctx, e, r.o.Now().UTC())
	if err != nil {
		return err
	}
	r.count(load)
	return nil
}
