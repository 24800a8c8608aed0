package policy

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
)

// TagsHeader is the header in which a request brings tags: key=value,key=value.
const TagsHeader = "X-Waybill-Tags"

// maxTagsHeader bounds what of a stranger's header is read.
const maxTagsHeader = 16 << 10

// tagHeaders are the headers that carry tags, ours first, then those of gateways that
// users move over from: accepting them makes the move one line.
var tagHeaders = []struct {
	name string
	read func(value string) ([]waybill.Tag, bool)
}{
	{TagsHeader, readPairs},
	{"X-Litellm-Spend-Logs-Metadata", readObject},
	{"X-Portkey-Metadata", readObject},
	{"Cf-Aig-Metadata", readObject},
	{"X-Litellm-Tags", readPairs},
}

// TakeAsked removes every header that carries tags and returns what they asked for.
// A header that cannot be read is an error that names it.
func TakeAsked(h http.Header) ([]Asked, error) {
	var out []Asked
	for _, t := range tagHeaders {
		for name, values := range h {
			if strings.ReplaceAll(strings.ToLower(name), "_", "-") != strings.ToLower(t.name) {
				continue
			}
			delete(h, name)
			for _, v := range values {
				tags, ok := t.read(v)
				if !ok || len(v) > maxTagsHeader {
					return nil, &waybill.Error{Kind: waybill.Invalid, Code: "WB1302", Message: "header " + t.name + " cannot be read as tags",
						Hint: "write " + TagsHeader + ": key=value,key=value"}
				}
				for _, tag := range tags {
					out = append(out, Asked{tag.Key, tag.Value, t.name})
				}
			}
		}
	}
	for name, key := range map[string]string{"X-Openwebui-User-Id": "user", "X-Openwebui-User-Email": "userEmail", "X-Openwebui-User-Role": "userRole", "X-Openwebui-Chat-Id": "session"} {
		if v := h.Get(name); v != "" {
			out = append(out, Asked{key, v, name})
		}
		h.Del(name)
	}
	h.Del("X-Openwebui-User-Name")
	slices.SortStableFunc(out, func(a, b Asked) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// readPairs reads key=value,key=value or key:value, with blanks around; or an object.
func readPairs(v string) ([]waybill.Tag, bool) {
	v = strings.TrimSpace(v)
	if strings.HasPrefix(v, "{") {
		return readObject(v)
	}
	var out []waybill.Tag
	for _, pair := range strings.Split(v, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			if key, value, ok = strings.Cut(pair, ":"); !ok {
				return nil, false
			}
		}
		if key = strings.TrimSpace(key); key == "" {
			return nil, false
		}
		out = append(out, waybill.Tag{Key: key, Value: strings.TrimSpace(value)})
	}
	return out, true
}

func readObject(v string) ([]waybill.Tag, bool) {
	var m map[string]any
	if json.Unmarshal([]byte(v), &m) != nil {
		return nil, false
	}
	var out []waybill.Tag
	for key, value := range m {
		if s, ok := value.(string); ok {
			out = append(out, waybill.Tag{Key: key, Value: s})
		}
	}
	return out, true
}
