package policy

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// AWS's limits on its carriers. Sources: the request metadata page and API model of
// bedrock-runtime, the API models of STS and IAM, the tagging rules of Bedrock.
const (
	maxRequestTags  = 16  // entries of request metadata
	maxSessionTags  = 50  // tags of a role session
	maxResourceTags = 50  // tags of a profile, project, workspace, user or role
	maxKeyLength    = 128 // the smaller of STS's 128 and request metadata's 256
	maxValueLength  = 256
	maxSessionName  = 64
	minSessionName  = 2
	// packedBudget is the text of tags that one session is planned to take. STS packs
	// tags and session policy into a space of its own and says only afterwards, in per
	// cent, how full it was; 2048 characters is the limit it states for a policy.
	packedBudget = 2048
	// maxScreened bounds what is looked at of a value that a stranger sends: far beyond
	// what can leave, it is not read at all.
	maxScreened = 4 << 10
	// maxKeys bounds a policy: more keys than all carriers together could take.
	maxKeys = 200
)

// reservedPrefix is AWS's own, in any case.
const reservedPrefix = "aws:"

// badText says what is wrong with a key or value for the characters that both STS
// tags and request metadata take: letters, digits, space and _ . : / = + - @.
func badText(s string, shortest, longest int) string {
	if len(s) < shortest {
		return "is empty"
	}
	for i := range len(s) {
		c := s[i]
		if !commonCharacter[c] {
			if len(s) > longest && utf8.RuneCountInString(s) > longest {
				break
			}
			return "has a character that AWS does not take on every carrier"
		}
		if c == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			return "has a blank at an end, or two in a row, which signing folds"
		}
	}
	if len(s) > longest { // in characters of one byte: others were refused
		return fmt.Sprintf("is longer than %d characters", longest)
	}
	return ""
}

// commonCharacter holds the bytes that every carrier takes.
var commonCharacter = characterSet("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _.:/=+-@")

// nameCharacter holds the bytes that STS takes in a session name.
var nameCharacter = characterSet("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+=,.@-")

func characterSet(s string) (set [256]bool) {
	for i := range len(s) {
		set[s[i]] = true
	}
	return set
}

// replaceBad puts c in the place of each character that AWS does not take, and of
// blanks at the ends or in a row.
func replaceBad(s string, c byte) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r >= utf8.RuneSelf || !commonCharacter[byte(r)]:
			b.WriteByte(c)
		case r == ' ' && (i == 0 || i == len(s)-1 || s[i-1] == ' '):
			b.WriteByte(c)
		default:
			b.WriteByte(byte(r))
		}
	}
	return b.String()
}

// longestMatch is the length in characters of the longest text that an expression
// matches, or -1 where there is none.
func longestMatch(re *syntax.Regexp) int {
	sum := func(subs []*syntax.Regexp) int {
		n := 0
		for _, s := range subs {
			m := longestMatch(s)
			if m < 0 {
				return -1
			}
			n += m
		}
		return n
	}
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpQuest:
		return longestMatch(re.Sub[0])
	case syntax.OpConcat:
		return sum(re.Sub)
	case syntax.OpAlternate:
		n := 0
		for _, s := range re.Sub {
			m := longestMatch(s)
			if m < 0 {
				return -1
			}
			n = max(n, m)
		}
		return n
	case syntax.OpStar, syntax.OpPlus:
		if longestMatch(re.Sub[0]) == 0 {
			return 0
		}
		return -1
	case syntax.OpRepeat:
		m := longestMatch(re.Sub[0])
		if m == 0 {
			return 0
		}
		if re.Max < 0 || m < 0 {
			return -1
		}
		return m * re.Max
	}
	return 0 // empty matches and assertions
}
