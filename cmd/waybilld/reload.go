package main

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// A reloader puts a new configuration in force, whole or not at all.
type reloader struct {
	path    string
	gateway *gateway.Gateway
	who     *whoCalls
	log     *slog.Logger

	now    *config // in force
	tls    *listenerTLS
	watch  func(files []string) // looks at these from now on; nil where nobody looks
	failed prometheus.Gauge
	count  *prometheus.CounterVec
}

func newReloader(path string, c *config, g *gateway.Gateway, who *whoCalls, secure *listenerTLS, log *slog.Logger, registry prometheus.Registerer) *reloader {
	r := &reloader{path: path, gateway: g, who: who, tls: secure, log: log, now: c,
		failed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "waybill_config_reload_failed", Help: "1 while the newest configuration is refused, and an older one is in force. Alert on it."}),
		count:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waybill_config_reloads_total", Help: "Configurations that were read anew, by whether they were taken."}, []string{"result"})}
	registry.MustRegister(r.failed, r.count)
	return r
}

// reload reads everything again. Nothing changes where anything is wrong with it.
func (r *reloader) reload(ctx context.Context) {
	next, err := readConfig(r.path)
	if err == nil && !reflect.DeepEqual(next.callers, r.now.callers) {
		err = r.who.change(ctx, next.callers)
	}
	if err != nil {
		r.log.Error("the new configuration is refused; the old one stays", "err", err)
		r.failed.Set(1)
		r.count.WithLabelValues("refused").Inc()
		r.look(append(slices.Clone(r.now.files), next.files...)) // it may be put right in a file that is new
		return
	}
	if !reflect.DeepEqual(r.now.fixed(), next.fixed()) {
		r.log.Warn("a setting has changed that is read at the start only", "remedy", "start waybilld again")
	}
	r.gateway.Reload(&next.gateway)
	r.now = next
	if next.tls != nil {
		r.tls.now.Store(next.tls)
	}
	r.look(next.files)
	r.failed.Set(0)
	r.count.WithLabelValues("taken").Inc()
	warn(r.log, next)
	r.log.Info("configuration reloaded", "policy", next.gateway.Policy.Version())
}

// look changes the files that are looked at.
func (r *reloader) look(files []string) {
	if r.watch != nil {
		slices.Sort(files)
		r.watch(slices.Compact(files))
	}
}

// fixed are the settings that a reload does not change.
func (c *config) fixed() any {
	return []any{c.listen, c.admin, c.tls != nil, c.controlEndpoint, c.stsEndpoint, c.accessKey, c.secretKey, c.journalDir, c.journal, c.sessions,
		c.valuesFile, c.timeouts, c.headerBytes, c.resolve, c.signing}
}

// watchEvery is how often the files of a configuration are looked at.
const watchEvery = 2 * time.Second

// watch tells of every change of the files that the configuration in force was read
// from. It reads them: the times of files that a ConfigMap mounts do not tell.
func watch(ctx context.Context, files func() []string, changed chan<- struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	last := digest(files())
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if now := digest(files()); now != last {
				last = now
				select {
				case changed <- struct{}{}:
				case <-ctx.Done():
					return
				}
			}
		}
	}
}

// digest is of the content of files, and of whether they can be read.
func digest(files []string) [sha256.Size]byte {
	sum := sha256.New()
	for _, name := range files {
		src, err := os.ReadFile(name)
		each := sha256.Sum256(src)
		sum.Write(each[:])
		if err != nil {
			sum.Write([]byte{0})
		}
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// whoCalls is the callers in force, which a reload may change. Those before them stay
// open until the next change: calls under way may still prove their body by them.
type whoCalls struct {
	mu   sync.RWMutex // guards what follows
	now  *callers
	last *callers
}

func (w *whoCalls) get() *callers {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.now
}

// change puts other callers in force, if all of their settings are good.
func (w *whoCalls) change(ctx context.Context, c callersConfig) error {
	next, err := c.open(ctx)
	if err != nil {
		return err
	}
	w.mu.Lock()
	old := w.last
	w.last, w.now = w.now, next
	w.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

// Authenticate says who made a request.
func (w *whoCalls) Authenticate(r *http.Request) (waybill.Principal, error) {
	return w.get().Authenticate(r)
}

// given records a role session that a caller asked for.
func (w *whoCalls) given(ctx context.Context, to waybill.Principal, of waybill.RoleSession, principalARN string, refused error) error {
	return w.get().given(ctx, to, of, principalARN, refused)
}

// Close ends what both began.
func (w *whoCalls) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now.Close()
	if w.last != nil {
		w.last.Close()
	}
}
