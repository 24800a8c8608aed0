package downstream_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-dev/waybill/internal/downstream"
)

// serve serves until the test ends.
func serve(t testing.TB, s *downstream.Server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-over; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs fails
	return c
}

func say(t testing.TB, c net.Conn, words ...string) {
	t.Helper()
	if _, err := io.WriteString(c, strings.Join(words, "")); err != nil {
		t.Fatal(err)
	}
}

// An answered is an answer as its bytes say it, but for the date.
type answered struct {
	status  int
	header  http.Header
	length  int64
	coding  []string
	close   bool
	body    string
	cut     bool // the body ended before its end
	trailer http.Header
}

func hear(in *bufio.Reader) (*answered, error) {
	a, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(a.Body)
	a.Header.Del("Date")
	a.Header.Del("Connection")
	return &answered{a.StatusCode, a.Header, a.ContentLength, a.TransferEncoding, a.Close, string(body), err != nil && (a.ContentLength >= 0 || len(a.TransferEncoding) > 0), a.Trailer}, nil
}

// hearAll hears answers until the connection ends.
func hearAll(c net.Conn) (all []*answered) {
	in := bufio.NewReader(c)
	for {
		a, err := hear(in)
		if err != nil {
			return all
		}
		all = append(all, a)
	}
}

// answers are what handlers do, each by the path that asks for it.
var answers = map[string]http.HandlerFunc{
	"/nothing": func(http.ResponseWriter, *http.Request) {},
	"/short": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header()["x-amzn-RequestId"] = []string{"1"}
		io.WriteString(w, `{"a":1}`)
	},
	"/told": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "5")
		w.Header()["X-Two"] = []string{"a", "b"}
		w.Header().Set("X-Break", " a\r\nb ")
		w.Header()["No Name"] = []string{"a"}
		w.WriteHeader(418)
		io.WriteString(w, "hel")
		io.WriteString(w, "lo")
	},
	"/large": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "200000")
		for range 5 {
			w.Write(bytes.Repeat([]byte("x"), 40_000))
		}
	},
	"/large-untold": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		for i := range 50 {
			w.Write(bytes.Repeat([]byte{byte('a' + i%26)}, 1+i*i*10))
		}
	},
	"/stream": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		out := http.NewResponseController(w)
		out.Flush()
		for i := range 20 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			out.Flush()
		}
	},
	"/trailer": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Trailer", "X-Cost, X-None")
		io.WriteString(w, "hello")
		http.NewResponseController(w).Flush()
		w.Header().Set("X-Cost", "1.5")
	},
	"/none": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
		if _, err := io.WriteString(w, "x"); !errors.Is(err, http.ErrBodyNotAllowed) {
			panic(err)
		}
	},
	"/unknown-status": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(599)
		io.WriteString(w, "x")
	},
	"/too-much": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "2")
		io.WriteString(w, "ab")
		if _, err := io.WriteString(w, "c"); !errors.Is(err, http.ErrContentLength) {
			panic(err)
		}
	},
	"/too-little": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "5")
		io.WriteString(w, "ab")
	},
	"/close": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye")
	},
	"/abort": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "hel")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	"/panic": func(http.ResponseWriter, *http.Request) { panic("a handler's fault") },
	"/abort-told": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "hel")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	"/abort-large": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Write(bytes.Repeat([]byte("x"), 40_000))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	"/abort-silent": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "hel")
		panic(http.ErrAbortHandler)
	},
	"/before": func(w http.ResponseWriter, r *http.Request) { // answers before it reads
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "early ")
		http.NewResponseController(w).Flush()
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %v", len(body), err)
	},
	"/closed": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		r.Body.Close()
		_, err := r.Body.Read(make([]byte, 1))
		fmt.Fprint(w, err)
	},
	"/none-flushed": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(204)
		http.NewResponseController(w).Flush()
		http.NewResponseController(w).Flush()
	},
	"/unchanged": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5")
		w.Header().Set("Etag", "5")
		w.WriteHeader(304)
	},
	"/two-heads": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(201)
		w.Header().Set("X-Late", "1")
		w.WriteHeader(500)
	},
	"/empty-flushed": func(w http.ResponseWriter, _ *http.Request) {
		http.NewResponseController(w).Flush()
		http.NewResponseController(w).Flush()
	},
	"/empty-told": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "0")
		w.Write(nil)
		http.NewResponseController(w).Flush()
	},
	"/trailer-told": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Trailer", "X-Cost, Content-Length, X Bad")
		w.Header().Set("X-Cost", "a\r\nX-Evil: b")
		w.Header().Set("X\r\nEvil", "b")
		w.Header().Set("X-Nul", "a\x00b\rc\nd")
		io.WriteString(w, "hello")
	},
	"/odd-names": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header()["x-lower"] = []string{"1"}
		w.Header()[""] = []string{"1"}
		w.Header()["A:b"] = []string{"1"}
		io.WriteString(w, "hello")
	},
	"/body": func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%d %x %v", len(body), sha256.Sum256(body), err)
	},
	"/half": func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, r.ContentLength/2))
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "half")
	},
	"/echo": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		body, err := io.ReadAll(r.Body)
		names := make([]string, 0, len(r.Header))
		for name := range r.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(w, "%s|%s|%s|%s|%d|%v|%q|%v", r.Method, r.RequestURI, r.Host, r.Proto, r.ContentLength, r.TransferEncoding, body, err)
		fmt.Fprintf(w, "|%#v|%t|%t|%t|%t|%q|%v|%v", *r.URL, r.Close, r.Body == http.NoBody, r.GetBody == nil, r.TLS == nil, r.Pattern, r.Trailer, r.Form)
		for _, name := range names {
			fmt.Fprintf(w, "|%s=%q", name, r.Header[name])
		}
	},
}

func answer(w http.ResponseWriter, r *http.Request) {
	h := answers[r.URL.Path]
	if h == nil {
		h = answers["/echo"]
	}
	h(w, r)
}

// both serves the same handler here and by net/http.
func both(t testing.TB) (here, library string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := httptest.NewUnstartedServer(http.HandlerFunc(answer))
	s.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return serve(t, &downstream.Server{Handler: http.HandlerFunc(answer)}), s.Listener.Addr().String()
}

// sameAnswers sends the same bytes here and to net/http, then ends its side, and compares
// what comes back. cut sends them in two pieces.
func sameAnswers(t *testing.T, here, library, text string, cut int) {
	t.Helper()
	ask := func(address string) []*answered {
		c := dial(t, address)
		defer c.Close()
		done := make(chan bool)
		go func() {
			defer close(done)
			_, _ = io.WriteString(c, text[:cut]) // the server may have closed already
			if cut > 0 && cut < len(text) {
				runtime.Gosched()
			}
			_, _ = io.WriteString(c, text[cut:])
		}()
		// Its side stays open until the answers are there: net/http takes its end for the caller's leaving.
		all := hearAll(c)
		<-done
		return all
	}
	got, want := ask(here), ask(library)
	if len(got) != len(want) {
		t.Fatalf("%.300q\ngave %d answers, and net/http %d", text, len(got), len(want))
	}
	for i := range got {
		if g, w := fmt.Sprintf("%+v", *got[i]), fmt.Sprintf("%+v", *want[i]); g != w {
			t.Errorf("%.300q\ngave         %.600s\nand net/http %.600s", text, g, w)
		}
	}
}

const last = "GET /close HTTP/1.1\r\nHost: a\r\n\r\n" // ends a connection that is still open

func post(path, body string, more ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(more, ""), body)
}

// Each answer is what net/http would give, framed as it would frame it, and the connection
// goes on, or ends, as it would.
func TestAnswers(t *testing.T) {
	here, library := both(t)
	for path := range answers {
		for _, body := range []string{"", "hello", strings.Repeat("a body ", 3_000), strings.Repeat("b", 300_000)} {
			t.Run(fmt.Sprint(path, " ", len(body)), func(t *testing.T) {
				sameAnswers(t, here, library, post(path, body)+last, 0)
				sameAnswers(t, here, library, post(path, body)+post(path, body)+last, 70)
			})
		}
		sameAnswers(t, here, library, strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n", 3)+last, 0)
	}
}

// What is not plain is net/http's, at the first request of a connection and at any after
// it, and the requests that follow it.
func TestOthersAreLeftToTheLibrary(t *testing.T) {
	here, library := both(t)
	chunked := "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	long := "GET /echo HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 20_000) + "\r\n\r\n"
	for name, text := range map[string]string{
		"chunks":                   chunked,
		"chunks and after":         chunked + post("/echo", "hello"),
		"an old version":           "GET /echo HTTP/1.0\r\nHost: a\r\n\r\n",
		"asked to close":           "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"a long head":              long,
		"a method":                 "PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
		"no host":                  "GET /echo HTTP/1.1\r\n\r\n",
		"two hosts":                "GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"two lengths":              "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
		"a folded line":            "GET /echo HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
		"bare LF":                  "GET /echo HTTP/1.1\nHost: a\n\n",
		"garbage":                  "\x16\x03\x01\x02\x00",
		"a continue that is asked": "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: something\r\nContent-Length: 2\r\n\r\nab",
		"absolute":                 "GET http://b/echo HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for cut := range min(len(text), 120) {
				sameAnswers(t, here, library, text+last, cut)
				if cut%10 == 0 {
					sameAnswers(t, here, library, post("/body", "hello")+text+last, cut)
				}
			}
		})
	}
}

// Whoever ends lines in another way, or speaks an older version, is answered without having
// to send more.
func TestOthersNeedNotSayMore(t *testing.T) {
	here, library := both(t)
	for _, text := range []string{"GET /close HTTP/1.1\nHost: a\n\n", "GET /close HTTP/1.1\r\nHost: a\r\n\n", "GET /close HTTP/1.1\r\nHost: a\n\r\n", "GET /close?of=an+old+kind\r\n", "GET /close HTML/9.9\r\n"} {
		for cut := range len(text) {
			sameAnswers(t, here, library, text, cut)
		}
	}
}

// Heads that just fit the buffer, and that just do not, are read alike wherever they are cut.
func TestHeadsAboutTheSizeOfTheBuffer(t *testing.T) {
	here, library := both(t)
	for n := 8190; n <= 8194; n++ {
		head := "GET /echo HTTP/1.1\r\nHost: a\r\nX: "
		text := head + strings.Repeat("x", n-len(head)-4) + "\r\n\r\n"
		for _, cut := range []int{0, 1, 8188, 8189, 8190, 8191, 8192, n - 1} {
			sameAnswers(t, here, library, text+post("/echo", "hello")+last, min(cut, n-1))
			sameAnswers(t, here, library, post("/echo", "hello")+text+post("/echo", "hello")+last, min(cut, n-1))
		}
	}
}

// A conversation that comes byte for byte is the same.
func TestByteForByte(t *testing.T) {
	here, library := both(t)
	text := post("/echo", "hello") + "\r\n\r\n" + post("/echo", "") + "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n" + post("/half", "hello there") + "\r\n" +
		"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + post("/echo", "x") + last
	heard := func(address string) (all []string) {
		c := dial(t, address)
		done := make(chan bool)
		go func() {
			defer close(done)
			for i := range text {
				_, _ = io.WriteString(c, text[i:i+1]) // what is not heard is missed below
			}
		}()
		for _, a := range hearAll(c) {
			all = append(all, fmt.Sprintf("%+v", *a))
		}
		<-done
		return all
	}
	if got, want := heard(here), heard(library); len(want) != 7 || !slices.Equal(got, want) {
		t.Errorf("gave         %q\nand net/http %q", got, want)
	}
}

// HTTP/2 begins at the beginning of a connection alone, in whatever pieces: a connection on
// which requests of HTTP/1.1 have come does not change to it, or whoever shares it between
// callers would have let one of them take it over.
func TestPreface(t *testing.T) {
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	here, library := both(t)
	for _, address := range []string{here, library} {
		for cut := range len(preface) {
			for _, before := range []string{"", post("/body", "x")} {
				c := dial(t, address)
				in := bufio.NewReader(c)
				if before != "" {
					say(t, c, before)
					if _, err := hear(in); err != nil {
						t.Fatal(err)
					}
				}
				say(t, c, preface[:cut])
				_, _ = io.WriteString(c, preface[cut:]) // the connection may have ended
				var frame [9]byte
				_, _ = io.ReadFull(in, frame[:]) // nothing is no frame
				if settings := frame[3] == 4 && frame[4] == 0; settings != (before == "") {
					t.Errorf("cut at %d, after %q: %q", cut, before, frame)
				}
				c.Close()
			}
		}
	}
}

// However the bytes arrive, the answers are the same.
func FuzzAnswers(f *testing.F) {
	for path := range answers {
		f.Add([]byte(post(path, "hello")+post(path, "you")), uint16(10))
	}
	f.Add([]byte(post("/echo", "a")+"\r\n\r\n\r\n"+post("/echo", "b")), uint16(10))
	f.Add([]byte("GET /echo HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n"), uint16(10))
	f.Add([]byte("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n"), uint16(80))
	here, library := both(f)
	f.Fuzz(func(t *testing.T, text []byte, cut uint16) {
		if len(text) > 20_000 || strings.Contains(strings.ToLower(string(text)), "expect") {
			t.Skip() // an interim answer may come sooner or later
		}
		ask := func(address string) (all []*answered) {
			c := dial(t, address)
			defer c.Close()
			n := min(int(cut), len(text))
			go func() {
				_, _ = c.Write(text[:n])
				_, _ = c.Write(text[n:])
				_, _ = io.WriteString(c, "\r\n\r\n"+last+last)
				_ = c.(*net.TCPConn).CloseWrite() // what waits for more waits for ever
			}()
			return hearAll(c)
		}
		got, want := ask(here), ask(library)
		for i := range min(len(got), len(want)) {
			if strings.Contains(got[i].body, "unexpected EOF") {
				got[i].close = want[i].close // net/http does not say that it closes a connection whose request was cut; here it is said
			}
			if g, w := fmt.Sprintf("%+v", *got[i]), fmt.Sprintf("%+v", *want[i]); g != w && !got[i].cut && !want[i].cut { // who leaves may be noticed sooner or later
				t.Errorf("%q\ngave         %.600s\nand net/http %.600s", text, g, w)
			}
		}
	})
}

// A body arrives whole in whatever pieces it comes, and requests that are sent before they
// are asked for are answered in their order.
func TestPipelining(t *testing.T) {
	here := serve(t, &downstream.Server{Handler: http.HandlerFunc(answer)})
	c := dial(t, here)
	var text strings.Builder
	sizes := []int{0, 1, 8191, 8192, 8193, 20_000, 100, 200_000, 3}
	for _, n := range sizes {
		text.WriteString(post("/body", strings.Repeat("x", n)))
	}
	go func() { _, _ = io.WriteString(c, text.String()) }()
	in := bufio.NewReader(c)
	for _, n := range sizes {
		a, err := hear(in)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d %x <nil>", n, sha256.Sum256(bytes.Repeat([]byte("x"), n))); a.body != want {
			t.Errorf("got %q, want %q", a.body, want)
		}
	}
}

// HTTP/2 is served, with TLS and with prior knowledge, and so is HTTP/1.1 over TLS, plain
// or not; handlers see who shows a certificate.
func TestTLS(t *testing.T) {
	pair := httptest.NewTLSServer(nil)
	defer pair.Close()
	authority := pair.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	seen := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		certificates := -1
		if r.TLS != nil {
			certificates = len(r.TLS.PeerCertificates)
		}
		fmt.Fprintf(w, "%d %d %s", r.ProtoMajor, certificates, body)
	})
	secure := serve(t, &downstream.Server{Handler: seen, TLS: &tls.Config{Certificates: pair.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert}, HeaderTimeout: time.Minute})
	open := serve(t, &downstream.Server{Handler: seen})
	for _, tt := range []struct {
		name    string
		http2   bool
		secure  bool
		chunked bool
		want    string
	}{
		{"HTTP/1.1", false, false, false, "1 -1 hello"},
		{"HTTP/1.1 in chunks", false, false, true, "1 -1 hello"},
		{"HTTP/2 with prior knowledge", true, false, false, "2 -1 hello"},
		{"HTTP/1.1 over TLS", false, true, false, "1 1 hello"},
		{"HTTP/1.1 over TLS in chunks", false, true, true, "1 1 hello"},
		{"HTTP/2 over TLS", true, true, false, "2 1 hello"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			way := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{RootCAs: authority, Certificates: pair.TLS.Certificates}}
			defer way.CloseIdleConnections()
			way.Protocols.SetHTTP1(!tt.http2)
			way.Protocols.SetHTTP2(tt.http2)
			way.Protocols.SetUnencryptedHTTP2(tt.http2)
			url := "http://" + open
			if tt.secure {
				url = "https://" + secure
			}
			for range 3 {
				var body io.Reader = strings.NewReader("hello")
				if tt.chunked {
					body = struct{ io.Reader }{body}
				}
				a, err := (&http.Client{Transport: way}).Post(url, "text/plain", body)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(a.Body)
				a.Body.Close()
				if err != nil || string(got) != tt.want {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	c := dial(t, secure)
	say(t, c, "GET / HTTP/1.1\r\n\r\n")
	if got, _ := io.ReadAll(c); !strings.Contains(string(got), "HTTP request to an HTTPS server") {
		t.Errorf("%q", got)
	}
}

// A caller that leaves ends its call's context, and who asks knows at once. One that only
// has sent more does not.
func TestCallerLeaves(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			pair := httptest.NewTLSServer(nil)
			defer pair.Close()
			came, left := make(chan http.ResponseWriter), make(chan bool)
			s := &downstream.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				came <- w
				<-left
				<-r.Context().Done()
				came <- w
			})}
			if secure {
				s.TLS = &tls.Config{Certificates: pair.TLS.Certificates}
			}
			address := serve(t, s)
			c := dial(t, address)
			if secure {
				c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			}
			say(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n")
			w := <-came
			gone := w.(interface{ Gone() bool }).Gone
			if gone() {
				t.Error("a caller that is there is gone")
			}
			c.Close()
			for !gone() { // the kernel needs a moment
				runtime.Gosched()
			}
			left <- true
			<-came
		})
	}
}

// Without anybody asking, a call whose caller leaves is ended too, in whatever way it does.
// One that ends its side alone counts as gone, as with net/http, and hears its answer.
func TestCallerIsMissed(t *testing.T) {
	came, over := make(chan bool), make(chan error)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came <- true
		<-r.Context().Done()
		io.WriteString(w, "answered")
		over <- r.Context().Err()
	})
	library := httptest.NewServer(handler)
	t.Cleanup(library.Close)
	for server, address := range map[string]string{"here": serve(t, &downstream.Server{Handler: handler}), "net/http": library.Listener.Addr().String()} {
		for way, leave := range map[string]func(*net.TCPConn) error{
			"close": (*net.TCPConn).Close,
			"reset": func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) },
			"half":  (*net.TCPConn).CloseWrite,
		} {
			c := dial(t, address)
			say(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			<-came
			if err := leave(c.(*net.TCPConn)); err != nil {
				t.Error(err)
			}
			if err := <-over; !errors.Is(err, context.Canceled) {
				t.Errorf("%s, %s: %v", server, way, err)
			}
			if way != "half" {
				continue
			}
			if all := hearAll(c); len(all) != 1 || all[0].body != "answered" {
				t.Errorf("%s, %s: %v", server, way, all)
			}
		}
	}
}

// A context ends with its call, and a body with it.
func TestNothingOutlivesACall(t *testing.T) {
	requests := make(chan *http.Request, 1)
	address := serve(t, &downstream.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r })})
	c := dial(t, address)
	say(t, c, post("/", "hello"))
	if _, err := hear(bufio.NewReader(c)); err != nil {
		t.Fatal(err)
	}
	r := <-requests
	<-r.Context().Done()
	if n, err := r.Body.Read(make([]byte, 5)); n != 0 || err == nil {
		t.Errorf("%d bytes of the body, %v", n, err)
	}
}

// A head, a body, a pause between calls and an answer each have their time.
func TestTimes(t *testing.T) {
	const soon = 50 * time.Millisecond
	read := make(chan error, 1)
	s := &downstream.Server{HeaderTimeout: soon, IdleTimeout: soon, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := http.NewResponseController(w)
		switch r.URL.Path {
		case "/read":
			_ = out.SetReadDeadline(time.Now().Add(soon))
			_, err := io.ReadAll(r.Body)
			read <- err
		case "/write":
			_ = out.SetWriteDeadline(time.Now().Add(soon))
			w.Header().Set("Content-Length", "1000000000")
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					read <- err
					return
				}
			}
		}
	})}
	address := serve(t, s)
	for name, text := range map[string]string{"nothing": "", "the beginning of a head": "GET / HT", "a head without its end": "GET / HTTP/1.1\r\nHost: a\r\n"} {
		c := dial(t, address)
		say(t, c, text)
		if got, err := io.ReadAll(c); len(got) > 0 || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	c := dial(t, address)
	say(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if all := hearAll(c); len(all) != 1 {
		t.Errorf("%d answers, and then a pause", len(all))
	}
	c = dial(t, address)
	say(t, c, "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a body that does not come: %v", err)
	}
	c = dial(t, address)
	say(t, c, "GET /write HTTP/1.1\r\nHost: a\r\n\r\n")
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an answer that is not taken: %v", err)
	}
}

// A body that ends before it should is told from one that is whole.
func TestShortBody(t *testing.T) {
	read := make(chan error, 1)
	address := serve(t, &downstream.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		read <- err
	})})
	c := dial(t, address)
	say(t, c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
	c.Close()
	if err := <-read; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

// Shutdown lets calls end, tells their callers that the connection ends, closes those that
// do nothing, and takes no new ones; nothing is left running.
func TestShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	came, goOn := make(chan bool), make(chan bool)
	s := &downstream.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			came <- true
			<-goOn
		}
		io.WriteString(w, "done")
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	address := l.Addr().String()
	fresh, used, working := dial(t, address), dial(t, address), dial(t, address)
	say(t, used, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	in := bufio.NewReader(used)
	if _, err := hear(in); err != nil {
		t.Fatal(err)
	}
	say(t, working, "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a call under way: %v", err)
	}
	for _, c := range []net.Conn{fresh, used} {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an idle connection: %v", err)
		}
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("a new connection was taken")
	}
	goOn <- true
	a, err := hear(bufio.NewReader(working))
	if err != nil || a.body != "done" || !a.close {
		t.Errorf("%+v, %v", a, err)
	}
	serving.Wait()
	s.Close()
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d goroutines where there were %d", runtime.NumGoroutine(), before)
}

// A pipe cannot be asked whether its other end is there: net/http serves it.
func TestWhatIsNotTCP(t *testing.T) {
	l := &pipes{conns: make(chan net.Conn), done: make(chan bool)}
	s := &downstream.Server{Handler: http.HandlerFunc(answer)}
	over := make(chan bool)
	go func() { defer close(over); _ = s.Serve(l) }()
	ours, theirs := net.Pipe()
	l.conns <- theirs
	go func() { _, _ = io.WriteString(ours, last) }()
	if all := hearAll(ours); len(all) != 1 || all[0].body != "bye" {
		t.Errorf("%v", all)
	}
	s.Close()
	<-over
}

type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan bool
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// A handler's panic is an error in the log, whoever has read the request, and nothing is
// where a handler aborts.
func TestPanicsAreTold(t *testing.T) {
	var log bytes.Buffer // written by a connection that has ended when it is read
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &downstream.Server{Handler: http.HandlerFunc(answer), Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))}
	over := make(chan error)
	go func() { over <- s.Serve(l) }()
	for _, path := range []string{"/panic", "/abort"} {
		for _, text := range []string{post(path, "a"), "POST " + path + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
			c := dial(t, l.Addr().String())
			say(t, c, text)
			_, _ = io.ReadAll(c) // it ends
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-over
	s.Close()
	if got := log.String(); strings.Count(got, "level=ERROR") != 2 || strings.Count(got, "a handler's fault") != 2 || !strings.Contains(got, "downstream_test.go") {
		t.Errorf("the log is %s", got)
	}
}
