//go:build ignore

// Command gen writes go.jsonl: the requests of cases.json, and those of the Bedrock
// client, as the AWS SDK for Go signs them and net/http sends them.
//
//	go run ./internal/identity/testdata/sigv4/gen.go
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"
)

type testCase struct {
	Name, Method, Path, Service, Region, Mode string
	Query                                     [][2]string
	Headers                                   [][2]string
	Body                                      json.RawMessage
	Chunks                                    []int
	Expires                                   int
	Declare, Token                            bool
	Want                                      string
	Skip                                      []string
}

type part struct {
	Text  string
	Count int
}

func (p part) MarshalJSON() ([]byte, error) { return json.Marshal([]any{p.Text, p.Count}) }

type entry struct {
	Name    string      `json:"name"`
	Signer  string      `json:"signer"`
	Method  string      `json:"method"`
	Target  string      `json:"target"`
	Headers [][2]string `json:"headers"`
	Chunked bool        `json:"chunked,omitempty"` // Transfer-Encoding: chunked
	Body    []part      `json:"body,omitempty"`
	Want    string      `json:"want,omitempty"`
}

const host = "waybill.example.com:8080"

var signedAt = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)

// capture reads one request off a connection, as it is.
func capture(c net.Conn) (e entry, body []byte) {
	r := bufio.NewReader(c)
	line := func() string {
		s, err := r.ReadString('\n')
		check(err)
		return strings.TrimRight(s, "\r\n")
	}
	first := strings.SplitN(line(), " ", 3)
	e.Method, e.Target = first[0], first[1]
	length := 0
	for s := line(); s != ""; s = line() {
		name, value, _ := strings.Cut(s, ":")
		value = strings.TrimPrefix(value, " ")
		switch strings.ToLower(name) {
		case "content-length":
			length, _ = strconv.Atoi(value)
		case "transfer-encoding":
			e.Chunked = true
			continue
		case "user-agent", "connection": // neither signed nor of interest
			continue
		}
		e.Headers = append(e.Headers, [2]string{name, value})
	}
	var from io.Reader = io.LimitReader(r, int64(length))
	if e.Chunked {
		from = httputil.NewChunkedReader(r)
	}
	body, err := io.ReadAll(from)
	check(err)
	fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
	c.Close()
	return e, body
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func bodyOf(raw json.RawMessage) (body []byte, parts []part) {
	var text string
	var list [][2]any
	switch {
	case raw == nil:
	case json.Unmarshal(raw, &text) == nil:
		if text != "" {
			parts = []part{{text, 1}}
		}
	default:
		check(json.Unmarshal(raw, &list))
		for _, p := range list {
			parts = append(parts, part{p[0].(string), int(p[1].(float64))})
		}
	}
	for _, p := range parts {
		body = append(body, strings.Repeat(p.Text, p.Count)...)
	}
	return body, parts
}

func main() {
	_, self, _, _ := runtime.Caller(0)
	dir := filepath.Dir(self)
	var key struct{ AccessKeyID, SecretAccessKey, SessionToken string }
	var cases []testCase
	for name, to := range map[string]any{"key.json": &key, "cases.json": &cases} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		check(err)
		check(json.Unmarshal(raw, to))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}}
	out, err := os.Create(filepath.Join(dir, "go.jsonl"))
	check(err)
	defer out.Close()
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)

	// send runs f, which makes a request, and writes what arrived.
	send := func(name, signer, want string, parts []part, f func()) {
		done := make(chan struct{})
		go func() { f(); close(done) }()
		c, err := l.Accept()
		check(err)
		e, body := capture(c)
		<-done
		e.Name, e.Signer, e.Want, e.Body = name, signer, want, parts
		if e.Body == nil && len(body) > 0 {
			e.Body = []part{{string(body), 1}}
		}
		var whole []byte
		for _, p := range e.Body {
			whole = append(whole, strings.Repeat(p.Text, p.Count)...)
		}
		if !bytes.Equal(whole, body) {
			log.Fatalf("%s: the body did not arrive as it was meant", name)
		}
		check(enc.Encode(e))
	}

	signerName := "aws-sdk-go-v2/aws/signer/v4 " + version("github.com/aws/aws-sdk-go-v2")
	for _, tt := range cases {
		if slices.Contains(tt.Skip, "go") {
			continue
		}
		body, parts := bodyOf(tt.Body)
		creds := aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey}
		if tt.Token {
			creds.SessionToken = key.SessionToken
		}
		service, region := or(tt.Service, "bedrock"), or(tt.Region, "us-east-1")
		target := "http://" + host + tt.Path
		if len(tt.Query) > 0 {
			q := url.Values{}
			for _, p := range tt.Query {
				q.Add(p[0], p[1])
			}
			target += "?" + q.Encode()
		}
		r, err := http.NewRequest(tt.Method, target, bytes.NewReader(body))
		check(err)
		for _, h := range tt.Headers {
			r.Header.Add(h[0], h[1])
		}
		sum := sha256.Sum256(body)
		hash := hex.EncodeToString(sum[:])
		ctx, signer := context.Background(), v4.NewSigner()
		switch tt.Mode {
		case "":
			if tt.Declare {
				r.Header.Set("X-Amz-Content-Sha256", hash)
			}
			check(signer.SignHTTP(ctx, creds, r, hash, service, region, signedAt))
		case "unsigned":
			r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
			check(signer.SignHTTP(ctx, creds, r, "UNSIGNED-PAYLOAD", service, region, signedAt))
		case "presigned":
			q := r.URL.Query()
			q.Set("X-Amz-Expires", strconv.Itoa(tt.Expires))
			r.URL.RawQuery = q.Encode()
			signed, header, err := signer.PresignHTTP(ctx, creds, r, hash, service, region, signedAt)
			check(err)
			r, err = http.NewRequest(tt.Method, signed, bytes.NewReader(body))
			check(err)
			for name, values := range header {
				if name != "Host" && name != "Content-Length" {
					r.Header[name] = values
				}
			}
		case "chunked":
			const literal = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
			r.Header.Set("X-Amz-Content-Sha256", literal)
			r.Header.Set("X-Amz-Decoded-Content-Length", strconv.Itoa(len(body)))
			r.Header.Set("Content-Encoding", "aws-chunked")
			r.ContentLength = framedLength(tt.Chunks)
			check(signer.SignHTTP(ctx, creds, r, literal, service, region, signedAt))
			auth := r.Header.Get("Authorization")
			seed, err := hex.DecodeString(auth[len(auth)-64:])
			check(err)
			stream := v4.NewStreamSigner(creds, service, region, seed)
			parts = frame(body, tt.Chunks, func(chunk []byte) string {
				sig, err := stream.GetSignature(ctx, nil, chunk, signedAt)
				check(err)
				return hex.EncodeToString(sig)
			})
			body = nil
			for _, p := range parts {
				body = append(body, strings.Repeat(p.Text, p.Count)...)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		send(tt.Name, signerName, tt.Want, parts, func() {
			resp, err := client.Do(r)
			check(err)
			resp.Body.Close()
		})
	}

	// The client itself, with everything that it adds.
	clientName := "aws-sdk-go-v2/service/bedrockruntime " + version("github.com/aws/aws-sdk-go-v2/service/bedrockruntime")
	bedrock := bedrockruntime.New(bedrockruntime.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://" + host), HTTPClient: client, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, "")})
	ctx := context.Background()
	hi := []types.Message{{Role: types.ConversationRoleUser, Content: []types.ContentBlock{&types.ContentBlockMemberText{Value: "hi, 世界"}}}}
	arn := "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123def456"
	for _, model := range []string{"anthropic.claude-3-haiku-20240307-v1:0", arn} {
		short := strings.SplitN(model, ":", 2)[0]
		send("client InvokeModel "+short, clientName, "", nil, func() {
			bedrock.InvokeModel(ctx, &bedrockruntime.InvokeModelInput{ModelId: &model, Body: []byte(`{"prompt":"hi"}`), ContentType: aws.String("application/json")})
		})
		send("client Converse "+short, clientName, "", nil, func() {
			bedrock.Converse(ctx, &bedrockruntime.ConverseInput{ModelId: &model, Messages: hi, RequestMetadata: map[string]string{"team": "search"}})
		})
		send("client ConverseStream "+short, clientName, "", nil, func() {
			bedrock.ConverseStream(ctx, &bedrockruntime.ConverseStreamInput{ModelId: &model, Messages: hi})
		})
	}
	send("client ListAsyncInvokes", clientName, "", nil, func() {
		bedrock.ListAsyncInvokes(ctx, &bedrockruntime.ListAsyncInvokesInput{MaxResults: aws.Int32(5), StatusEquals: types.AsyncInvokeStatusCompleted,
			SubmitTimeAfter: aws.Time(signedAt), NextToken: aws.String("a+b/c==")})
	})
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func framedLength(chunks []int) (n int64) {
	for _, size := range append(slices.Clone(chunks), 0) {
		n += int64(len(strconv.FormatInt(int64(size), 16)) + len(";chunk-signature=") + 64 + 2 + size + 2)
	}
	return n
}

// frame cuts a body into signed chunks; repeated text is given as a count.
func frame(body []byte, chunks []int, sign func([]byte) string) (parts []part) {
	text := ""
	for _, size := range append(slices.Clone(chunks), 0) {
		chunk := body[:size]
		body = body[size:]
		text += strconv.FormatInt(int64(size), 16) + ";chunk-signature=" + sign(chunk) + "\r\n"
		if size > 1024 {
			parts = append(parts, part{text, 1})
			parts = append(parts, squeeze(chunk)...)
			text = ""
		} else {
			text += string(chunk)
		}
		text += "\r\n"
	}
	return append(parts, part{text, 1})
}

// squeeze writes a text with a period of 1, 16 or 17 as counts.
func squeeze(b []byte) []part {
	for _, period := range []int{1, 16, 17} {
		n := 0
		for n+period <= len(b) && bytes.Equal(b[n:n+period], b[:period]) {
			n += period
		}
		if n > len(b)*9/10 {
			parts := []part{{string(b[:period]), n / period}}
			if n < len(b) {
				parts = append(parts, part{string(b[n:]), 1})
			}
			return parts
		}
	}
	return []part{{string(b), 1}}
}

func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version
		}
	}
	return "unknown"
}
