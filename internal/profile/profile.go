// Package profile knows which model is behind an application inference profile: it asks
// Bedrock's control plane, in the background, and remembers. Nothing ever waits for it.
package profile

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrock"
	"github.com/aws/aws-sdk-go-v2/service/bedrock/types"

	"github.com/waybill-dev/waybill"
)

// A Getter asks for an inference profile: *bedrock.Client is one.
type Getter interface {
	GetInferenceProfile(context.Context, *bedrock.GetInferenceProfileInput, ...func(*bedrock.Options)) (*bedrock.GetInferenceProfileOutput, error)
}

// Config says how models are looked up. The zero value works.
type Config struct {
	Max     int           // profiles that are remembered; 0 means 10,000. Callers can make ARNs up
	Queue   int           // that wait to be asked for; 0 means 100. More are asked for when they come again
	Again   time.Duration // after which one that could not be had is asked for again; 0 means five minutes
	Timeout time.Duration // of one question; 0 means ten seconds
	Log     *slog.Logger  // nil: nobody is told
}

// A Catalogue remembers the models of profiles. A profile's model never changes (API
// reference, "CreateInferenceProfile": there is no call that updates one), so what is
// known stays known.
type Catalogue struct {
	get    Getter
	config Config
	wanted chan string
	stop   context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex // guards what follows
	held map[string]*entry
}

type entry struct {
	model waybill.ModelID // empty while it is not known
	again time.Time       // not to be asked for before
	asked bool            // it is in the queue
}

// New makes a catalogue that looks profiles up with get, one after another.
func New(get Getter, config Config) *Catalogue {
	if config.Max <= 0 {
		config.Max = 10_000
	}
	if config.Queue <= 0 {
		config.Queue = 100
	}
	if config.Again <= 0 {
		config.Again = 5 * time.Minute
	}
	if config.Timeout <= 0 {
		config.Timeout = 10 * time.Second
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &Catalogue{get: get, config: config, wanted: make(chan string, config.Queue), stop: stop, done: make(chan struct{}), held: make(map[string]*entry)}
	go func() {
		defer close(c.done)
		for {
			select {
			case <-ctx.Done():
				return
			case arn := <-c.wanted:
				c.ask(ctx, arn)
			}
		}
	}()
	return c
}

// Close ends what is under way, and waits for it.
func (c *Catalogue) Close() {
	c.stop()
	<-c.done
}

// Model is what is behind a profile, as a system profile's id or a model's. What it does
// not know it asks for in the background, and knows later.
func (c *Catalogue) Model(arn string) (waybill.ModelID, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.held[arn]
	if e != nil && (e.model != "" || e.asked || time.Now().Before(e.again)) {
		return e.model, e.model != ""
	}
	if e == nil {
		if len(c.held) >= c.config.Max && !c.forget() {
			return "", false
		}
		e = new(entry)
	}
	select {
	case c.wanted <- strings.Clone(arn):
		e.asked = true
		c.held[strings.Clone(arn)] = e
	default: // it will come again
	}
	return "", false
}

// forget makes room: of what could not be had, one that may be asked for again.
func (c *Catalogue) forget() bool {
	now := time.Now()
	for arn, e := range c.held {
		if e.model == "" && !e.asked && now.After(e.again) {
			delete(c.held, arn)
			return true
		}
	}
	return false
}

// ask looks one profile up.
func (c *Catalogue) ask(ctx context.Context, arn string) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	region := strings.SplitN(arn, ":", 6)[3]
	got, err := c.get.GetInferenceProfile(ctx, &bedrock.GetInferenceProfileInput{InferenceProfileIdentifier: aws.String(arn)},
		func(o *bedrock.Options) { o.Region = region })
	var model waybill.ModelID
	if err == nil {
		if model = modelOf(region, got.Models); model == "" {
			err = errors.New("the answer names no model")
		}
	}
	if err != nil {
		c.config.Log.Warn("the model behind an inference profile cannot be told; its calls are priced once it can", "profile", arn, "err", err,
			"remedy", "name it under profiles, or allow bedrock:GetInferenceProfile")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.held[arn]
	e.model, e.asked, e.again = model, false, time.Now().Add(c.config.Again)
}

// modelOf is what a profile was copied from. AWS tells the models behind it, one for
// each Region that it may send calls to: of a global profile one has no Region, of a
// geographic one there are several, or one in another Region.
func modelOf(region string, models []types.InferenceProfileModel) waybill.ModelID {
	var base waybill.ModelID
	elsewhere, global := len(models) > 1, false
	for _, m := range models {
		id := waybill.ModelID(aws.ToString(m.ModelArn))
		parts := strings.SplitN(string(id), ":", 6)
		if len(parts) != 6 {
			continue
		}
		if base == "" {
			base = waybill.ModelID(id.Base())
		}
		global = global || parts[3] == ""
		elsewhere = elsewhere || parts[3] != region
	}
	switch {
	case base == "":
		return ""
	case global:
		return "global." + base
	case elsewhere:
		return waybill.ModelID(geography(region)) + "." + base
	}
	return base
}

// geography is a label of the geographic profiles of a Region.
func geography(region string) string {
	if strings.HasPrefix(region, "us-gov-") {
		return "us-gov"
	}
	first, _, _ := strings.Cut(region, "-")
	if first == "ap" {
		return "apac"
	}
	return first
}
