package ingest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/bedrock"
)

// maxRecord bounds one record of the invocation log. Bodies over 100 KB are kept
// apart by AWS; base64 and pretty-printing leave room.
const maxRecord = 64 << 20

// isLogObject reports whether a key holds records: by its ending, outside data/, and
// not the object AWS writes to check its permission.
func isLogObject(uri string) bool {
	name := uri[strings.LastIndexByte(uri, '/')+1:]
	if strings.Contains(uri, "/data/") && strings.Contains(uri, "BedrockModelInvocationLogs") || strings.HasPrefix(name, "amazon-bedrock-logs-permission-check") || strings.HasPrefix(name, "aws-logs-write-test") {
		return false
	}
	for _, ending := range []string{".json.gz", ".json", ".jsonl", ".jsonl.gz", ".gz"} {
		if strings.HasSuffix(name, ending) {
			return true
		}
	}
	return false
}

// logRecord holds the fixed paths of a record that are read. Bodies may hold anything,
// also text that looks like counters: it is never searched.
type logRecord struct {
	SchemaType      string                   `json:"schemaType"`
	Timestamp       string                   `json:"timestamp"`
	AccountID       string                   `json:"accountId"`
	Region          string                   `json:"region"`
	RequestID       string                   `json:"requestId"`
	Operation       string                   `json:"operation"`
	ModelID         string                   `json:"modelId"`
	InferenceRegion string                   `json:"inferenceRegion"`
	ErrorCode       string                   `json:"errorCode"`
	Identity        struct{ Arn string }     `json:"identity"`
	Metadata        map[string]any           `json:"requestMetadata"`
	Performance     struct{ Latency string } `json:"performanceConfig"`
	Input           struct {
		Tokens     *int64 `json:"inputTokenCount"`
		CacheRead  int64  `json:"cacheReadInputTokenCount"`
		CacheWrite int64  `json:"cacheWriteInputTokenCount"`
	} `json:"input"`
	Output struct {
		Tokens  *int64          `json:"outputTokenCount"`
		Body    json.RawMessage `json:"outputBodyJson"`
		Seconds json.Number     `json:"outputVideoDurationSeconds"`
	} `json:"output"`
}

// A logReader reads the records of one log object.
type logReader struct {
	lines *bufio.Reader
	line  int64
}

// newLogReader reads plain or gzipped text; gzip is known by its first bytes, and may
// have several members.
func newLogReader(r io.Reader) (*logReader, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(2)
	if err == nil && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		b = bufio.NewReaderSize(z, 256<<10)
	}
	return &logReader{lines: b}, nil
}

// chunk is the next run of lines that makes whole JSON: one line, as a rule; several
// where a mirror has pretty-printed it.
func (r *logReader) chunk() ([]byte, int64, error) {
	var all []byte
	start := r.line + 1
	for {
		line, err := r.lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line++
		}
		if len(bytes.TrimSpace(line)) == 0 && err == nil && len(all) == 0 {
			start = r.line + 1
			continue
		}
		if len(all) == 0 {
			all = line
		} else {
			all = append(all, line...)
		}
		if err != nil && err != io.EOF {
			return nil, start, err
		}
		text := bytes.TrimSpace(all)
		if len(text) == 0 {
			return nil, start, io.EOF
		}
		if !open(text) || err == io.EOF || len(all) > maxRecord {
			return text, start, nil
		}
	}
}

// open reports whether a text begins an object and does not end it.
func open(text []byte) bool {
	if text[0] != '{' || text[len(text)-1] == '}' && json.Valid(text) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return errors.Is(err, io.ErrUnexpectedEOF)
		}
	}
}

// each calls f for every record, and bad for what cannot be read.
func (r *logReader) each(f func(v waybill.Invocation, line int64) error, bad func(line int64, reason string)) (other int64, err error) {
	for {
		text, line, err := r.chunk()
		if errors.Is(err, io.EOF) {
			return other, nil
		}
		if err != nil {
			return other, err
		}
		// A CloudWatch export puts a time before each record.
		if i := bytes.IndexByte(text, '{'); i > 0 && i < 40 {
			if _, err := time.Parse(time.RFC3339, string(bytes.TrimSpace(text[:i]))); err == nil {
				text = text[i:]
			}
		}
		if bytes.HasPrefix(text, []byte("Permissions are correctly set for Amazon Bedrock logs")) {
			other++
			continue
		}
		d := json.NewDecoder(bytes.NewReader(text))
		for {
			var rec logRecord
			err := d.Decode(&rec)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				bad(line, jsonReason(err))
				break
			}
			v, err := rec.invocation()
			if err != nil {
				bad(line, err.Error())
				continue
			}
			if err := f(v, line); err != nil {
				return other, err
			}
		}
	}
}

// jsonReason says what is wrong without repeating the content.
func jsonReason(err error) string {
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) {
		return fmt.Sprintf("field %s is not of the type it has in schema 1.0", e.Field)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the record is cut"
	}
	return "not JSON"
}

// invocation turns a record into a row.
func (rec *logRecord) invocation() (waybill.Invocation, error) {
	if rec.RequestID == "" {
		return waybill.Invocation{}, errors.New("the record has no requestId")
	}
	at, err := time.Parse(time.RFC3339, rec.Timestamp)
	if err != nil {
		return waybill.Invocation{}, errors.New("the record's timestamp is not a time")
	}
	model := waybill.ModelID(rec.ModelID)
	v := waybill.Invocation{Source: waybill.FromLog, RequestID: rec.RequestID, StartedAt: at.UTC(), Account: rec.AccountID, Region: rec.Region,
		InferenceRegion: rec.InferenceRegion, Endpoint: waybill.Runtime, Operation: rec.Operation, ModelID: model, Model: model.Base(), Scope: model.Scope(),
		PrincipalARN: rec.Identity.Arn, Outcome: waybill.Completed, ErrorCode: rec.ErrorCode, UsageFrom: "log"}
	if model.IsApplicationProfile() {
		v.Profile = rec.ModelID
	}
	if rec.Performance.Latency == "optimized" {
		v.LatencyMode = "optimized"
	}
	if _, session, ok := strings.Cut(rec.Identity.Arn, ":assumed-role/"); ok {
		_, v.SessionName, _ = strings.Cut(session, "/")
	}
	var tags []waybill.Tag
	for k, value := range rec.Metadata {
		if s, ok := value.(string); ok {
			tags = append(tags, waybill.Tag{Key: k, Value: s})
		}
	}
	v.Tags = waybill.NewTags(tags...)
	if rec.ErrorCode != "" {
		v.Outcome = waybill.Failed
	}
	return v, rec.usage(&v)
}

func (rec *logRecord) usage(v *waybill.Invocation) error {
	in, out := rec.Input.Tokens, rec.Output.Tokens
	if in != nil && *in < 0 || out != nil && *out < 0 || rec.Input.CacheRead < 0 || rec.Input.CacheWrite < 0 {
		return errors.New("a counter is negative")
	}
	switch {
	case in != nil || out != nil:
		u := waybill.NewUsage().With(waybill.CacheRead, rec.Input.CacheRead).With(waybill.CacheWrite5m, rec.Input.CacheWrite)
		if in != nil {
			u.Set(waybill.Input, *in)
		}
		if out != nil { // embeddings have none
			u.Set(waybill.Output, *out)
		}
		if rec.Input.CacheWrite > 0 && len(rec.Output.Body) > 0 { // the body may tell the life of the cache
			if b, ok := bedrock.BodyUsage(rec.Output.Body); ok {
				a, h, l := b.Of(waybill.CacheWrite5m), b.Of(waybill.CacheWrite30m), b.Of(waybill.CacheWrite1h)
				if a+h+l == rec.Input.CacheWrite {
					u = u.With(waybill.CacheWrite5m, a).With(waybill.CacheWrite30m, h).With(waybill.CacheWrite1h, l)
				}
			}
		}
		v.Usage = u
	case rec.ErrorCode != "":
		v.Usage, v.UsageFrom = waybill.NewUsage(), "log: the call failed and has no counters"
	case rec.Output.Seconds != "":
		n, ok := wholeSeconds(string(rec.Output.Seconds))
		if !ok {
			return errors.New("the length of the video is no number of seconds")
		}
		v.Usage = waybill.NewUsage().With(waybill.VideoSecond, n)
	default:
		if u, ok := bedrock.BodyUsage(rec.Output.Body); ok {
			v.Usage, v.UsageFrom = u, "log: tokens from body"
		} else {
			v.UsageFrom = "log: the record has no counters"
		}
	}
	return nil
}

// wholeSeconds is a length in seconds, to the nearest: models make videos of whole
// seconds and are charged by them, and a file holds a frame more or less.
func wholeSeconds(s string) (int64, bool) {
	whole, part, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 32)
	if err != nil || n < 0 {
		return 0, false
	}
	if part != "" && part[0] >= '5' {
		n++
	}
	return n, true
}
