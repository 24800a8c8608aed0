package main

import (
	"log/slog"
	"os"
	"regexp"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v4"

	"github.com/waybill-dev/waybill/internal/gateway"
)

// A namer notes the names of what is registered.
type namer struct{ names map[string]bool }

var fqName = regexp.MustCompile(`fqName: "([^"]*)"`)

func (n namer) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for d := range descs {
		n.names[fqName.FindStringSubmatch(d.String())[1]] = true
	}
	return nil
}

func (n namer) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = n.Register(c) // it does not fail
	}
}

func (n namer) Unregister(prometheus.Collector) bool { return false }

// The alarm rules are good YAML, and ask for metrics that there are.
func TestAlerts(t *testing.T) {
	src, err := os.ReadFile("../../docs/operate/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(src, &file); err != nil {
		t.Fatal(err)
	}
	known := namer{map[string]bool{"waybill_journal_ready": true}}
	gateway.NewMetrics(known)
	newReloader("", nil, nil, nil, nil, slog.New(slog.DiscardHandler), known)
	known.MustRegister(&sessionMetrics{}, &distinctValues{})
	n := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			n++
			for _, name := range regexp.MustCompile(`\b(waybill|gen_ai)_\w+`).FindAllString(r.Expr, -1) {
				if !known.names[name] {
					t.Errorf("%s asks for %s, which there is not", r.Alert, name)
				}
			}
		}
	}
	if n < 5 {
		t.Errorf("%d rules", n)
	}
}
