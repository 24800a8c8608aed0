package ratecard

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

//go:embed models.csv
var modelsCSV string

// Models turns the names that the bill has for a model into the id that calls name.
// The zero value knows nothing.
type Models struct {
	exact map[string]string // billing name, in lower case
	words map[string]string // by the words of the name
}

// KnownModels is the table that comes with Waybill, with the ids of more models, such
// as those of a rate card or of the calls of a month. Of two ids with the same words the
// one that sorts first stands.
func KnownModels(ids ...string) (*Models, error) {
	m := &Models{exact: make(map[string]string), words: make(map[string]string)}
	r := csv.NewReader(strings.NewReader(modelsCSV))
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the table of billing names: %w", err)
	}
	for _, row := range rows[1:] {
		m.exact[strings.ToLower(row[0])] = row[1]
	}
	for _, row := range rows[1:] {
		m.add(row[1])
	}
	m.Learn(ids...)
	return m, nil
}

// Learn adds ids of models. What is known already stands: no id takes from another a name
// or words that both have.
func (m *Models) Learn(ids ...string) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for _, id := range ids {
		m.add(id)
	}
}

func (m *Models) add(id string) {
	if lower := strings.ToLower(id); m.exact[lower] == "" {
		m.exact[lower] = id
	}
	if w := nameWords(id); m.words[w] == "" {
		m.words[w] = id
	}
}

// Canonical is the id that stands for all that the bill may call a model by: of ids with
// the same words, such as those that one model has on the two endpoints, it is one.
func (m *Models) Canonical(id string) string {
	if to := m.words[nameWords(id)]; to != "" {
		return to
	}
	return id
}

// ID is the model id of a billing name ("Claude4.6Sonnet", "Claude Sonnet 4.6
// (Amazon Bedrock Edition)", "anthropic.claude-sonnet-4-6"). If nothing is known by
// that name, ok is false: the row's model is unmapped, which is a state of its own.
func (m *Models) ID(name string) (id string, ok bool) {
	name = strings.TrimSpace(edition.ReplaceAllString(name, ""))
	if name == "" {
		return "", false
	}
	if id, ok := m.exact[strings.ToLower(name)]; ok {
		return id, true
	}
	id, ok = m.words[nameWords(name)]
	return id, ok
}

var (
	edition   = regexp.MustCompile(`(?i)\s*\((Amazon )?Bedrock Edition\)\s*$`)
	nameWord  = regexp.MustCompile(`v[0-9]+|[0-9]+(?:\.[0-9]+)*|[A-Z]?[a-z]+|[A-Z]+`)
	versionAt = regexp.MustCompile(`([a-zA-Z])v([0-9])`)
	buildDate = regexp.MustCompile(`^20[0-9]{6}$`)
	revision  = regexp.MustCompile(`:[0-9]+$`)
)

// nameWords brings a name to its words, sorted: the bill writes the version before the
// family ("Claude4.6Opus"), the model id after it ("claude-opus-4-6").
func nameWords(name string) string {
	if provider, rest, ok := strings.Cut(name, "."); ok && provider == strings.ToLower(provider) && !strings.ContainsAny(provider, " -0123456789") {
		name = rest
	}
	name = revision.ReplaceAllString(name, "")
	name = versionAt.ReplaceAllString(name, "$1 v$2")
	var words []string
	number := false // the last word is a number, and may go on
	for _, w := range nameWord.FindAllString(name, -1) {
		w = strings.ToLower(w)
		switch {
		case buildDate.MatchString(w), w == "v1", w == "instruct", w == "text":
			number = false
		case w[0] >= '0' && w[0] <= '9':
			if number {
				words[len(words)-1] += "." + w
			} else {
				words = append(words, w)
			}
			number = true
		default:
			number = false
			words = append(words, w)
		}
	}
	for i, w := range words {
		words[i] = strings.TrimSuffix(w, ".0")
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}
