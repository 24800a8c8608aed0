package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// Fill makes a name of a template, by the rules of the session name. It is empty where
// the template is, or where nothing that it names has a value.
func (d *Decision) Fill(t Template) string {
	if t.IsZero() {
		return ""
	}
	found := false
	name := d.policy.name(t.segments, d.req, func(key int) string {
		name := d.policy.keys[key].name
		v, _ := d.Tags.Get(name)
		if slices.Contains(d.loose, name) {
			return ""
		}
		found = found || v != ""
		return v
	})
	for _, s := range t.segments {
		if s.key < 0 {
			v, there := d.req.Fact(s.name)
			found = found || there && v != ""
		}
		found = found || s.name == ""
	}
	if !found {
		return ""
	}
	return name
}

// name fills a template and brings it to what STS takes: 2 to 64 characters of letters,
// digits and _ + = , . @ -. A name that had to be changed is kept apart from others by a
// digest. It is made of values that nobody hid: what looks like personal data becomes a
// pseudonym.
func (p *Policy) name(template []segment, req *Request, value func(key int) string) string {
	var scratch [128]byte
	text := scratch[:0]
	for _, s := range template {
		switch {
		case s.name == "":
			text = append(text, s.text...)
		case s.key >= 0:
			text = append(text, value(s.key)...)
		default:
			v, _ := req.Fact(s.name)
			if p.sensitive != "allow" && isSensitive(v) {
				v = p.hide(req, s.name, v)
			}
			text = append(text, v...)
		}
	}
	changed := len(text) > maxSessionName
	for i := 0; i < len(text) && !changed; i++ {
		changed = !nameCharacter[text[i]]
	}
	if !changed && len(text) >= minSessionName {
		return string(text)
	}
	return fitName(string(text))
}

func (p *Policy) hide(req *Request, name, value string) string {
	if e := p.epochAt(req.At); e != nil {
		return e.pseudonym(name, value)
	}
	return digestName(value)
}

// fitName brings a text to what STS takes as a session name. What is changed gets a
// digest, so that it is nobody else's; the name of nobody is wb-.
func fitName(text string) string {
	clean := []byte(text)
	for i, c := range clean {
		if !nameCharacter[c] {
			clean[i] = '-'
		}
	}
	name := string(clean)
	if len(name) < minSessionName {
		name = "wb-" + name
	}
	if len(name) > maxSessionName || name != text && text != "" {
		sum := sha256.Sum256([]byte(text))
		name = name[:min(len(name), maxSessionName-9)] + "-" + hex.EncodeToString(sum[:4])
	}
	return name
}
