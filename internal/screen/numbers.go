package screen

import "strings"

// screenCodes looks at every word with digits: cards, accounts, national numbers.
func screenCodes(v string, digits int) findingKind {
	for i := 0; i < len(v); {
		if byteClasses[v[i]]&chAlnum == 0 {
			i++
			continue
		}
		end := i
		var seen uint16
		for end < len(v) && byteClasses[v[end]]&chAlnum != 0 {
			seen |= byteClasses[v[end]]
			end++
		}
		k := kindNone
		if seen&chLetter == 0 {
			if digits >= 7 {
				k = numberAt(v, i, end)
			}
		} else {
			k = codeAt(v, i, end, seen)
		}
		if k != kindNone {
			return k
		}
		i = end
	}
	return kindNone
}

// digitGroups are the groups of digits that follow one another behind a blank, a hyphen or
// a dot each: as many as the longest number here has.
type digitGroups struct {
	n     int
	size  [8]uint8
	total [8]uint8 // digits up to and with the group
	sep   [8]byte  // before the group; the first has none
	d     [24]byte
}

func (g *digitGroups) read(v string, i int) {
	total := 0
	for g.n < len(g.size) {
		start := i
		for ; i < len(v) && byteClasses[v[i]]&chDigit != 0; i++ {
			if total == len(g.d) {
				return
			}
			g.d[total] = v[i] - '0'
			total++
		}
		if i == start || byteIs(v, i, chLetter) {
			return
		}
		g.size[g.n], g.total[g.n] = uint8(i-start), uint8(total)
		g.n++
		if g.n == len(g.size) || !byteIs(v, i+1, chDigit) || v[i] != ' ' && v[i] != '-' && v[i] != '.' {
			return
		}
		g.sep[g.n] = v[i]
		i++
	}
}

// digitsFrom counts the digits that read would read, up to nine.
func digitsFrom(v string, i int) int {
	n := 0
	for n < 9 && i < len(v) {
		switch c := v[i]; {
		case byteClasses[c]&chDigit != 0:
			n++
		case c != ' ' && c != '-' && c != '.' || !byteIs(v, i+1, chDigit):
			return n
		}
		i++
	}
	return n
}

// has reports whether the first groups have these sizes and separators, as in "3-2-4",
// and no further group is tied to them.
func (g *digitGroups) has(form string) bool {
	n := (len(form) + 1) / 2
	if g.n < n || !g.whole(n) {
		return false
	}
	for i := range n {
		if g.size[i] != form[2*i]-'0' || i > 0 && g.sep[i] != form[2*i-1] {
			return false
		}
	}
	return true
}

// whole reports whether the first n groups are a number of their own.
func (g *digitGroups) whole(n int) bool { return g.n == n || g.sep[n] == ' ' }

// likeCard reports whether the first n groups divide a card's number as people do: by
// four, as American Express does, or with blanks as it comes.
func (g *digitGroups) likeCard(n int) bool {
	if g.size[0] == 4 && g.size[1] == 6 && n == 3 {
		return true
	}
	four, blank := true, true
	for i := range n {
		four = four && (g.size[i] == 4 || i == n-1 && n > 3 && g.size[i] < 4)
		blank = blank && (i == 0 || g.sep[i] == ' ') && (g.size[i] >= 4 || i == n-1)
	}
	return four || blank
}

// numberAt judges the number that begins with the digits from i to end.
//
// Of bare digits only these are findings: cards, whose issuer, length and check digit
// leave a fortieth of all 16-digit numbers, and the numbers of France, China and
// Switzerland, which leave less than a thousandth of a length that hardly any other
// numbering uses. All others have 8 to 12 digits and at best one check digit; as many
// order numbers, accounts of AWS and times would be taken for one. They are found in the
// form people write them in, or behind their label. Left out altogether, for having no
// check digit and no form of their own: passports, driving licences, US bank accounts,
// Danish numbers without a label, Aadhaar in the form of an AWS account (1111-2222-3333).
func numberAt(v string, i, end int) findingKind {
	if i > 1 && (v[i-1] == '-' && byteIs(v, i-2, chDigit) || v[i-1] == '.' && byteIs(v, i-2, chAlnum)) {
		return kindNone // inside a longer number, a version, a name with dots
	}
	if size := end - i; size == 6 || size == 8 {
		if k := datedCode(v, i, end); k != kindNone {
			return k
		}
	}
	if digitsFrom(v, i) < 9 {
		return kindNone
	}
	var g digitGroups
	if g.read(v, i); g.n == 0 {
		return kindNone
	}
	d := g.d[:]
	if g.whole(1) {
		switch g.size[0] {
		case 13:
			if decimalOf(d[:3]) == 756 && ean13(d) {
				return kindCHAHV
			}
		case 15:
			if (d[0] == 1 || d[0] == 2) && nir(decimalOf(d[:13]), decimalOf(d[13:15])) {
				return kindFRNIR
			}
		case 18:
			if residentID(d, d[17]) {
				return kindCNResidentID
			}
		}
		if g.size[0] >= 14 && g.size[0] <= 19 && cardNumber(d[:g.size[0]], true) {
			return kindCard
		}
	}
	if g.n == 1 {
		return kindNone
	}
	if inRow(v, i) {
		return kindNone
	}
	for n := 1; n < g.n && g.total[n] <= 19; n++ {
		if g.total[n] >= 14 && g.whole(n+1) && g.likeCard(n+1) && cardNumber(d[:g.total[n]], false) {
			return kindCard
		}
	}
	return g.national()
}

// inRow reports whether a number of four digits stands before i: what begins within a row
// of such numbers is neither a card nor an Aadhaar.
func inRow(v string, i int) bool {
	return i >= 5 && v[i-1] == ' ' && hasShape(v[i-5:], "dddd") && !byteIs(v, i-6, chDigit)
}

// national judges groups by the form in which a country writes its numbers.
func (g *digitGroups) national() findingKind {
	d := g.d[:]
	switch g.size[0] {
	case 1:
		if (g.has("1 2 2 2 3 3 2") || g.has("1-2-2-2-3-3-2")) && d[0] <= 2 && nir(decimalOf(d[:13]), decimalOf(d[13:15])) {
			return kindFRNIR
		}
	case 2:
		if g.has("2 3 3 3") && steuerID(d[:11]) {
			return kindDESteuerID
		}
		if n, check := decimalOf(d[:9]), decimalOf(d[9:11]); g.has("2.2.2-3.2") && monthAndDay(decimalOf(d[2:4]), decimalOf(d[4:6])) &&
			(97-n%97 == check || 97-(2_000_000_000+n)%97 == check) { // born before 2000, or since
			return kindBENationalNumber
		}
	case 3:
		switch {
		case g.has("3-2-4") || g.has("3 2 4"):
			if ssnArea(d) {
				return kindUSSSN
			}
			if itin(d) {
				return kindUSITIN
			}
		case g.has("3.3.3-2") && cpf(d[:11]):
			return kindBRCPF
		case g.has("3 3 4") && nhs(d[:10]):
			return kindUKNHS
		case g.has("3.4.4.2") && decimalOf(d[:3]) == 756 && ean13(d):
			return kindCHAHV
		}
	case 4:
		if g.has("4 4 4") && d[0] >= 2 && verhoeff(d[:12]) {
			return kindINAadhaar
		}
	case 6:
		if g.has("6 5") && fodselsnummer(d[:11]) {
			return kindNOFodselsnummer
		}
		if g.has("6-7") && monthAndDay(decimalOf(d[2:4]), decimalOf(d[4:6])) && d[6] >= 1 && d[6] <= 8 && residentNumber(d) {
			return kindKRResidentNumber
		}
	case 8:
		// Builds are numbered like this as well, by the day; none before 2000.
		if g.has("8-4") && d[0] == 1 && d[1] == 9 && monthAndDay(decimalOf(d[4:6]), decimalOf(d[6:8])%60) && luhn(d[2:12]) {
			return kindSEPersonnummer
		}
	}
	return kindNone
}

// datedCode finds two numbers that end in a letter behind digits: Finland's 131052-308T,
// Spain's 12345678-Z.
func datedCode(v string, i, end int) findingKind {
	switch {
	case end-i == 6 && end+5 <= len(v) && (v[end] == '-' || v[end] == '+'):
		if runEnd(v, end+1, chAlnum) == end+5 && hetu(v[i:end+5]) {
			return kindFIHETU
		}
	case end-i == 8 && end+2 <= len(v) && (v[end] == '-' || v[end] == ' ') && byteIs(v, end+1, chUpper) && !byteIs(v, end+2, chAlnum):
		if dni(decimal(v[i:end]), v[end+1]) {
			return kindESDNI
		}
	}
	return kindNone
}

// codeAt judges a word of letters and digits. Where a code has no check digit, or one
// that leaves a twentieth, it must be in capitals: ids and hashes are in lower case.
func codeAt(v string, i, end int, seen uint16) findingKind {
	w := v[i:end]
	if seen&chDigit == 0 {
		switch {
		case len(w) == 2 && seen&chLower == 0 && end+9 <= len(v) && byteIs(v, end, chBlank|chUnderDash):
			return spacedNINO(v, i, end)
		case len(w) == 1 && seen&chLower == 0 && end+10 <= len(v) && v[end] == '-' && w[0] >= 'X' && w[0] <= 'Z':
			if runEnd(v, end+1, chDigit) == end+8 && v[end+8] == '-' && byteIs(v, end+9, chUpper) && !byteIs(v, end+10, chAlnum) &&
				dni(int(w[0]-'X')*10_000_000+decimal(v[end+1:end+8]), v[end+9]) {
				return kindESNIE
			}
		}
		return kindNone
	}
	if len(w) == 4 && len(v)-end >= 10 && hasShape(w, "aadd") && (v[end] == ' ' || v[end] == '-') {
		if ibanAt(v, i, end) {
			return kindIBAN
		}
	}
	if seen&chLower == 0 {
		switch len(w) {
		case 4:
			if end+9 <= len(v) && v[end] == '-' && medicare(v[i:end+9]) && !byteIs(v, end+9, chAlnum) {
				return kindUSMedicare
			}
		case 7, 8:
			if end+3 <= len(v) && v[end] == '(' && v[end+2] == ')' && hkid(w, v[end+1]) {
				return kindHKID
			}
		case 9:
			return nineAt(w)
		case 10:
			// The fourth letter says whose it is: P is a person.
			if hasShape(w, "aaaaadddda") && w[3] == 'P' {
				return kindINPAN
			}
		case 11:
			if hetu(w) {
				return kindFIHETU
			}
		case 15:
			if n, ok := corsica(w); ok && nir(n, decimal(w[13:15])) {
				return kindFRNIR
			}
		}
	}
	if len(w) < 15 {
		return kindNone
	}
	switch {
	case len(w) == 16 && codiceFiscale(w):
		return kindITCodiceFiscale
	case len(w) == 18 && curp(w):
		return kindMXCURP
	case len(w) == 18 && w[17]|0x20 == 'x' && runEnd(w, 0, chDigit) == 17:
		var d [17]byte
		for j := range d {
			d[j] = w[j] - '0'
		}
		if residentID(d[:], 10) {
			return kindCNResidentID
		}
	case len(w) == 32 && hasFold(v, end, "-us") && byteIs(v, end+3, chDigit) && runEnd(w, 0, chAnyHex) == 32: // Mailchimp
		return kindServiceToken
	}
	if len(w) <= 34 && hasShape(w[:4], "aadd") && ibanAt(v, i, end) {
		return kindIBAN
	}
	return kindNone
}

// nineAt judges a word of nine capitals and digits.
func nineAt(w string) findingKind {
	switch {
	case hasShape(w, "aadddddda"):
		if nino(w[:2], w[8]) {
			return kindUKNINO
		}
	case hasShape(w, "dddddddda"):
		// 20240115A is a revision of that day.
		if n := decimal(w[:8]); dni(n, w[8]) && !(n/1_000_000 >= 19 && n/1_000_000 <= 20 && monthAndDay(n/100%100, n%100)) {
			return kindESDNI
		}
	case hasShape(w, "addddddda"):
		if w[0] >= 'X' && w[0] <= 'Z' {
			if dni(int(w[0]-'X')*10_000_000+decimal(w[1:8]), w[8]) {
				return kindESNIE
			}
		} else if nric(w) {
			return kindSGNRIC
		}
	}
	return kindNone
}

// hasShape reports whether a word has letters at each a and digits at each d of a form.
func hasShape(w, form string) bool {
	for i := range len(form) {
		want := chLetter
		if form[i] == 'd' {
			want = chDigit
		}
		if !byteIs(w, i, want) {
			return false
		}
	}
	return len(w) >= len(form)
}

// decimal is the value of up to 15 digits.
func decimal(s string) int {
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}

// decimalOf is the value of up to 15 digits.
func decimalOf(d []byte) int {
	n := 0
	for _, c := range d {
		n = n*10 + int(c)
	}
	return n
}

func monthAndDay(m, d int) bool { return m >= 1 && m <= 12 && d >= 1 && d <= 31 }

func luhn(d []byte) bool {
	sum := 0
	for i, c := range d {
		if (len(d)-i)%2 == 0 {
			if c *= 2; c > 9 {
				c -= 9
			}
		}
		sum += int(c)
	}
	return sum%10 == 0
}

// cardNumber reports whether digits are the number of a card: an issuer's range, its lengths,
// Luhn's check digit. Visa's old 13 digits are left out, since EANs look like that. Of 19
// bare digits only UnionPay's debit cards are found, since ids of 64 bits have 19 as well.
func cardNumber(d []byte, bare bool) bool {
	n := len(d)
	two, four := int(d[0])*10+int(d[1]), decimalOf(d[:4])
	three, six := four/10, decimalOf(d[:6])
	issued := false
	switch {
	case d[0] == 4: // Visa
		issued = n == 16 || n == 19 && !bare
	case two >= 51 && two <= 55, four >= 2221 && four <= 2720: // Mastercard
		issued = n == 16
	case two == 34 || two == 37: // American Express
		issued = n == 15
	case three >= 300 && three <= 305, two == 36, two == 38, two == 39: // Diners
		issued = n == 14 || n == 16
	case six >= 622126 && six <= 622925, four == 6011, three >= 644 && three <= 649, two == 65, // Discover, RuPay
		four >= 3528 && four <= 3589,           // JCB
		four >= 2200 && four <= 2204,           // Mir
		four == 9792,                           // Troy
		two == 81 || two == 82 || three == 508: // RuPay
		issued = n == 16 || n == 19 && !bare
	case four == 5018, four == 5020, four == 5038, four == 5893, four == 6304, four == 6759, four >= 6761 && four <= 6763, // Maestro
		four == 5019, four == 5061, four == 6500, four == 6362, four == 6363: // Dankort, Verve, Elo
		issued = n == 16 || n == 18 || n == 19
	}
	if two == 62 { // UnionPay
		issued = n == 16 || n == 19 && (!bare || three >= 621 && three <= 623)
	}
	return issued && luhn(d)
}

// ibanForms are the countries' account numbers behind the check digits: digits (n),
// letters (a) or both (c), each with a count. From release 101 of SWIFT's registry.
const ibanForms = "AD=n8c12 AE=n19 AL=n8c16 AT=n16 AZ=a4c20 BA=n16 BE=n12 BG=a4n6c8 BH=a4c14 BI=n23 BR=n23a1c1 BY=c4n4c16 " +
	"CH=n5c12 CR=n18 CY=n8c16 CZ=n20 DE=n18 DJ=n23 DK=n14 DO=c4n20 EE=n16 EG=n25 ES=n20 FI=n14 FK=a2n12 FO=n14 " +
	"FR=n10c11n2 GB=a4n14 GE=a2n16 GI=a4c15 GL=n14 GR=n7c16 GT=c24 HN=a4n20 HR=n17 HU=n24 IE=a4n14 IL=n19 IQ=a4n15 " +
	"IS=n22 IT=a1n10c12 JO=a4n4c18 KW=a4c22 KZ=n3c13 LB=n4c20 LC=a4c24 LI=n5c12 LT=n16 LU=n3c13 LV=a4c13 LY=n21 " +
	"MC=n10c11n2 MD=c20 ME=n18 MK=n3c10n2 MN=n16 MR=n23 MT=a4n5c18 MU=a4n19a3 NI=a4n20 NL=a4n10 NO=n11 OM=n3c16 " +
	"PK=a4c16 PL=n24 PS=a4c21 PT=n21 QA=a4c21 RO=a4c16 RS=n18 RU=n14c15 SA=n2c18 SC=a4n20a3 SD=n14 SE=n20 SI=n15 " +
	"SK=n20 SM=a1n10c12 SO=n19 ST=n21 SV=a4n20 TL=n19 TN=n20 TR=n6c16 UA=n6c19 VA=n18 VG=a4n16 XK=n16 YE=a4n4c18 "

// ibanAt reports whether an IBAN begins at i. Its first word ends at end: either it is
// that word, or groups of four behind single blanks or hyphens.
func ibanAt(v string, i, end int) bool {
	at := strings.Index(ibanForms, string([]byte{v[i] &^ 0x20, v[i+1] &^ 0x20, '='}))
	if at < 0 {
		return false
	}
	at += 3
	rest, of := 0, byte(0) // how many are left of the current sort
	sum, group := 0, 4
	grouped := end == i+4
	for j := i + 4; ; j++ {
		if rest == 0 {
			if ibanForms[at] == ' ' { // all there
				if byteIs(v, j, chAlnum) {
					return false
				}
				break
			}
			of = ibanForms[at]
			for at++; ibanForms[at] >= '0' && ibanForms[at] <= '9'; at++ {
				rest = rest*10 + int(ibanForms[at]-'0')
			}
		}
		if grouped && group == 4 {
			if j >= len(v) || v[j] != ' ' && v[j] != '-' {
				return false
			}
			j++
			group = 0
		}
		if j >= len(v) {
			return false
		}
		c := byteClasses[v[j]]
		if c&chAlnum == 0 || of == 'n' && c&chDigit == 0 || of == 'a' && c&chLetter == 0 {
			return false
		}
		sum = mod97(sum, v[j])
		rest--
		group++
	}
	for _, c := range [...]byte{v[i], v[i+1], v[i+2], v[i+3]} {
		sum = mod97(sum, c)
	}
	return sum == 1
}

func mod97(sum int, c byte) int {
	if c <= '9' {
		return (sum*10 + int(c-'0')) % 97
	}
	return (sum*100 + int(c&^0x20-'A') + 10) % 97
}

// ssnArea reports whether nine digits can be a US social security number. The areas 000,
// 666 and 9xx, the group 00 and the serial 0000 are never given out.
func ssnArea(d []byte) bool {
	area := decimalOf(d[:3])
	return area != 0 && area != 666 && area < 900 && decimalOf(d[3:5]) != 0 && decimalOf(d[5:9]) != 0
}

// itin reports whether nine digits can be a US taxpayer number.
func itin(d []byte) bool {
	group := decimalOf(d[3:5])
	return d[0] == 9 && group >= 50 && group != 66 && group != 67 && group != 68 && group != 69 && group != 89 && group != 93
}

// medicare reports whether a text has the form 1EG4-TE5-MK73.
func medicare(s string) bool {
	for i := range len(s) {
		ok := false
		switch c := byteClasses[s[i]]; i {
		case 0:
			ok = c&chDigit != 0 && s[i] != '0'
		case 3, 7, 11, 12:
			ok = c&chDigit != 0
		case 1, 5, 9, 10:
			ok = c&chUpper != 0
		case 2, 6:
			ok = c&(chUpper|chDigit) != 0
		case 4, 8:
			ok = s[i] == '-'
		}
		// Letters that are mistaken for digits or for each other are not used.
		if !ok || strings.IndexByte("SLOIBZ", s[i]) >= 0 {
			return false
		}
	}
	return true
}

func cpf(d []byte) bool {
	same := true
	first, second := 0, 0
	for i := range 9 {
		same = same && d[i] == d[0]
		first += int(d[i]) * (10 - i)
		second += int(d[i]) * (11 - i)
	}
	a := first * 10 % 11 % 10
	return !same && a == int(d[9]) && (second+2*a)*10%11%10 == int(d[10])
}

func nhs(d []byte) bool {
	sum := 0
	for i := range 9 {
		sum += int(d[i]) * (10 - i)
	}
	return (11-sum%11)%11 == int(d[9])
}

func bsn(d []byte) bool {
	sum := -int(d[8])
	for i := range 8 {
		sum += int(d[i]) * (9 - i)
	}
	return sum%11 == 0 && decimalOf(d) > 0
}

func pesel(d []byte) bool {
	sum := 0
	for i := range 10 {
		sum += int(d[i]) * int("1379137913"[i]-'0')
	}
	return (10-sum%10)%10 == int(d[10]) && monthAndDay(decimalOf(d[2:4])%20, decimalOf(d[4:6]))
}

// steuerID checks ISO 7064's mod 11,10, and that of the first ten digits one is there
// twice or three times and no other twice.
func steuerID(d []byte) bool {
	var times [10]int
	check := 10
	for _, c := range d[:10] {
		times[c]++
		sum := (int(c) + check) % 10
		if sum == 0 {
			sum = 10
		}
		check = sum * 2 % 11
	}
	twice := 0
	for _, n := range times {
		if n > 3 {
			return false
		}
		if n > 1 {
			twice++
		}
	}
	return d[0] != 0 && twice == 1 && (11-check)%10 == int(d[10])
}

func fodselsnummer(d []byte) bool {
	first, second := 0, 0
	for i := range 9 {
		first += int(d[i]) * int("376189452"[i]-'0')
		second += int(d[i]) * int("543276543"[i]-'0')
	}
	a := (11 - first%11) % 11
	return monthAndDay(decimalOf(d[2:4]), decimalOf(d[:2])%40) && a == int(d[9]) && (11-(second+2*a)%11)%11 == int(d[10])
}

func ean13(d []byte) bool {
	sum := 0
	for i := range 13 {
		sum += int(d[i]) * (1 + i%2*2)
	}
	return sum%10 == 0
}

// residentNumber checks the last digit of Korea's.
func residentNumber(d []byte) bool {
	sum := 0
	for i := range 12 {
		sum += int(d[i]) * (2 + i%8)
	}
	return (11-sum%11)%10 == int(d[12])
}

// residentID checks the date and the last digit, which may be 10 (an X), of China's.
func residentID(d []byte, last byte) bool {
	if year := decimalOf(d[6:10]); year < 1900 || year > 2099 || d[0] == 0 || !monthAndDay(decimalOf(d[10:12]), decimalOf(d[12:14])) {
		return false
	}
	sum := int(last)
	weight := 2
	for i := 16; i >= 0; i-- {
		sum += int(d[i]) * weight
		weight = weight * 2 % 11
	}
	return sum%11 == 1
}

// nir checks a French number: 13 digits and the two behind them.
func nir(n, key int) bool {
	month, department := n/100_000_000%100, n/1_000_000%100
	return month >= 1 && month <= 12 && department >= 1 && department != 96 && 97-n%97 == key
}

// corsica reads the 13 digits of a French number whose department is 2A or 2B.
func corsica(w string) (int, bool) {
	if !hasShape(w, "ddddddaddddddd") || !byteIs(w, 14, chDigit) || w[0] != '1' && w[0] != '2' || w[5] != '2' || w[6] != 'A' && w[6] != 'B' {
		return 0, false
	}
	department := 19 // what 2A counts as
	if w[6] == 'B' {
		department = 18
	}
	return decimal(w[:5])*100_000_000 + department*1_000_000 + decimal(w[7:13]), true
}

// verhoeff checks with the table of the dihedral group, as Aadhaar does.
func verhoeff(d []byte) bool {
	const (
		product = "0123456789" + "1234067895" + "2340178956" + "3401289567" + "4012395678" + "5987604321" + "6598710432" + "7659821043" + "8765932104" + "9876543210"
		permute = "0123456789" + "1576283094" + "5803796142" + "8916043527" + "9453126870" + "4286573901" + "2793806415" + "7046913258"
	)
	c := 0
	for i := range d {
		digit := permute[i%8*10+int(d[len(d)-1-i])] - '0'
		c = int(product[c*10+int(digit)] - '0')
	}
	return c == 0
}

func dni(n int, letter byte) bool { return "TRWAGMYFPDXBNJZSQVHLCKE"[n%23] == letter }

// nino reports whether two letters may begin, and one end, a UK number.
func nino(two string, last byte) bool {
	return strings.IndexByte("DFIQUV", two[0]) < 0 && strings.IndexByte("DFIOQUV", two[1]) < 0 && last >= 'A' && last <= 'D' &&
		two != "BG" && two != "GB" && two != "KN" && two != "NK" && two != "NT" && two != "TN" && two != "ZZ"
}

// spacedNINO finds AB 12 34 56 C and AB 123456 C, with blanks or hyphens.
func spacedNINO(v string, i, end int) findingKind {
	n := 0
	j := end
	for j < len(v) && n < 6 {
		if (v[j] == ' ' || v[j] == '-') && n%2 == 0 {
			j++
		}
		if !byteIs(v, j, chDigit) || !byteIs(v, j+1, chDigit) {
			return kindNone
		}
		j, n = j+2, n+2
	}
	if j < len(v) && (v[j] == ' ' || v[j] == '-') {
		j++
	}
	if n == 6 && byteIs(v, j, chUpper) && !byteIs(v, j+1, chAlnum) && nino(v[i:end], v[j]) {
		return kindUKNINO
	}
	return kindNone
}

func nric(w string) bool {
	sum := 0
	for i := range 7 {
		sum += int(w[i+1]-'0') * int("2765432"[i]-'0')
	}
	switch w[0] {
	case 'S':
		return "JZIHGFEDCBA"[sum%11] == w[8]
	case 'T':
		return "JZIHGFEDCBA"[(sum+4)%11] == w[8]
	case 'F':
		return "XWUTRQPNMLK"[sum%11] == w[8]
	case 'G':
		return "XWUTRQPNMLK"[(sum+4)%11] == w[8]
	}
	return false
}

// hkid checks one or two letters and six digits against what stands in parentheses.
func hkid(w string, check byte) bool {
	letters := len(w) - 6
	if !hasShape(w, "aadddddd"[2-letters:]) {
		return false
	}
	sum := 36 * 9
	if letters == 2 {
		sum = int(w[0]-'A'+10) * 9
	}
	sum += int(w[letters-1]-'A'+10) * 8
	for i := range 6 {
		sum += int(w[letters+i]-'0') * (7 - i)
	}
	switch {
	case check >= '0' && check <= '9':
		sum += int(check - '0')
	case check == 'A':
		sum += 10
	default:
		return false
	}
	return sum%11 == 0
}

// hetu checks the 11 characters of a Finnish code.
func hetu(s string) bool {
	if !hasShape(s, "dddddd") || strings.IndexByte("-+ABCDEFUVWXY", s[6]) < 0 || !hasShape(s[7:], "ddd") ||
		!byteIs(s, 6, chLetter) && !byteIs(s, 10, chLetter) {
		return false // 240115-0012 is a build of that day
	}
	return monthAndDay(decimal(s[2:4]), decimal(s[:2])) && "0123456789ABCDEFHJKLMNPRSTUVWXY"[(decimal(s[:6])*1000+decimal(s[7:10]))%31] == s[10]
}

// codiceFiscale checks 16 characters, in any case. Digits that two people would share are
// replaced by letters; most stay digits.
func codiceFiscale(w string) bool {
	const odd = "\x01\x00\x05\x07\x09\x0d\x0f\x11\x13\x15\x02\x04\x12\x14\x0b\x03\x06\x08\x0c\x0e\x10\x0a\x16\x19\x18\x17"
	sum, digits := 0, 0
	var day [2]int
	for i := range 16 {
		c := w[i]
		n := 0
		if byteClasses[c]&chDigit != 0 {
			n = int(c - '0')
			digits++
		} else {
			c &^= 0x20
			n = int(c - 'A')
		}
		switch i {
		case 6, 7, 9, 10, 12, 13, 14:
			d := n
			if byteClasses[c]&chDigit == 0 {
				if d = strings.IndexByte("LMNPQRSTUV", c); d < 0 {
					return false
				}
			}
			if i == 9 || i == 10 {
				day[i-9] = d
			}
		default:
			if byteClasses[c]&chDigit != 0 || i == 8 && strings.IndexByte("ABCDEHLMPRST", c) < 0 {
				return false
			}
		}
		switch {
		case i == 15:
			return digits >= 3 && sum%26 == n && monthAndDay(1, (day[0]*10+day[1])%40)
		case i%2 == 0:
			sum += int(odd[n])
		default:
			sum += n
		}
	}
	return false
}

// curp checks 18 characters, in any case.
func curp(w string) bool {
	if !hasShape(w, "aaaaddddddaaaaaa") || !byteIs(w, 17, chDigit) || !monthAndDay(decimal(w[6:8]), decimal(w[8:10])) || w[10]|0x20 != 'h' && w[10]|0x20 != 'm' {
		return false
	}
	sum := 0
	for i := range 17 {
		n := 0
		if c := w[i]; c <= '9' {
			n = int(c - '0')
		} else if n = int(c&^0x20-'A') + 10; n > 23 { // Ñ has a place
			n++
		}
		sum += n * (18 - i)
	}
	return (10-sum%10)%10 == int(w[17]-'0')
}

// birthDateAt reports whether a whole date follows, as 1980-01-31, 31.01.1980,
// 1/31/1980 or 19800131.
func birthDateAt(v string, i int) bool {
	for n := 0; n < 4 && i < len(v) && strings.IndexByte(" :=\"'-_", v[i]) >= 0; n++ {
		i++
	}
	var part, size [3]int
	n := 0
	for n < 3 {
		end := runEnd(v[:min(len(v), i+8)], i, chDigit)
		if end == i {
			return false
		}
		part[n], size[n] = decimal(v[i:end]), end-i
		n++
		if i = end; n == 3 || size[0] == 8 || i+1 >= len(v) || strings.IndexByte("-./ ", v[i]) < 0 {
			break
		}
		i++
	}
	year, a, b := 0, 0, 0
	switch {
	case byteIs(v, i, chAlnum):
		return false
	case n == 1 && size[0] == 8:
		year, a, b = part[0]/10_000, part[0]/100%100, part[0]%100
	case n == 3 && size[0] == 4:
		year, a, b = part[0], part[1], part[2]
	case n == 3 && size[2] == 4:
		year, a, b = part[2], part[1], part[0]
	default:
		return false
	}
	return year >= 1900 && year <= 2099 && (monthAndDay(a, b) || monthAndDay(b, a))
}
