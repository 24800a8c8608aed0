package policy

import (
	"path"
	"slices"
	"strings"
)

// maxImportDepth bounds how deep policies import one another.
const maxImportDepth = 5

// A loader reads a policy file and what it imports, the imported first.
type loader struct {
	open   func(string) ([]byte, error)
	files  []*loaded
	seen   map[string]bool
	broken Mistakes // of files that are not YAML
}

type loaded struct {
	doc  *Document
	file *File
	src  []byte
}

func (l *loader) load(name string, src []byte, depth int) {
	doc, err := ReadYAML(name, src)
	if err != nil {
		l.broken = append(l.broken, err.(Mistakes)...) //nolint:errorlint // ReadYAML's own error, unwrapped
		return
	}
	f := new(File)
	decode(doc.Root(), f)
	l.seen[path.Clean(name)] = true
	var items []Node
	if at, ok := f.At.field("import"); ok {
		items = at.List()
	}
	for _, item := range items {
		l.importOne(name, item, depth)
	}
	l.files = append(l.files, &loaded{doc, f, src})
}

func (l *loader) importOne(from string, item Node, depth int) {
	text := item.Text()
	if text == "" {
		item.Mistake("name a file", "the import is empty")
		return
	}
	name := path.Clean(text)
	if !path.IsAbs(name) {
		name = path.Join(path.Dir(from), name)
	}
	switch {
	case l.seen[name]:
		return // once is enough; a circle ends here as well
	case depth >= maxImportDepth:
		item.Mistake("import it from a file nearer to the top", "imports nest deeper than %d", maxImportDepth)
		return
	case l.open == nil:
		item.Mistake("write the keys into this file", "files cannot be imported here")
		return
	}
	src, err := l.open(name)
	if err != nil {
		item.Mistake("check the path, which is relative to this file, and its rights", "cannot be read: %v", err)
		return
	}
	l.load(name, src, depth+1)
}

// mistakes are those of all files, the importing file's first.
func (l *loader) mistakes() Mistakes {
	var out Mistakes
	for _, f := range slices.Backward(l.files) {
		_ = f.doc.Err() // puts them in order
		out = append(out, f.doc.mistakes...)
	}
	return append(out, l.broken...)
}

// combine makes one file of many. What is imported comes first; a key that is declared
// again is narrowed.
func (l *loader) combine() *File {
	if len(l.files) == 0 {
		return nil
	}
	main := l.files[len(l.files)-1].file
	out := *main
	screened := make(map[string]Node) // where a file says how its keys are screened, by key
	out.Tags.Keys, out.Tags.Rules, out.Applications, out.Rollout, out.Reorganisations = nil, nil, nil, nil, nil
	for _, part := range l.files {
		f := part.file
		for _, e := range f.Tags.Keys {
			i := slices.IndexFunc(out.Tags.Keys, func(o Entry[KeyFile]) bool { return o.Name == e.Name })
			if i < 0 {
				out.Tags.Keys = append(out.Tags.Keys, e)
				if f.Sensitive != "" && f.Sensitive != "allow" {
					screened[e.Name] = f.At.Field("sensitive")
				}
				continue
			}
			base := out.Tags.Keys[i].Value
			if where, ok := screened[e.Name]; ok && base.Sensitive == "" && e.Value.Sensitive == "allow" {
				e.Value.At.Field("sensitive").Mistake(leaveOut, "the imported vocabulary screens its values (%s)", where.Position())
			}
			out.Tags.Keys[i].Value = narrow(base, e.Value)
		}
		out.Tags.Rules = append(out.Tags.Rules, f.Tags.Rules...)
		out.Reorganisations = append(out.Reorganisations, f.Reorganisations...)
		// What is nearer goes first: the first that holds decides.
		out.Applications = append(slices.Clone(f.Applications), out.Applications...)
		out.Rollout = append(slices.Clone(f.Rollout), out.Rollout...)
	}
	for _, part := range slices.Backward(l.files) { // what is nearer goes first
		f := part.file
		inherit(&out.Mode, f.Mode)
		if out.Session.Name == "" {
			out.Session.Name, out.Session.At = f.Session.Name, f.Session.At
		}
		if out.Session.Budget == 0 {
			out.Session.Budget = f.Session.Budget
		}
	}
	out.Unknown = l.strict("unknown", "pass", func(f *File) string { return f.Unknown })
	out.Sensitive = l.strict("sensitive", "allow", func(f *File) string { return f.Sensitive })
	return &out
}

// leaveOut is the remedy for what an imported vocabulary does not let be said.
const leaveOut = "leave it out, or change it where it is declared"

// strict is a setting of the whole policy: the nearest file that has it decides. It is a
// mistake if that is the one that lets everything through, and another file is stricter.
func (l *loader) strict(name, loose string, of func(*File) string) string {
	var nearest *File
	for _, part := range slices.Backward(l.files) {
		switch f := part.file; {
		case of(f) == "":
		case nearest == nil:
			nearest = f
		case of(nearest) == loose && of(f) != loose:
			nearest.At.Field(name).Mistake(leaveOut, "is %s, and %s in the imported vocabulary (%s)", loose, of(f), f.At.Field(name).Position())
			return of(f)
		}
	}
	if nearest == nil {
		return ""
	}
	return of(nearest)
}

func inherit[T ~string](to *T, from T) {
	if *to == "" {
		*to = from
	}
}

// narrow lays a later declaration of a key over an imported one. It may say more, and
// may not say otherwise.
func narrow(base, k KeyFile) KeyFile {
	fixed := func(field string, same bool) bool {
		switch {
		case !k.At.Has(field):
			return false
		case base.At.Has(field) && !same:
			k.At.Field(field).Mistake(leaveOut, "%s is fixed by the imported vocabulary (%s)", field, base.At.Field(field).Position())
			return false
		}
		return true
	}
	out := base
	if k.At.Has("required") {
		if base.Required && !k.Required {
			k.At.Field("required").Mistake("leave it out", "is required by the imported vocabulary (%s)", base.At.Field("required").Position())
		}
		out.Required = base.Required || k.Required
	}
	if k.At.Has("forbidden") {
		if base.Forbidden && !k.Forbidden {
			k.At.Field("forbidden").Mistake("leave it out", "is forbidden by the imported vocabulary (%s)", base.At.Field("forbidden").Position())
		}
		out.Forbidden = base.Forbidden || k.Forbidden
	}
	if len(k.Values) > 0 {
		for _, v := range k.Values {
			if len(base.Values) > 0 && !slices.Contains(base.Values, v) {
				k.At.Field("values").Mistake("take it out, or add it where the key is declared", "value %q is not in the imported vocabulary (%s)", v, base.At.Field("values").Position())
			}
		}
		out.Values = k.Values
		keep := func(e Entry[string]) bool { return !slices.Contains(k.Values, e.Value) }
		out.Aliases = slices.DeleteFunc(slices.Clone(base.Aliases), keep)
		out.DeprecatedValues = slices.DeleteFunc(slices.Clone(base.DeprecatedValues), keep)
		if base.Default != nil && !slices.Contains(k.Values, *base.Default) {
			out.Default = nil
		}
	}
	if fixed("maxLength", k.MaxLength <= base.MaxLength) {
		out.MaxLength = k.MaxLength
	}
	bound, tighter := tighten(base.MaxDistinct, k.MaxDistinct)
	if fixed("maxDistinct", tighter) {
		out.MaxDistinct = bound
	}
	if fixed("deprecated", base.Deprecated != nil && k.Deprecated != nil && k.Deprecated.Use == base.Deprecated.Use) {
		out.Deprecated = k.Deprecated
	}
	if fixed("sensitive", k.Sensitive == base.Sensitive || k.Sensitive != "allow") {
		out.Sensitive = k.Sensitive
	}
	if fixed("carriers", !slices.ContainsFunc(k.Carriers, func(c Carrier) bool { return !slices.Contains(base.Carriers, c) })) {
		out.Carriers = k.Carriers
	}
	for _, e := range slices.Concat(k.Aliases, k.DeprecatedValues) {
		if to, ok := base.meaning(e.Name); ok && to != e.Value {
			e.At.Mistake(leaveOut, "%q stands for %q in the imported vocabulary (%s), and for %q here", e.Name, to, base.At.Position(), e.Value)
		}
	}
	if fixed("from", k.From == base.From) {
		out.From = k.From
	}
	if fixed("pattern", k.Pattern == base.Pattern) {
		out.Pattern = k.Pattern
	}
	if fixed("range", base.Range != nil && k.Range != nil && k.Range.Min >= base.Range.Min && k.Range.Max <= base.Range.Max) {
		out.Range = k.Range
	}
	if fixed("transform", k.Transform == base.Transform) {
		out.Transform = k.Transform
	}
	if fixed("foldCase", k.FoldCase == base.FoldCase) {
		out.FoldCase = k.FoldCase
	}
	if fixed("highCardinality", k.HighCardinality == base.HighCardinality) {
		out.HighCardinality = k.HighCardinality
	}
	if k.At.Has("description") {
		out.Description = k.Description
	}
	if k.Default != nil {
		out.Default = k.Default
	}
	if k.ReplaceCharacters != "" {
		out.ReplaceCharacters = k.ReplaceCharacters
	}
	if k.Mode != "" {
		out.Mode = k.Mode
	}
	out.Aliases = append(slices.Clone(out.Aliases), k.Aliases...)
	out.DeprecatedValues = append(slices.Clone(out.DeprecatedValues), k.DeprecatedValues...)
	out.KeyAliases = append(slices.Clone(base.KeyAliases), k.KeyAliases...)
	out.At.over = append(slices.Clip(out.At.over), k.At)
	return out
}

// meaning is the value that a text stands for under a key as it is declared.
func (f *KeyFile) meaning(text string) (string, bool) {
	same := func(a string) bool { return a == text || f.FoldCase && strings.EqualFold(a, text) }
	if i := slices.IndexFunc(f.Values, same); i >= 0 {
		return f.Values[i], true
	}
	for _, e := range slices.Concat(f.Aliases, f.DeprecatedValues) {
		if same(e.Name) {
			return e.Value, true
		}
	}
	return "", false
}

// tighten lays a bound over an imported one: what it does not say stays. It reports
// whether the outcome lets no more values through.
func tighten(base, d *DistinctFile) (*DistinctFile, bool) {
	if base == nil || d == nil {
		return d, true
	}
	out := *base
	if d.At.n == nil || d.At.Has("limit") { // written as a number, or with one
		out.Limit = d.Limit
	}
	inherit(&out.Action, "reject")
	if d.Action != "" {
		out.Action = d.Action
	}
	if d.Days != 0 {
		out.Days = d.Days
	}
	counts := func(days int) int {
		if days == 0 {
			return defaultDays
		}
		return days
	}
	return &out, out.Limit <= base.Limit && (out.Action != "observe" || base.Action == "observe") && counts(out.Days) >= counts(base.Days)
}
