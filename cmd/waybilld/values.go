package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill/internal/policy"
)

// A valuesFile keeps what a guard has seen over restarts: a line for each value of a
// bounded tag key and day, appended as they come. The lines hold digests of values. A
// process that is killed loses none that it has written; a power cut may lose the last
// few, whose values are then counted again when they come again.
type valuesFile struct {
	path string
	f    *os.File
	log  *slog.Logger
}

// openValues makes a guard that knows what earlier runs have seen. The file is first
// cut down to what still counts.
func openValues(path string, p *policy.Policy, log *slog.Logger) (*policy.Guard, *valuesFile, error) {
	guard := policy.NewGuard(p)
	v := &valuesFile{path: path, log: log}
	src, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read the values of bounded tag keys: %w", err)
	}
	guard.Restore(policy.ReadSightings(src))
	torn := len(src) > 0 && src[len(src)-1] != '\n' // a crash in mid-line: the next line would join it
	if kept := guard.Sightings(); torn || len(kept)*2 < bytes.Count(src, []byte("\n")) {
		if err := v.rewrite(kept); err != nil {
			return nil, nil, err
		}
	}
	guard.OnSighting = v.append
	guard.OnNear = func(s policy.GuardState) {
		log.Warn("a tag key comes near its bound of distinct values", "key", s.Key, "distinct", s.Distinct, "limit", s.Limit)
	}
	return guard, v, nil
}

// rewrite puts a new file in the place of the old one.
func (v *valuesFile) rewrite(kept []policy.Sighting) error {
	var text []byte
	for _, s := range kept {
		text = s.AppendText(text)
	}
	f, err := os.CreateTemp(filepath.Dir(v.path), ".distinct-values-*")
	if err != nil {
		return fmt.Errorf("write the values of bounded tag keys: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), v.path)
	}
	if err != nil {
		return fmt.Errorf("write the values of bounded tag keys: %w", err)
	}
	return nil
}

// append adds a line. The guard calls it in turn. The file is made with the first
// line, so that a policy without bounds leaves none behind.
func (v *valuesFile) append(s policy.Sighting) {
	var err error
	if v.f == nil {
		v.f, err = os.OpenFile(v.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	if err == nil {
		_, err = v.f.Write(s.AppendText(nil))
	}
	if err != nil {
		v.log.Error("the values of bounded tag keys cannot be kept; after a restart they are counted anew", "err", err)
	}
}

// Close closes the file.
func (v *valuesFile) Close() {
	if v.f != nil {
		v.f.Close()
	}
}

// distinctValues are the metrics of bounded tag keys.
type distinctValues struct {
	guard  *policy.Guard
	policy func() *policy.Policy
}

var (
	distinctDesc = prometheus.NewDesc("waybill_tag_distinct_values", "Distinct values of a tag key that declares a bound.", []string{"key"}, nil)
	limitDesc    = prometheus.NewDesc("waybill_tag_distinct_limit", "The bound of a tag key's distinct values.", []string{"key"}, nil)
	beyondDesc   = prometheus.NewDesc("waybill_tag_values_beyond_limit_total", "Times that a value beyond the bound came.", []string{"key"}, nil)
)

func (d *distinctValues) Describe(out chan<- *prometheus.Desc) {
	out <- distinctDesc
	out <- limitDesc
	out <- beyondDesc
}

func (d *distinctValues) Collect(out chan<- prometheus.Metric) {
	for _, s := range d.guard.States(d.policy()) {
		out <- prometheus.MustNewConstMetric(distinctDesc, prometheus.GaugeValue, float64(s.Distinct), s.Key)
		out <- prometheus.MustNewConstMetric(limitDesc, prometheus.GaugeValue, float64(s.Limit), s.Key)
		out <- prometheus.MustNewConstMetric(beyondDesc, prometheus.CounterValue, float64(s.Beyond), s.Key)
	}
}
