package fakeaws

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// A Putter stores an object under a key.
type Putter func(key string, body []byte) error

// ToDir stores objects as files below a directory.
func ToDir(dir string) Putter {
	return func(key string, body []byte) error {
		path := filepath.Join(dir, filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, body, 0o644)
	}
}

// LogOptions say how invocation logs are written.
type LogOptions struct {
	Prefix     string
	NoLogging  map[string]bool // Regions in which logging is off
	MaxRecords int             // in one file; 0 means 200
	NoBodies   bool
}

// maxInline is the largest body that stays in its record.
const maxInline = 100 << 10

// loggedOperations are the operations that leave a record. That ChatCompletions and Messages do is
// not documented, as it is of Responses; nothing of bedrock-mantle does.
var loggedOperations = []string{"Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream", "ChatCompletions", "Responses", "Messages"}

// WriteLogs writes the invocation log of some calls, as AWS lays it out on S3: records
// of one hour of one account and Region in gzipped files, not in order; now and then a
// record of a streamed call twice, first with zeroes.
func WriteLogs(put Putter, calls []Call, o LogOptions) error {
	if o.MaxRecords == 0 {
		o.MaxRecords = 200
	}
	root := strings.TrimPrefix(o.Prefix+"/AWSLogs/", "/")
	groups := make(map[string][]Call)
	for _, c := range calls {
		if o.NoLogging[c.Region] || c.Endpoint == Mantle || !contains(loggedOperations, c.Operation) {
			continue
		}
		key := fmt.Sprintf("%s%s/BedrockModelInvocationLogs/%s/%s", root, c.Account, c.Region, c.At.UTC().Format("2006/01/02/15"))
		groups[key] = append(groups[key], c)
	}
	seen := make(map[string]bool)
	names := make([]string, 0, len(groups))
	for folder := range groups {
		names = append(names, folder)
	}
	sort.Strings(names)
	for _, folder := range names {
		region := strings.Join(strings.Split(folder, "/")[:len(strings.Split(folder, "/"))-4], "/")
		if !seen[region] {
			seen[region] = true
			if err := put(region+"/amazon-bedrock-logs-permission-check", nil); err != nil {
				return err
			}
		}
		list := groups[folder]
		for i := 0; i < len(list); i += o.MaxRecords {
			if err := writeLogFile(put, folder, list[i:min(i+o.MaxRecords, len(list))], o); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeLogFile(put Putter, folder string, calls []Call, o LogOptions) error {
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	write := func(record obj) error {
		_, err := zip.Write(append(encode(record), '\n'))
		return err
	}
	var late []obj
	for _, c := range calls {
		record, err := logRecord(put, folder, c, o)
		if err != nil {
			return err
		}
		if c.Operation == "ConverseStream" && c.ErrorCode == "" && hashOf(c.RequestID)%5 == 0 {
			twin := obj{}
			for k, v := range record {
				twin[k] = v
			}
			twin["input"] = obj{"inputContentType": "application/json", "inputTokenCount": 0}
			twin["output"] = obj{"outputContentType": "application/json", "outputTokenCount": 0}
			late = append(late, record)
			record = twin
		}
		if err := write(record); err != nil {
			return err
		}
	}
	for _, record := range late {
		if err := write(record); err != nil {
			return err
		}
	}
	if err := zip.Close(); err != nil {
		return err
	}
	first := calls[0].At.UTC().Add(time.Minute)
	sum := sha256.Sum256([]byte(folder + calls[0].RequestID))
	name := fmt.Sprintf("%s/%s%03dZ_%s.json.gz", folder, first.Format("20060102T150405"), first.Nanosecond()/1e6, hex.EncodeToString(sum[:8]))
	return put(name, buf.Bytes())
}

func hashOf(s string) byte {
	sum := sha256.Sum256([]byte(s))
	return sum[0]
}

// logRecord is one record of schema 1.0. Session tags are not in it.
func logRecord(put Putter, folder string, c Call, o LogOptions) (obj, error) {
	record := obj{"schemaType": "ModelInvocationLog", "schemaVersion": "1.0", "timestamp": c.At.UTC().Format("2006-01-02T15:04:05Z"),
		"accountId": c.Account, "region": c.Region, "requestId": c.RequestID, "operation": c.Operation, "modelId": c.ModelID, "identity": obj{"arn": c.PrincipalARN}}
	if c.Endpoint == Runtime && c.Scope != "plain" && !strings.HasPrefix(c.ModelID, "arn:") && contains(loggedOperations[4:], c.Operation) {
		record["modelId"] = "arn:aws:bedrock:" + c.Region + ":" + c.Account + ":inference-profile/" + c.ModelID // as it is resolved
	}
	if c.InferenceRegion != "" {
		record["inferenceRegion"] = c.InferenceRegion
	}
	if len(c.Metadata) > 0 {
		record["requestMetadata"] = c.Metadata
	}
	input, output := obj{"inputContentType": "application/json"}, obj{"outputContentType": "application/json"}
	if !o.NoBodies {
		for _, b := range []struct {
			to   obj
			side string
			body json.RawMessage
		}{{input, "input", c.RequestBody}, {output, "output", c.ResponseBody}} {
			switch {
			case b.body == nil:
			case len(b.body) > maxInline:
				key := fmt.Sprintf("%s/data/%s_%s.json.gz", folder, c.RequestID, b.side)
				var buf bytes.Buffer
				zip := gzip.NewWriter(&buf)
				if _, err := zip.Write(b.body); err != nil {
					return nil, err
				}
				if err := zip.Close(); err != nil {
					return nil, err
				}
				if err := put(key, buf.Bytes()); err != nil {
					return nil, err
				}
				b.to[b.side+"BodyS3Path"] = "s3://logs/" + key
			default:
				b.to[b.side+"BodyJson"] = b.body
			}
		}
	}
	if c.ErrorCode != "" {
		record["errorCode"] = c.ErrorCode
		record["input"], record["output"] = input, obj{}
		return record, nil
	}
	f := familyOf(c.BaseModel)
	if c.InputTokens > 0 || f == nil || f.makes == "text" || f.makes == "vector" {
		input["inputTokenCount"] = c.InputTokens
	}
	if written := c.CacheWrite5m + c.CacheWrite1h + c.CacheWrite30m; c.CacheRead+written > 0 {
		input["cacheReadInputTokenCount"], input["cacheWriteInputTokenCount"] = c.CacheRead, written
	}
	if f == nil || f.makes == "text" {
		output["outputTokenCount"] = c.OutputTokens
	}
	record["input"], record["output"] = input, output
	return record, nil
}
