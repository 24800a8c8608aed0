package screen

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// lines reads a file of testdata without its comments.
func screenLines(t testing.TB, name string) []string {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "# ") {
			out = append(out, line)
		}
	}
	return out
}

// A sample is a value and the kind it is of.
type sample struct{ kind, value string }

// sensitiveSamples are the values of sensitive.txt, put together.
func sensitiveSamples(t testing.TB) []sample {
	t.Helper()
	together := strings.NewReplacer("~~", "~", "~", "")
	var out []sample
	for _, line := range screenLines(t, "sensitive.txt") {
		kind, value, ok := strings.Cut(line, "\t")
		if !ok {
			t.Fatalf("sensitive.txt: %q has no tab", line)
		}
		out = append(out, sample{kind, together.Replace(value)})
	}
	return out
}

func TestOrdinaryValuesPass(t *testing.T) {
	values := screenLines(t, "ordinary.txt")
	if len(values) < 1000 {
		t.Errorf("ordinary.txt has %d values, want 1,000 at least", len(values))
	}
	for _, v := range values {
		if got, found := Value(v); found {
			t.Errorf("Value(%q) = %s, want no finding", v, got.Kind)
		}
	}
}

func TestSensitiveValuesAreFound(t *testing.T) {
	count := make(map[string]int)
	for _, s := range sensitiveSamples(t) {
		count[s.kind]++
		if got, _ := Value(s.value); got.Kind != s.kind {
			t.Errorf("Value(%q) = %q, want %q", s.value, got.Kind, s.kind)
		}
	}
	for _, k := range Kinds() {
		if count[k.Kind] < 3 {
			t.Errorf("sensitive.txt has %d values of kind %s, want 3 at least", count[k.Kind], k.Kind)
		}
	}
}

// What slips in slips in with text around it, encoded or not.
func TestSensitiveValuesAreFoundInText(t *testing.T) {
	for _, s := range sensitiveSamples(t) {
		for form, v := range map[string]string{
			"in text":         "x " + s.value + " y",
			"quoted":          `"` + s.value + `"`,
			"in parentheses":  "ticket (" + s.value + ")",
			"with a comma":    "a, " + s.value + ", b",
			"percent-encoded": percentEncoded(s.value),
			"encoded twice":   strings.ReplaceAll(percentEncoded(s.value), "%", "%25"),
			"after a line":    "first line\n" + s.value + "\n",
			"far inside":      strings.Repeat("ordinary text, ", 200) + s.value,
		} {
			if _, found := Value(v); !found {
				t.Errorf("%s %s: Value(%q) finds nothing", s.kind, form, v)
			}
		}
	}
}

func percentEncoded(v string) string {
	var out []byte
	for _, c := range []byte(v) {
		if c == '%' || c == '@' || c == '+' || c == ' ' || c == '/' || c == ':' || c == '=' || c >= 0x80 {
			out = fmt.Appendf(out, "%%%02X", c)
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

func TestKindsAreDistinctAndNamed(t *testing.T) {
	seen := make(map[string]bool)
	for _, k := range Kinds() {
		if k.Kind == "" || k.Name == "" || seen[k.Kind] || seen[k.Name] {
			t.Errorf("kind %+v has no code, no name, or those of another", k)
		}
		if k.Kind != strings.ToLower(k.Kind) || strings.ContainsAny(k.Kind, " -.") {
			t.Errorf("kind %q is no code", k.Kind)
		}
		seen[k.Kind], seen[k.Name] = true, true
	}
	if len(seen) < 2*30 {
		t.Errorf("%d kinds, want 30 at least", len(seen)/2)
	}
}

// One change turns each of these into a finding, or made one of it.
func TestNearMisses(t *testing.T) {
	for _, tt := range []struct{ what, value string }{
		{"wrong check digit", "4111111111111112"},
		{"wrong check digit", "4111 1111 1111 1112"},
		{"no issuer", "9111111111111111"},
		{"a digit too many", "41111111111111111"},
		{"Visa's old 13 digits, or an EAN", "4222222222222"},
		{"one in a row of numbers", "1000 4111 1111 1111 1111"},
		{"decimals", "0.4111111111111111"},
		{"inside a hash", "a4111111111111111b"},
		{"wrong check digits", "DE88370400440532013000"},
		{"a digit too few", "DE8937040044053201300"},
		{"no such country", "ZZ89370400440532013000"},
		{"letters where Germany has none", "DE8937040044053201300A"},
		{"groups of no size", "DE89 37040 0440 5320 13000"},
		{"an area that is not given out", "666-12-3456"},
		{"an area that is not given out", "000-12-3456"},
		{"no group", "123-00-4567"},
		{"no serial", "123-45-0000"},
		{"inside a longer number", "9-123-45-6789"},
		{"inside a longer number", "123-45-6789-1"},
		{"a version", "v1.123-45-6789"},
		{"mixed separators", "123-45 6789"},
		{"no dashes", "123456789"},
		{"an ITIN's group that is not given out", "912-93-1234"},
		{"a prefix that is not given out", "GB123456C"},
		{"a suffix that is not given out", "AB123456E"},
		{"in lower case, as a hash is", "ab123456c"},
		{"wrong letter", "12345678A"},
		{"a revision of a day", "20240115V"},
		{"wrong letter", "X1234567A"},
		{"wrong letter", "RSSMRA85T10A562T"},
		{"no such month", "RSSMRA85Z10A562S"},
		{"wrong check digits", "529.982.247-26"},
		{"bare digits", "52998224725"},
		{"all the same", "111.111.111-11"},
		{"wrong check digit", "2341 2341 2347"},
		{"an account of AWS", "2341-2341-2346"},
		{"an account of AWS", "234123412346"},
		{"a company", "ABCCE1234F"},
		{"wrong key", "255081416802539"},
		{"wrong check digit", "65 929 970 488"},
		{"bare digits", "65929970489"},
		{"bare digits", "111222333"},
		{"wrong check digit", "bsn=111222334"},
		{"wrong check digits", "85.07.30-033.29"},
		{"wrong check digit", "756.9217.0769.86"},
		{"a build of that day", "20240115-0017"},
		{"a build of that day", "240115-0012"},
		{"wrong letter", "131052-308U"},
		{"wrong check digit", "110105194912310021"},
		{"no such month", "110105194913310020"},
		{"wrong letter", "S1234567E"},
		{"wrong check digit", "A123456(4)"},
		{"a letter Medicare does not use", "1SG4-TE5-MK73"},
		{"bare digits", "9434765919"},
		{"too short for a number", "+1 202 555"},
		{"no such area", "+1 123-555-0123"},
		{"no such country", "+999 12"},
		{"a build", "1.0+20240115120000"},
		{"an offset from UTC", "2024-01-15 10:00:00 +0100"},
		{"an offset from UTC", "Thu Jan  1 00:00:00 2024 +1000"},
		{"no prefix", "202-555-0123"},
		{"no domain", "user@host"},
		{"no domain", "user@10.0.0.1"},
		{"no user", "@example.com"},
		{"no top-level domain", "user@example.c"},
		{"a version", "pkg@1.2.3"},
		{"a version", "pkg@2.0.rc"},
		{"a version", "pkg@1.0.beta"},
		{"an image", "logo@2x.png"},
		{"where sources come from", "git@git.example.com:team/search.git"},
		{"a letter too few", "AKIAIOSFODNN7EXAMPL"},
		{"a letter too many", "AKIAIOSFODNN7EXAMPLEX"},
		{"a principal", "AROAIOSFODNN7EXAMPLE"},
		{"a placeholder", "AKIA" + strings.Repeat("X", 16)},
		{"a region", "ASIA" + "PACIFIC" + "NORTHEAST"},
		{"an id alone", "wbk_0123456789abcdef"},
		{"a name", "glpat-rotation-service"},
		{"a name", "sk-ant-migration-of-the-billing-service"},
		{"a placeholder", "ghp_" + strings.Repeat("x", 36)},
		{"an identifier", "hf_requiredCharacteristicTypesForDisplay"},
		{"an environment variable", "npm_config_registry_of_the_whole_organisation"},
		{"a public key", "-----BEGIN PUBLIC KEY-----"},
		{"a certificate", "-----BEGIN CERTIFICATE-----"},
		{"talk of a key", "BEGIN PRIVATE KEY rotation"},
		{"no password", "https://user@host/path"},
		{"a placeholder", "https://user:${PASSWORD}@host/path"},
		{"a port", "https://host:8443/@scope/pkg"},
		{"a placeholder", "password=${PASSWORD}"},
		{"a feature", "password:reset"},
		{"the name of a secret", "secret=prod/search/db"},
		{"the name of a secret", "arn:aws:secretsmanager:us-east-1:111122223333:secret:prod/db-AbCdEf"},
		{"a count", "token=4096"},
		{"a result", "pass=42, fail=0"},
		{"an order of compilers", "pass=second"},
		{"a version", "mobile: 2024.11.30"},
		{"a version", "iphone:1500123"},
		{"the name of a key", "api_key=search-production-2026"},
		{"a pod behind a label", "token: search-7d9f8b6c5d-x2k9z"},
		{"words", "Bearer authentication"},
		{"words", "Basic authentication"},
		{"a cursor", "eyJpZCI6MTIzfQ"},
		{"31 characters", "Zx9Qk3mB7vTn2LwPs8RfYd4HcJg6AaE"},
		{"text in base64", base64.StdEncoding.EncodeToString([]byte("Search Team Europe: forecast of 2026, third draft"))},
		{"not a date", "dob=1980"},
		{"no percent-encoding", "user%4"},
	} {
		if got, found := Value(tt.value); found {
			t.Errorf("%s: Value(%q) = %s, want no finding", tt.what, tt.value, got.Kind)
		}
	}
}

// lot draws characters of an alphabet.
func lot(r *rand.Rand, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

const (
	lotDigits = "0123456789"
	lotHex    = "0123456789abcdef"
	lotLower  = "abcdefghijklmnopqrstuvwxyz"
	lotUpper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	lotMixed  = lotLower + lotUpper + lotDigits
)

func TestIDsPass(t *testing.T) {
	source := rand.NewPCG(1, 2)
	r := rand.New(source)
	uuid := func(version byte) string {
		b := make([]byte, 16)
		binary.BigEndian.PutUint64(b, r.Uint64())
		binary.BigEndian.PutUint64(b[8:], r.Uint64())
		if version == 7 {
			binary.BigEndian.PutUint64(b, uint64(1.6e12+r.Int64N(4e11))<<16|uint64(r.IntN(1<<12)))
		}
		b[6], b[8] = b[6]&0x0f|version<<4, b[8]&0x3f|0x80
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	}
	for name, id := range map[string]func() string{
		"UUIDv1":           func() string { return uuid(1) },
		"UUIDv4":           func() string { return uuid(4) },
		"UUIDv7":           func() string { return uuid(7) },
		"UUID in capitals": func() string { return strings.ToUpper(uuid(4)) },
		"UUID in hex":      func() string { return strings.ReplaceAll(uuid(4), "-", "") },
		"short hash":       func() string { return lot(r, lotHex, 7+r.IntN(6)) },
		"MD5":              func() string { return lot(r, lotHex, 32) },
		"SHA-1":            func() string { return lot(r, lotHex, 40) },
		"SHA-256":          func() string { return lot(r, lotHex, 64) },
		"SHA-256 shouted":  func() string { return strings.ToUpper(lot(r, lotHex, 64)) },
		"ULID":             func() string { return "01" + lot(r, "0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24) },
		"KSUID":            func() string { return lot(r, "012", 1) + lot(r, lotMixed, 26) },
		"nanoid":           func() string { return lot(r, lotMixed+"_-", 21) },
		"base36":           func() string { return lot(r, lotLower+lotDigits, 8+r.IntN(30)) },
		"base32":           func() string { return lot(r, lotUpper+"234567", 26) },
		"typed id":         func() string { return "chatcmpl-" + lot(r, lotMixed, 29) },
		"pod": func() string {
			return "search-" + lot(r, "bcdfghjklmnpqrstvwxz2456789", 10) + "-" + lot(r, "bcdfghjklmnpqrstvwxz2456789", 5)
		},
		"W3C trace":       func() string { return "00-" + lot(r, lotHex, 32) + "-" + lot(r, lotHex, 16) + "-01" },
		"X-Ray trace":     func() string { return "Root=1-" + lot(r, lotHex, 8) + "-" + lot(r, lotHex, 24) },
		"AWS account":     func() string { return lot(r, lotDigits, 12) },
		"snowflake":       func() string { return strconv.FormatInt(1e18+r.Int64N(1e18), 10) },
		"milliseconds":    func() string { return strconv.FormatInt(1.5e12+r.Int64N(4e11), 10) },
		"microseconds":    func() string { return strconv.FormatInt(1.5e15+r.Int64N(4e14), 10) },
		"up to 13 digits": func() string { return strconv.FormatInt(r.Int64N(7e12), 10) },
		"build":           func() string { return fmt.Sprintf("2026%02d%02d-%04d", 1+r.IntN(12), 1+r.IntN(28), r.IntN(10_000)) },
		"order":           func() string { return fmt.Sprintf("%03d-%07d-%07d", r.IntN(1000), r.IntN(1e7), r.IntN(1e7)) },
		"address":         func() string { return fmt.Sprintf("%d.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(256)) },
	} {
		t.Run(name, func(t *testing.T) {
			source.Seed(1, 2)
			for range 10_000 {
				v := id()
				if got, found := Value(v); found {
					t.Fatalf("Value(%q) = %s, want no finding", v, got.Kind)
				}
			}
		})
	}
}

func TestMadeValuesAreFound(t *testing.T) {
	source := rand.NewPCG(3, 4)
	r := rand.New(source)
	b64 := lotMixed + "+/"
	url := lotMixed + "_-"
	for kind, value := range map[string]func() string{
		"card": func() string {
			issuer := [...]struct {
				prefix string
				n      int
			}{{"4", 16}, {"51", 16}, {"55", 16}, {"2221", 16}, {"2720", 16}, {"34", 15}, {"37", 15}, {"36", 14}, {"305", 14},
				{"6011", 16}, {"65", 16}, {"3528", 16}, {"3589", 16}, {"62", 16}, {"6217", 19}, {"6304", 16}, {"9792", 16}}[r.IntN(17)]
			d := issuer.prefix + lot(r, lotDigits, issuer.n-len(issuer.prefix)-1)
			for c := byte('0'); ; c++ {
				if luhnText(d + string(c)) {
					d += string(c)
					break
				}
			}
			if issuer.n == 16 && r.IntN(2) == 0 {
				sep := [...]string{" ", "-"}[r.IntN(2)]
				d = d[:4] + sep + d[4:8] + sep + d[8:12] + sep + d[12:]
			}
			return d
		},
		"iban": func() string {
			form := [...]string{"DE" + "n18", "GBa4n14", "FRn10c11n2", "NLa4n10", "ESn20", "ITa1n10c12", "BEn12", "NOn11", "MTa4n5c18", "SAn2c18", "BRn23a1c1"}[r.IntN(11)]
			country, bban := form[:2], ""
			for form = form[2:]; form != ""; {
				end := 1
				for end < len(form) && form[end] <= '9' {
					end++
				}
				n, _ := strconv.Atoi(form[1:end])
				bban += lot(r, map[byte]string{'n': lotDigits, 'a': lotUpper, 'c': lotUpper + lotDigits}[form[0]], n)
				form = form[end:]
			}
			v := fmt.Sprintf("%s%02d%s", country, 98-ibanRemainder(bban+country+"00"), bban)
			switch r.IntN(3) {
			case 0:
				v = strings.ToLower(v)
			case 1:
				for i := len(v) - (len(v)-1)%4 - 1; i > 0; i -= 4 {
					v = v[:i] + " " + v[i:]
				}
			}
			return v
		},
		"email": func() string {
			return lot(r, lotLower+"._", 1+r.IntN(12)) + lot(r, lotLower+lotDigits, 1) + [...]string{"@", "%40", "%2540"}[r.IntN(3)] +
				lot(r, lotLower, 2+r.IntN(10)) + [...]string{".com", ".co.uk", ".de", ".example", ".io"}[r.IntN(5)]
		},
		"phone": func() string {
			return "+" + [...]string{"1 2%s 5%s-%s", "44 20 %s %s %s", "49 30 %s%s%s", "33 1 %s %s %s", "61 4%s %s%s"}[r.IntN(5)]
		},
		"us_ssn": func() string {
			return fmt.Sprintf("%03d-%02d-%04d", 1+r.IntN(665), 1+r.IntN(99), 1+r.IntN(9999))
		},
		"aws_access_key": func() string {
			return [...]string{"AK", "AS"}[r.IntN(2)] + "IA" + lot(r, "IJQRSTUVWXYZ", 1) + lot(r, lotUpper+"234567", 15)
		},
		"bedrock_api_key":   func() string { return "ABSK" + lot(r, b64, 120) },
		"waybill_key":       func() string { return "wbk_" + lot(r, lotHex, 16) + "_" + lot(r, url, 43) },
		"github_token":      func() string { return "ghp_" + lot(r, lotMixed, 36) },
		"gitlab_token":      func() string { return "glpat-" + lot(r, url, 20) },
		"huggingface_token": func() string { return "hf_" + lot(r, lotLower+lotUpper, 34) },
		"anthropic_key":     func() string { return "sk-ant-api03-" + lot(r, url, 95) },
		"openai_key":        func() string { return "sk-" + lot(r, lotMixed, 48) },
		"google_api_key":    func() string { return "AIza" + lot(r, url, 35) },
		"npm_token":         func() string { return "npm_" + lot(r, lotMixed, 36) },
		"stripe_key":        func() string { return "sk_" + "live_" + lot(r, lotMixed, 24) },
		"sendgrid_key":      func() string { return "SG." + lot(r, url, 22) + "." + lot(r, url, 43) },
		"jwt": func() string {
			return "eyJ" + lot(r, url, 30+r.IntN(100)) + ".eyJ" + lot(r, url, 10+r.IntN(100)) + "." + lot(r, url, 43)
		},
		"fr_nir": func() string {
			n := fmt.Sprintf("%d%02d%02d%02d%06d", 1+r.IntN(2), r.IntN(100), 1+r.IntN(12), 1+r.IntN(95), r.IntN(1e6))
			i, _ := strconv.Atoi(n)
			return fmt.Sprintf("%s%02d", n, 97-i%97)
		},
		"in_pan": func() string {
			return lot(r, lotUpper, 3) + "P" + lot(r, lotUpper, 1) + lot(r, lotDigits, 4) + lot(r, lotUpper, 1)
		},
		"es_dni": func() string {
			n := 20_991_232 + r.IntN(70_000_000)
			return fmt.Sprintf("%08d%c", n, "TRWAGMYFPDXBNJZSQVHLCKE"[n%23])
		},
	} {
		t.Run(kind, func(t *testing.T) {
			source.Seed(3, 4)
			for range 10_000 {
				v := value()
				if kind == "phone" {
					v = fmt.Sprintf(v, lot(r, "2345678", 2), lot(r, "2345678", 2), lot(r, lotDigits, 4))
				}
				if got, _ := Value(v); got.Kind != kind {
					t.Fatalf("Value(%q) = %q, want %q", v, got.Kind, kind)
				}
			}
		})
	}
	// These have nothing but chance to go by.
	for kind, value := range map[string]func() string{
		"aws_secret_key": func() string { return lot(r, b64, 40) },
		"high_entropy":   func() string { return lot(r, url, 43) },
	} {
		t.Run(kind, func(t *testing.T) {
			source.Seed(5, 6)
			missed := 0
			for range 10_000 {
				if _, found := Value(value()); !found {
					missed++
				}
			}
			if missed > 100 {
				t.Errorf("%d of 10,000 pass, want one in a hundred at most", missed)
			}
			t.Logf("%d of 10,000 pass", missed)
		})
	}
}

func luhnText(s string) bool {
	sum := 0
	for i := range len(s) {
		c := int(s[len(s)-1-i] - '0')
		if i%2 == 1 {
			c = c/5 + c*2%10
		}
		sum += c
	}
	return sum%10 == 0
}

func ibanRemainder(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c <= '9' {
			n = (n*10 + int(c-'0')) % 97
		} else {
			n = (n*100 + int(c-'A') + 10) % 97
		}
	}
	return n
}

// The request path screens each value of each call.
func TestDoesNotAllocate(t *testing.T) {
	values := slices.DeleteFunc(screenLines(t, "ordinary.txt"), func(v string) bool {
		return strings.ContainsAny(v, "%") || strings.IndexFunc(v, func(r rune) bool { return r >= 0x80 }) >= 0
	})
	if n := testing.AllocsPerRun(1, func() {
		for _, v := range values {
			Value(v)
		}
	}); n != 0 {
		t.Errorf("screening %d ordinary values allocates %v times", len(values), n)
	}
}

// BenchmarkHard shows that nothing in a value makes its screening cost more than
// its length: the bytes a second of each pair are about the same, where something
// quadratic would be sixteen times slower in the longer.
func BenchmarkHard(b *testing.B) {
	for name, piece := range map[string]string{
		"marks": "sk-ant-", "one letter": "a", "at signs": "a@", "domains": "a@b.", "dots": ".", "groups of digits": "1 ", "cards": "4111 ",
		"tokens": "eyJ-", "schemes": "a://", "users": "a://b:", "labels": "password=", "percents": "%25", "opening": "(202) ", "plus": "+1",
		"bearers": "bearer ", "basics": "basic ", "armour": "--begin ", "labelled": "ssn ", "base64": "Zm9v", "mixed": "aB3-", "ibans": "DE89 3704 ",
		"underscores": "wbk_", "tildes": "1Q~", "otp": "otpauth://", "dates": "dob 1", "non-breaking blanks": "\u00a0", "ids": "AB 12 34 ",
	} {
		for _, n := range []int{4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%dKB", name, n>>10), func(b *testing.B) {
				v := strings.Repeat(piece, n/len(piece)+1)[:n]
				b.SetBytes(int64(n))
				for b.Loop() {
					Value(v)
				}
			})
		}
	}
}

func FuzzValue(f *testing.F) {
	for _, v := range screenLines(f, "ordinary.txt") {
		if len(v)%7 == 0 {
			f.Add(v)
		}
	}
	for _, s := range sensitiveSamples(f) {
		f.Add(s.value)
	}
	names := ""
	for _, k := range Kinds() {
		names += k.Kind + "\n" + k.Name + "\n"
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, found := Value(v)
		if found != (got.Kind != "") || found != (got.Name != "") {
			t.Fatalf("Value(%q) = %+v, %v", v, got, found)
		}
		if !found {
			return
		}
		if _, inText := Value("x " + v + " y"); !inText {
			t.Errorf("Value(%q) = %s, and with text around it nothing", v, got.Kind)
		}
		for _, said := range []string{got.Kind, got.Name} {
			for i := range max(0, len(v)-3) {
				if strings.Contains(said, v[i:i+4]) && !strings.Contains(names, v[i:i+4]) {
					t.Errorf("the finding %q repeats a piece of the value", said)
				}
			}
		}
	})
}

func BenchmarkOrdinary(b *testing.B) {
	values := screenLines(b, "ordinary.txt")
	total := 0
	for _, v := range values {
		total += len(v)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Value(values[i%len(values)])
	}
	b.ReportMetric(float64(total)/float64(len(values)), "bytes/value")
}

func BenchmarkTwenty(b *testing.B) {
	for name, v := range map[string]string{"words": "search-team-europe-1", "digits": "INV-2026-0001-004711", "hash": "a94a8fe5ccb19ba61c4c", "ARN": "arn:aws:iam::111122223333:role/search"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Value(v)
			}
		})
	}
}

func BenchmarkLong(b *testing.B) {
	v := strings.Repeat("Search team, order 4711 of 2026-01-15: a94a8fe5. ", 100)[:4096]
	b.SetBytes(int64(len(v)))
	b.ReportAllocs()
	for b.Loop() {
		Value(v)
	}
}
