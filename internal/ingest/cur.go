package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/waybill-dev/waybill"
)

// An Export is one delivery of the bill, fetched to this machine.
type Export struct {
	Manifest waybill.Object
	Period   waybill.Period
	Files    []string
}

// manifest is what is read of an export's manifest.
type manifest struct {
	DataFiles     []json.RawMessage `json:"dataFiles"`
	BillingPeriod struct {
		Start string `json:"start"`
	} `json:"billingPeriod"`
}

var periodInKey = regexp.MustCompile(`BILLING_PERIOD=([0-9]{4}-[0-9]{2})`)

// isManifest reports whether a key is the manifest of a billing period: the one that
// always points at the newest execution. In the create-new layout each execution has
// one of its own as well, a folder deeper.
func isManifest(uri string) bool {
	dir, name, _ := cutLast(uri)
	return strings.Contains(uri, "/metadata/") && strings.HasSuffix(name, "Manifest.json") && periodInKey.MatchString(dir[strings.LastIndexByte(dir, '/')+1:])
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// readManifest says which files make up a delivery. Without a list in the manifest it
// takes any texts in it that look like data files.
func readManifest(body []byte, uri string) (period waybill.Period, files []string, err error) {
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return period, nil, fmt.Errorf("read manifest: %w", err)
	}
	if at, err := time.Parse(time.RFC3339, m.BillingPeriod.Start); err == nil {
		period = waybill.PeriodOf(at)
	} else if text := periodInKey.FindStringSubmatch(uri); text != nil {
		if period, err = waybill.ParsePeriod(text[1]); err != nil {
			return period, nil, err
		}
	} else {
		return period, nil, fmt.Errorf("the manifest names no billing period, and neither does its key")
	}
	for _, raw := range m.DataFiles {
		var s string
		var o struct{ Path, URI, Key string }
		if json.Unmarshal(raw, &s) == nil {
			files = append(files, s)
		} else if json.Unmarshal(raw, &o) == nil && o.Path+o.URI+o.Key != "" {
			files = append(files, strings.Join([]string{o.Path, o.URI, o.Key}, "")) // one of them
		} else {
			return period, nil, fmt.Errorf("dataFiles has an entry that is neither a text nor an object with a path")
		}
	}
	if m.DataFiles == nil {
		var any any
		if err := json.Unmarshal(body, &any); err != nil {
			return period, nil, err
		}
		files = dataFiles(any)
	}
	if len(files) == 0 {
		return period, nil, fmt.Errorf("the manifest names no data files")
	}
	slices.Sort(files)
	return period, slices.Compact(files), nil
}

func dataFiles(v any) []string {
	var out []string
	switch v := v.(type) {
	case string:
		if strings.Contains(v, "/data/") && (strings.HasSuffix(v, ".parquet") || strings.HasSuffix(v, ".csv.gz")) {
			out = append(out, v)
		}
	case []any:
		for _, e := range v {
			out = append(out, dataFiles(e)...)
		}
	case map[string]any:
		for _, e := range v {
			out = append(out, dataFiles(e)...)
		}
	}
	return out
}

// fetchExport brings a delivery's files to a folder of this machine.
func fetchExport(ctx context.Context, s source, o waybill.Object, dir string) (Export, error) {
	e := Export{Manifest: o}
	body, err := readAll(ctx, s, o)
	if err != nil {
		return e, err
	}
	period, files, err := readManifest(body, o.URI)
	if err != nil {
		return e, err
	}
	e.Period = period
	for i, name := range files {
		from := s.find(name)
		to := filepath.Join(dir, fmt.Sprintf("%05d-%s", i, name[strings.LastIndexByte(name, '/')+1:]))
		if err := fetch(ctx, s, from, to); err != nil {
			return e, fmt.Errorf("fetch %s, which the manifest names: %w", name, err)
		}
		e.Files = append(e.Files, to)
	}
	return e, nil
}

func readAll(ctx context.Context, s source, o waybill.Object) ([]byte, error) {
	r, err := s.open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, 64<<20))
}

func fetch(ctx context.Context, s source, o waybill.Object, to string) error {
	r, err := s.open(ctx, o)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
