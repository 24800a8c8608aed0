// Package screen knows what personal data and secrets look like: e-mail addresses, phone
// numbers, national ids, cards, keys and tokens of providers, private keys, random strings.
// It is pure, and a finding never holds a part of the value.
package screen

import "strings"

// A Finding names what a value seems to be. It never holds the value or a part of it,
// so it may be logged, counted and sent back to the caller.
type Finding struct {
	Kind string // stable code, e.g. "email"
	Name string // for people, e.g. "an e-mail address"
}

// Value says whether a value looks like personal data or a secret. Tag values end up
// in bills, logs and reports that many people read and that nobody can take back.
//
// It looks for what slips in by accident, not for what somebody hides: an address
// pasted with its name, a key copied with its quotes, a card number with blanks, any of
// these percent-encoded, in capitals, or with the blanks and dashes of a word processor.
// What has a checksum is checked. A form that ordinary codes take too is no finding; the
// comments at the checks say what is left out for that reason.
//
// The work is linear in the length of the value. An ordinary value allocates nothing.
func Value(value string) (Finding, bool) {
	k, seen := screen(value)
	// More than once, since what was encoded is often encoded again on its way. A long
	// random string may be a key we know once it is decoded.
	for range 4 {
		if k != kindNone && k != kindHighEntropy || seen&(chPercent|chHigh) == 0 {
			break
		}
		plain, changed := plainText(value)
		if !changed {
			break
		}
		value = plain
		var again findingKind
		if again, seen = screen(value); again != kindNone {
			k = again
		}
	}
	if k == kindNone {
		return Finding{}, false
	}
	return findingKinds[k], true
}

// Kinds lists every kind Screen can find, for documentation.
func Kinds() []Finding {
	return append([]Finding(nil), findingKinds[kindNone+1:]...)
}

// Classes of bytes. An alphabet is a sum of classes.
const (
	chDigit uint16 = 1 << iota
	chLower
	chUpper
	chHex // a letter that is a hexadecimal digit, in either case
	chUnderDash
	chPlus
	chSlash
	chDot
	chAt
	chAssign // = and :
	chPercent
	chHigh  // not ASCII
	chParen // the opening one
	chTilde
	chBlank
)

const (
	chLetter  = chLower | chUpper
	chAlnum   = chDigit | chLetter
	chAnyHex  = chDigit | chHex
	chWord    = chAlnum | chUnderDash // also the alphabet of base64url
	chBase64  = chAlnum | chPlus | chSlash
	chOpaque  = chBase64 | chUnderDash
	chDotted  = chWord | chDot
	chHexDash = chAnyHex | chUnderDash
)

var byteClasses = func() (t [256]uint16) {
	for c := range t {
		switch {
		case c >= 0x80:
			t[c] = chHigh
		case c >= '0' && c <= '9':
			t[c] = chDigit
		case c >= 'a' && c <= 'z':
			t[c] = chLower
		case c >= 'A' && c <= 'Z':
			t[c] = chUpper
		}
		if c|0x20 >= 'a' && c|0x20 <= 'f' && c < 0x80 {
			t[c] |= chHex
		}
	}
	t['_'], t['-'] = chUnderDash, chUnderDash
	t['+'], t['/'], t['.'], t['@'] = chPlus, chSlash, chDot, chAt
	t['='], t[':'] = chAssign, chAssign
	t['%'], t['('], t['~'] = chPercent, chParen, chTilde
	t[' '], t['\t'], t['\n'], t['\r'] = chBlank, chBlank, chBlank, chBlank
	return t
}()

// byteIs reports whether the byte at i exists and is of one of the classes.
func byteIs(v string, i int, class uint16) bool {
	return uint(i) < uint(len(v)) && byteClasses[v[i]]&class != 0
}

// runEnd is where the run of bytes of an alphabet that begins at i ends.
func runEnd(v string, i int, alphabet uint16) int {
	for i < len(v) && byteClasses[v[i]]&alphabet != 0 {
		i++
	}
	return i
}

func lowerByte(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// hasFold reports whether v has prefix at i, in any case. The prefix is in lower case.
func hasFold(v string, i int, prefix string) bool {
	if i < 0 || len(v)-i < len(prefix) {
		return false
	}
	for j := range len(prefix) {
		if lowerByte(v[i+j]) != prefix[j] {
			return false
		}
	}
	return true
}

// endsFold reports whether v[:end] ends in suffix, in any case.
func endsFold(v string, end int, suffix string) bool {
	return hasFold(v, end-len(suffix), suffix)
}

// screen looks at a value as it stands: once over all bytes, then at what they make
// possible. It returns what classes of bytes it saw.
func screen(v string) (findingKind, uint16) {
	var seen, prev uint16
	digits, barren := 0, 0
	announced := kindNone // a bearer token of unknown make
	for i := 0; i < len(v); i++ {
		c := byteClasses[v[i]]
		seen |= c
		digits += int(c & chDigit)
		// Keys with a known beginning, and words that announce something, start a word.
		if c&chAlnum != 0 && prev&chAlnum == 0 && i+1 < len(v) {
			if at := markIndex[markHash(v[i], v[i+1])]; at != 0 {
				switch k := matchMarks(v, i, int(at)-1, &barren); k {
				case kindNone:
				case kindBearer:
					announced = k
				default:
					return k, seen
				}
			}
		}
		prev = c
	}
	if seen&chTilde != 0 {
		if k := screenAzure(v); k != kindNone {
			return k, seen
		}
	}
	if announced != kindNone {
		return announced, seen
	}
	if seen&chAssign != 0 {
		if k := screenLabels(v, seen); k != kindNone {
			return k, seen
		}
	}
	if seen&chAt != 0 {
		if k := screenEmail(v); k != kindNone {
			return k, seen
		}
	}
	if digits >= 4 {
		if k := screenCodes(v, digits); k != kindNone {
			return k, seen
		}
		if digits >= 8 && seen&(chPlus|chParen) != 0 {
			if k := screenPhone(v); k != kindNone {
				return k, seen
			}
		}
	}
	if len(v) >= opaqueLength && seen&chLower != 0 && seen&chUpper != 0 {
		return screenOpaque(v), seen
	}
	return kindNone, seen
}

// plainText undoes what a way to us may have done to a value: percent-encoding, and the
// blanks, dashes and wide letters that programs for people put in place of ASCII.
func plainText(v string) (string, bool) {
	var out []byte
	done := 0 // what of v is in out
	for i := 0; i < len(v); {
		put, width := "", 0
		var one [1]byte
		switch c := v[i]; {
		case c == '%' && byteIs(v, i+1, chAnyHex) && byteIs(v, i+2, chAnyHex):
			one[0] = unhex(v[i+1])<<4 | unhex(v[i+2])
			put, width = string(one[:]), 3
		case c >= 0x80:
			put, width = plainRune(v[i:])
		}
		if width == 0 {
			i++
			continue
		}
		if out == nil {
			out = make([]byte, 0, len(v))
		}
		out = append(append(out, v[done:i]...), put...)
		i += width
		done = i
	}
	if out == nil {
		return v, false
	}
	return string(append(out, v[done:]...)), true
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// plainRune is the ASCII text that the character at the start of v stands for, and how
// many bytes that character has: 0 if it stands for itself.
func plainRune(v string) (string, int) {
	switch {
	case strings.HasPrefix(v, "\u00a0"):
		return " ", 2
	case strings.HasPrefix(v, "\u00ad"): // soft hyphen
		return "", 2
	case len(v) < 3:
		return "", 0
	}
	switch r := rune(v[0]&0x0f)<<12 | rune(v[1]&0x3f)<<6 | rune(v[2]&0x3f); {
	case v[0]&0xf0 != 0xe0 || v[1]&0xc0 != 0x80 || v[2]&0xc0 != 0x80:
		return "", 0
	case r >= 0x2000 && r <= 0x200a, r == 0x202f, r == 0x205f, r == 0x3000:
		return " ", 3
	case r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r == 0x2060, r >= 0x2066 && r <= 0x2069, r == 0xfeff: // no width
		return "", 3
	case r >= 0x2010 && r <= 0x2015, r == 0x2212:
		return "-", 3
	case r >= 0xff01 && r <= 0xff5e: // full width
		return asciiText[r-0xff01 : r-0xff00], 3
	}
	return "", 0
}

const asciiText = "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"

// screenEmail finds an address of a person: something before the @, and a domain that
// can be one after it. Not taken for an address: what has no dot after the @ (user@host,
// an ssh target), npm's @scope/package, a decorator, package@version, image@2x.png,
// git@host:path, a machine's own account in a private network, a service account of GCP.
func screenEmail(v string) findingKind {
	for i := 1; i < len(v); i++ {
		if v[i] == '@' && byteIs(v, i-1, chWord|chPlus|chDot|chHigh) && domainAt(v, i+1) > 0 && !machineAccount(v, i) {
			return kindEmail
		}
	}
	return kindNone
}

// domainAt is where a domain name that may take mail, beginning at i, ends; 0 if there
// is none.
func domainAt(v string, i int) int {
	end, longest := i, min(len(v), i+255)
	for end < longest && (byteClasses[v[end]]&(chAlnum|chDot|chHigh) != 0 || v[end] == '-') {
		end++
	}
	for end > i && (v[end-1] == '.' || v[end-1] == '-') { // the full stop of a sentence
		end--
	}
	dot := strings.LastIndexByte(v[i:end], '.')
	if dot <= 0 {
		return 0
	}
	dot += i
	if v[i] == '-' || v[dot-1] == '-' || v[dot-1] == '.' {
		return 0
	}
	top := v[dot+1 : end]
	for j := range len(top) {
		if byteClasses[top[j]]&(chLetter|chHigh) == 0 && !hasFold(top, 0, "xn--") {
			return 0
		}
	}
	switch {
	case len(top) < 2 || len(top) > 63:
		return 0
	case len(top) == 2 && byteClasses[top[0]]&byteClasses[top[1]]&chHigh == 0 && !inPairs(countryDomains[:], top[0], top[1]):
		return 0
	}
	second := strings.LastIndexByte(v[i:dot], '.') + 1 + i
	if versionLike(v[second:dot]) {
		// 163.com is a domain, 1.0.beta a version, 2x.png half a file's name.
		if !inWords(commonDomains, top) {
			return 0
		}
	} else if inWords(fileEndings, top) {
		return 0
	}
	return end
}

// inWords reports whether a list of words, with a blank behind each, has the word in any
// case.
func inWords(list, word string) bool {
	if len(word) > 16 {
		return false
	}
	for at := 0; at < len(list); {
		next := at + strings.IndexByte(list[at:], ' ')
		if next-at == len(word) && hasFold(word, 0, list[at:next]) {
			return true
		}
		at = next + 1
	}
	return false
}

const (
	commonDomains = "com net org edu gov int info biz de cn jp "
	fileEndings   = "png jpg jpeg gif svg webp avif pdf json yaml yml toml tar tgz txt csv xml html css whl jar war exe dll " +
		"dmg deb rpm log tmp bak sql parquet avro lock conf cfg ini proto wasm orc git "
	privateDomains  = "internal local localdomain lan svc cluster corp home arpa amazonaws "
	machineAccounts = "root ubuntu ec2-user admin debian centos fedora rocky core hadoop postgres deploy jenkins ansible vagrant "
)

// versionLike reports whether a label is v1, 2, 2x and the like.
func versionLike(label string) bool {
	if hasFold(label, 0, "v") {
		label = label[1:]
	}
	digits := runEnd(label, 0, chDigit)
	return digits > 0 && (digits == len(label) || digits == len(label)-1 && lowerByte(label[digits]) == 'x')
}

// machineAccount reports whether the address around the @ at i names no person.
func machineAccount(v string, i int) bool {
	start := i
	for start > 0 && i-start < 64 && byteIs(v, start-1, chWord|chPlus|chDot) {
		start--
	}
	end := domainAt(v, i+1)
	user, domain := v[start:i], v[i+1:end]
	switch {
	case hasFold(user, 0, "git") && len(user) == 3:
		return true
	case endsFold(domain, len(domain), ".gserviceaccount.com"):
		return true
	case !inWords(machineAccounts, user):
		return false
	}
	if endsFold(domain, len(domain), ".amazonaws.com") {
		return true
	}
	return inWords(privateDomains, domain[strings.LastIndexByte(domain, '.')+1:])
}

// screenPhone finds telephone numbers that say so: with an international prefix, or in
// the North American form with parentheses. Digits alone are no number: order numbers,
// build numbers and times look the same. Neither is a + behind a letter or digit
// (1.2.3+20240115, an offset from UTC, base64).
func screenPhone(v string) findingKind {
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '+':
			if !byteIs(v, i-1, chAlnum|chPlus) && phoneAt(v, i+1) {
				return kindPhone
			}
		case '(':
			if northAmericanAt(v, i) {
				return kindPhone
			}
		}
	}
	return kindNone
}

// phoneAt reports whether a number as E.164 has them follows: a country code in use, 15
// digits at most, groups divided by blanks, dots, hyphens, slashes or parentheses.
func phoneAt(v string, i int) bool {
	var digits [15]byte
	n, between := 0, 0
	for ; i < len(v); i++ {
		c := v[i]
		switch {
		case byteClasses[c]&chDigit != 0:
			if n == len(digits) {
				return false
			}
			digits[n] = c - '0'
			n, between = n+1, 0
			// At the end of a group the number may be whole; what follows is text.
			if !byteIs(v, i+1, chDigit) && (!byteIs(v, i+1, chLetter|chHigh) || byteIs(v, i+1, chLetter) && v[i+1]|0x20 == 'x') && wholePhone(digits[:n]) {
				return true
			}
		case strings.IndexByte(" .-/()", c) >= 0 && n+between > 0 || n == 0 && c == '(':
			if between++; between > 2 {
				return false
			}
		default:
			return false
		}
	}
	return false
}

func wholePhone(d []byte) bool {
	if len(d) < 8 {
		return false
	}
	switch two := d[0]*10 + d[1]; {
	case d[0] == 0:
		return false
	case d[0] == 1:
		return len(d) == 11 && d[1] >= 2
	case d[0] == 7:
		return len(d) == 11 && d[1] >= 3
	case two == 20: // Egypt; shorter ones are dates
		return len(d) == 11 || len(d) == 12 && d[2] == 1
	case two == 27, two >= 30 && two <= 34, two == 36, two >= 39 && two <= 41, two >= 43 && two <= 49,
		two >= 51 && two <= 58, two >= 60 && two <= 66, two == 81, two == 82, two == 84, two == 86,
		two >= 90 && two <= 95, two == 98:
		return len(d) >= 9
	case two == 28, two == 83, two == 89:
		return false
	}
	return true // the codes of three digits, which small countries have
}

// northAmericanAt reports whether (202) 555-0123 or the like stands at i.
func northAmericanAt(v string, i int) bool {
	if !byteIs(v, i+1, chDigit) || runEnd(v, i+1, chDigit) != i+4 || i+5 >= len(v) || v[i+4] != ')' || v[i+1] < '2' {
		return false
	}
	i += 5
	if strings.IndexByte(" -.", v[i]) >= 0 {
		i++
	}
	if runEnd(v, i, chDigit) != i+3 || i+3 >= len(v) || strings.IndexByte(" -.", v[i+3]) < 0 {
		return false
	}
	return runEnd(v, i+4, chDigit) == i+8 && !byteIs(v, i+8, chAlnum)
}

// screenLabels looks at what stands before and after each = and : for what announces a
// secret (password=...), and for URLs with a password.
func screenLabels(v string, seen uint16) findingKind {
	for i := 1; i < len(v)-1; i++ {
		if v[i] == ':' {
			if v[i+1] == '/' && seen&chAt != 0 && urlPassword(v, i) {
				return kindURLCredentials
			}
			if v[i+1] == 'A' && telegramAt(v, i) {
				return kindTelegramToken
			}
		} else if v[i] != '=' {
			continue
		}
		if k := labelAt(v, i); k != kindNone {
			return k
		}
	}
	return kindNone
}

// urlPassword reports whether scheme://user:password@host has its :// at i.
func urlPassword(v string, i int) bool {
	if i+3 >= len(v) || v[i+2] != '/' || !byteIs(v, i-1, chAlnum) {
		return false
	}
	start := i + 3
	end := start
	colon, at := -1, -1
	for ; end < len(v) && strings.IndexByte("/?# \t\n\"'<>", v[end]) < 0; end++ {
		switch {
		case v[end] == ':' && colon < 0:
			colon = end
		case v[end] == '@':
			at = end
		}
	}
	return colon >= 0 && at > colon+1 && end > at+1 && !placeholderValue(v[colon+1:at])
}

func telegramAt(v string, i int) bool {
	start := i
	for i-start < 11 && byteIs(v, start-1, chDigit) {
		start--
	}
	return i-start >= 8 && i-start <= 10 && runEnd(v[:min(len(v), i+50)], i+1, chWord) >= i+35
}

// A label announces what the value behind it is.
type screenLabel struct {
	word  string // in lower case; a blank stands for one of blank, hyphen, underscore, or nothing
	whole bool   // with no letter before it
	kind  findingKind
	judge labelRule
}

// A labelRule says what the value behind a label must be.
type labelRule uint8

const (
	byLot       labelRule = iota // what no name is: secret=prod/db and token:input are names
	anyText                      // anything but a placeholder
	someMixture                  // letters and digits: pass=hunter2, but not pass=42
	phoneDigits                  // a telephone number
	longHex                      // 40 hexadecimal digits
	longBase64                   // 40 characters of base64, percent-encoded or not
)

// screenLabelsBy are the labels by their last letter.
var screenLabelsBy = func() (t [26][]screenLabel) {
	for _, l := range []screenLabel{
		{"password", false, kindPassword, anyText},
		{"passwd", false, kindPassword, anyText},
		{"pwd", false, kindPassword, anyText},
		{"passphrase", false, kindPassword, anyText},
		{"passcode", false, kindPassword, anyText},
		{"passwort", false, kindPassword, anyText},
		{"contrasena", false, kindPassword, anyText},
		{"senha", true, kindPassword, anyText},
		{"pass", true, kindPassword, someMixture},
		{"pw", true, kindPassword, someMixture},
		{"credentials", false, kindPassword, byLot},
		{"creds", true, kindPassword, byLot},
		{"account key", false, kindAzureStorageKey, byLot},
		{"shared access key", false, kindAzureStorageKey, byLot},
		{"api key", false, kindSecret, byLot},
		{"secret key", false, kindSecret, byLot},
		{"private key", false, kindSecret, byLot},
		{"access key", false, kindSecret, byLot},
		{"auth key", false, kindSecret, byLot},
		{"encryption key", false, kindSecret, byLot},
		{"signing key", false, kindSecret, byLot},
		{"master key", false, kindSecret, byLot},
		{"subscription key", false, kindSecret, byLot},
		{"ssh key", false, kindSecret, byLot},
		{"secret", false, kindSecret, byLot},
		{"token", false, kindSecret, byLot},
		{"authorization", false, kindSecret, byLot},
		{"amz-signature", false, kindSignedURL, longHex},
		{"goog-signature", false, kindSignedURL, longHex},
		{"sig", true, kindAzureSAS, longBase64},
		{"telephone", true, kindPhone, phoneDigits},
		{"phone", true, kindPhone, phoneDigits},
		{"mobile", true, kindPhone, phoneDigits},
		{"fax", true, kindPhone, phoneDigits},
		{"whatsapp", true, kindPhone, phoneDigits},
	} {
		last := l.word[len(l.word)-1] - 'a'
		t[last] = append(t[last], l)
	}
	return t
}()

// endsAt reports whether the label ends at end.
func (l *screenLabel) endsAt(v string, end int) bool {
	for j := len(l.word) - 1; j >= 0; j-- {
		switch {
		case l.word[j] == ' ':
			if byteIs(v, end-1, chUnderDash|chBlank) {
				end--
			}
		case end == 0 || lowerByte(v[end-1]) != l.word[j]:
			return false
		default:
			end--
		}
	}
	return !l.whole || !byteIs(v, end-1, chLetter)
}

// labelAt looks at the label before the = or : at i, and at the value behind it.
func labelAt(v string, i int) findingKind {
	end := i
	for end > 0 && i-end < 6 && strings.IndexByte(" \"'\\`?.:|]", v[end-1]) >= 0 { // also ?= and :=
		end--
	}
	if !byteIs(v, end-1, chLetter) {
		return kindNone
	}
	labels := screenLabelsBy[v[end-1]|0x20-'a']
	for j := range labels {
		if l := &labels[j]; l.endsAt(v, end) {
			if k := l.value(v, i); k != kindNone {
				return k
			}
		}
	}
	return kindNone
}

// value judges what stands behind the = or : at i.
func (l *screenLabel) value(v string, i int) findingKind {
	sep := v[i]
	start := i + 1
	switch l.judge {
	case phoneDigits:
		if labelledNumber(v, start) {
			return l.kind
		}
		return kindNone
	case longHex:
		return tokenValue(v, start, chAnyHex, 40, l.kind)
	case longBase64:
		return tokenValue(v, start, chBase64|chPercent, 40, l.kind)
	}
	for n := 0; n < 4 && start < len(v) && strings.IndexByte(" =>:\"'\\`", v[start]) >= 0; n++ {
		start++
	}
	end, longest := start, min(len(v), start+256)
	for end < longest && strings.IndexByte(" \t\n\"'`&;,)]}<>", v[end]) < 0 {
		end++
	}
	value := v[start:end]
	seen := seenIn(value)
	k := l.kind
	switch {
	case len(value) < 4 || placeholderValue(value) || value[0] == '/' || strings.Contains(value, "://"):
		return kindNone
	case l.judge == byLot && !drawnByLot(value), l.judge == someMixture && (seen&chLetter == 0 || seen&chDigit == 0):
		return kindNone
	case sep == ':' && inWords(passwordTopics, value):
		return kindNone
	case k == kindAzureStorageKey && runEnd(value, 0, chBase64) < 40:
		return kindSecret
	}
	return k
}

// tokenValue is k if at least n bytes of an alphabet follow i.
func tokenValue(v string, i int, alphabet uint16, n int, k findingKind) findingKind {
	if runEnd(v[:min(len(v), i+n)], i, alphabet) >= i+n {
		return k
	}
	return kindNone
}

// labelledNumber reports whether 7 to 15 digits follow, divided as telephone numbers are.
// Digits that begin with a year, or go on behind a dot, are a date or a version.
func labelledNumber(v string, i int) bool {
	for n := 0; n < 3 && i < len(v) && (v[i] == ' ' || v[i] == '"' || v[i] == '+' || v[i] == '/'); n++ {
		i++
	}
	if (hasFold(v, i, "19") || hasFold(v, i, "20")) && runEnd(v, i, chDigit) == i+4 {
		return false
	}
	n, between := 0, 0
	for ; i < len(v) && n <= 15; i++ {
		switch {
		case byteClasses[v[i]]&chDigit != 0:
			n, between = n+1, 0
			if n >= 7 && !byteIs(v, i+1, chAlnum|chHigh) && !(byteIs(v, i+1, chDot) && byteIs(v, i+2, chAlnum)) {
				return n <= 15
			}
		case strings.IndexByte(" .-/()", v[i]) >= 0 && between < 2:
			between++
		default:
			return false
		}
	}
	return false
}

// passwordTopics are what stands behind "password:" in the names of features.
const passwordTopics = "reset change changed forgot forgotten rotate rotation rotated update updated policy expiry expired recovery " +
	"check strength manager hash hashing hashed field form page flow service login auth required optional less screen validate sync "

// drawnByLot reports whether a labelled value is drawn by lot: a UUID, 32 characters as
// no words are, or a run of letters and digits in which they alternate, which is all of it
// or has 16. A shorter run among others is the hash at the end of a name.
func drawnByLot(value string) bool {
	whole := runEnd(value, 0, chOpaque|chAssign)
	if isUUID(value[:whole]) || whole >= opaqueLength && atOdds(value[:whole], 50) && !fewLetters(value[:whole]) {
		return true
	}
	for i := 0; i < len(value); {
		end := runEnd(value, i, chAlnum)
		if run := value[i:end]; len(run) >= 16 || len(run) >= 8 && len(run) >= len(strings.TrimRight(value, "=")) {
			if (alternates(run) || len(run) >= 16 && atOdds(run, 50)) && !fewLetters(run) {
				return true
			}
		}
		i = max(end, i+1)
	}
	return false
}

// isUUID reports whether a text is a UUID.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		want := chAnyHex
		if i == 8 || i == 13 || i == 18 || i == 23 {
			want = chUnderDash
		}
		if !byteIs(s, i, want) {
			return false
		}
	}
	return true
}

// alternates reports whether letters and digits change places three times or more.
func alternates(s string) bool {
	n := 0
	for i := 1; i < len(s); i++ {
		if (byteClasses[s[i]]^byteClasses[s[i-1]])&chDigit != 0 {
			n++
		}
	}
	return n >= 3
}

// placeholderValue reports whether a value stands for a secret without being one.
func placeholderValue(s string) bool {
	if s == "" || strings.IndexByte("*$<{%[(", s[0]) >= 0 {
		return true
	}
	same := true
	for i := 1; i < len(s) && same; i++ {
		same = s[i] == s[0]
	}
	return same && len(s) > 1 || inWords("none null nil true false yes no unset empty hidden redacted masked removed required optional changeme placeholder undefined xxx todo ", s)
}

// screenAzure finds the client secrets of Microsoft's identity platform, whose mark is
// a digit and Q~ behind three characters.
func screenAzure(v string) findingKind {
	for i := 5; i < len(v); i++ {
		if v[i] == '~' && v[i-1] == 'Q' && byteIs(v, i-2, chDigit) && runEnd(v, i-5, chDotted|chTilde) > i &&
			runEnd(v[:min(len(v), i+40)], i+1, chDotted|chTilde) >= i+30 {
			return kindAzureClientSecret
		}
	}
	return kindNone
}

// opaqueLength is the shortest text that is a finding for being drawn by lot alone. All
// ordinary ids that mix upper and lower case are shorter: nanoid has 21 characters,
// Stripe's and Anthropic's ids 24 behind their prefix, KSUID 27, Firebase 28, OpenAI's 29.
// Keys without a prefix of their own have 32 and more. Ids in one case (hashes, UUID,
// ULID, base36, base32) are ordinary at any length, so a hexadecimal key is found only
// behind a label. Not told apart from keys: ids of files in Google Drive, version ids of S3.
const opaqueLength = 32

// screenOpaque finds long runs of mixed letters that no person made up: AWS's secret
// keys, which are 40 characters of base64, and keys of unknown make.
func screenOpaque(v string) findingKind {
	for i := 0; i < len(v); {
		end := runEnd(v, i, chOpaque)
		if run := v[i:end]; len(run) >= opaqueLength && !afterDigestName(v, i) {
			if len(run) == 40 && runEnd(run, 0, chBase64) == 40 && !(end < len(v) && v[end] == '=') && awsSecret(run) {
				return kindAWSSecretKey
			}
			if opaqueRun(run) {
				return kindHighEntropy
			}
		}
		i = max(end, i+1)
	}
	return kindNone
}

// awsSecret reports whether 40 characters of base64 are mixed by lot. Of AWS's own example
// the last ten are words; what has a + or / may be as plain as that.
func awsSecret(run string) bool {
	percent := 50
	if strings.ContainsAny(run, "+/") {
		percent = 43
	}
	return mixedByLot(run, percent)
}

// afterDigestName reports whether the run at i is announced as a hash in base64, as in SHA256:...
// of ssh, h1:... of go.sum, sha512-... of a lock file.
func afterDigestName(v string, i int) bool {
	return endsFold(v, i, "sha256:") || endsFold(v, i, "h1:") || hasFold(v, i, "sha256-") || hasFold(v, i, "sha384-") ||
		hasFold(v, i, "sha512-") || hasFold(v, i, "sha1-")
}

// opaqueRun reports whether a run has 32 characters in a row, words and numbers set
// aside, that are mixed as by lot.
func opaqueRun(run string) bool {
	start := 0 // of the characters in a row
	for i := 0; i <= len(run); {
		end := runEnd(run, i, chAlnum)
		if part := run[i:end]; len(part) >= 6 && oneCase(part) {
			if mixedByLot(run[start:i], 50) {
				return true
			}
			start = min(end+1, len(run))
		}
		i = end + 1
	}
	return mixedByLot(run[start:], 50)
}

// oneCase reports whether a part has letters of one case, the first aside: a word, a
// number, a hash.
func oneCase(s string) bool {
	var seen uint16
	for i := 1; i < len(s); i++ {
		seen |= byteClasses[s[i]]
	}
	return seen&chLower == 0 || seen&chUpper == 0 && byteClasses[s[0]]&(chDigit|seen) != 0 || seen&(chUpper|chDigit) == 0
}

// mixedByLot reports whether 32 characters or more have both cases, an eighth of each at
// least, are no text in base64, and are at odds with their neighbours in a share of pairs.
func mixedByLot(s string, percent int) bool {
	if len(s) < opaqueLength {
		return false
	}
	upper, lower := 0, 0
	for i := range len(s) {
		upper += int(byteClasses[s[i]] & chUpper / chUpper)
		lower += int(byteClasses[s[i]] & chLower / chLower)
	}
	return upper*8 >= len(s) && lower*8 >= len(s) && atOdds(s, percent) && !textInBase64(s)
}

// atOdds reports whether of all neighbours a share, in percent, are at odds: two letters
// that seldom meet in English, a capital inside a word, a letter at a digit. In names of
// 32 characters and more a fifth are, from camelCase to paths of files, and less than
// half in all that Go's sources and Google's and AWS's interfaces have (names of machine
// instructions aside). Of letters drawn by lot three quarters are, and in 995 of 1,000
// texts of 32 more than half.
func atOdds(s string, percent int) bool {
	odd, all := 0, 0
	for i := 1; i < len(s); i++ {
		a, b := byteClasses[s[i-1]], byteClasses[s[i]]
		if a&chAlnum == 0 || b&chAlnum == 0 {
			continue
		}
		all++
		if a&b&chDigit == 0 && ((a|b)&chDigit != 0 || a&chLower != 0 && b&chUpper != 0 || !inPairs(englishPairs[:], s[i-1], s[i])) {
			odd++
		}
	}
	return all > 0 && odd*100 >= all*percent
}

// inPairs reports whether two letters, in any case, are in a table of pairs.
func inPairs(table []uint32, a, b byte) bool {
	a, b = a|0x20-'a', b|0x20-'a'
	return a < 26 && b < 26 && table[a]&(1<<b) != 0
}

// textInBase64 reports whether a run is printable text in base64.
func textInBase64(run string) bool {
	var bits uint32
	n := 0
	for i := range len(run) {
		bits = bits<<6 | uint32(sixBits(run[i]))
		if n += 6; n >= 8 {
			n -= 8
			if b := byte(bits >> n); (b < ' ' || b > '~') && b != '\n' && b != '\t' {
				return false
			}
		}
	}
	return true
}

// sixBits is what a character of either base64 alphabet stands for.
func sixBits(c byte) byte {
	switch {
	case c >= 'A' && c <= 'Z':
		return c - 'A'
	case c >= 'a' && c <= 'z':
		return c - 'a' + 26
	case c >= '0' && c <= '9':
		return c - '0' + 52
	case c == '+' || c == '-':
		return 62
	}
	return 63
}
