package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// mantle speaks the Projects API of bedrock-mantle, for which no AWS SDK has a client.
// Source: the user guide's page on projects.
type mantle struct {
	endpoint, region string
	config           aws.Config
	writable         bool
}

// A Project is a project of bedrock-mantle. Workspaces are the same resources under
// another name: Anthropic's API names one in a header, OpenAI's in another.
type Project struct {
	ID     string            `json:"id"`
	Name   string            `json:"name"`
	Status string            `json:"status"`
	ARN    string            `json:"arn"`
	Tags   map[string]string `json:"tags"`
}

// ProjectCreate makes a project.
type ProjectCreate struct {
	Name string            `json:"name"`
	Tags map[string]string `json:"tags,omitempty"`
}

// ProjectTag puts tags on a project. Its tags are a map, and the API adds to it.
type ProjectTag struct {
	ID   string            `json:"-"`
	Tags map[string]string `json:"add_tags"`
}

func (m *mantle) create(ctx context.Context, in *ProjectCreate) error {
	return m.call(ctx, http.MethodPost, "/v1/organization/projects", in, nil)
}

func (m *mantle) tag(ctx context.Context, in *ProjectTag) error {
	return m.call(ctx, http.MethodPost, "/v1/organization/projects/"+url.PathEscape(in.ID), in, nil)
}

// projects lists the active projects.
func (m *mantle) projects(ctx context.Context) ([]Project, error) {
	var all []Project
	for after := ""; ; {
		path := "/v1/organization/projects"
		if after != "" {
			path += "?after=" + url.QueryEscape(after)
		}
		var page struct {
			Data    []Project `json:"data"`
			LastID  string    `json:"last_id"`
			HasMore bool      `json:"has_more"`
		}
		if err := m.get(ctx, path, &page); err != nil {
			return nil, err
		}
		for _, p := range page.Data {
			if p.Status != "archived" {
				all = append(all, p)
			}
		}
		if !page.HasMore || page.LastID == "" || page.LastID == after {
			return all, nil
		}
		after = page.LastID
	}
}

// A busyError is an answer after which the same question may be put again.
type busyError struct{ text string }

func (e *busyError) Error() string { return e.text }

// get asks, and asks again as often as the AWS SDK does where it is throttled.
func (m *mantle) get(ctx context.Context, path string, out any) error {
	pause := retry.NewExponentialJitterBackoff(retry.DefaultMaxBackoff)
	for n := 1; ; n++ {
		err := m.call(ctx, http.MethodGet, path, nil, out)
		if _, busy := errors.AsType[*busyError](err); !busy || n >= m.config.RetryMaxAttempts {
			return err
		}
		wait, delayErr := pause.BackoffDelay(n-1, err)
		if delayErr != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

func (m *mantle) call(ctx context.Context, method, path string, in, out any) error {
	if method != http.MethodGet && !m.writable {
		return fmt.Errorf("%s %s would change the account, and nothing is changed without --apply", method, path)
	}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, m.endpoint+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	credentials, err := m.config.Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, credentials, r, hex.EncodeToString(sum[:]), "bedrock-mantle", m.region, time.Now()); err != nil {
		return err
	}
	client := m.config.HTTPClient
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	if answer.StatusCode/100 != 2 {
		var e struct {
			Error   struct{ Message string }
			Message string
		}
		_ = json.Unmarshal(text, &e) // an answer in no known form is told by its status
		if e.Error.Message == "" {
			e.Error.Message = e.Message
		}
		err := fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, e.Error.Message)
		if answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500 {
			return &busyError{err.Error()}
		}
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return nil
}
