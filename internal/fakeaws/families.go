package fakeaws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strconv"
	"strings"
)

// A family is a kind of model by the shape of its InvokeModel bodies.
type family struct {
	prefix   string // of the model ids
	name     string
	required []string // members of a body, one of which is there
	makes    string   // text, vector, image, ranking, or video by way of StartAsyncInvoke alone
}

// families of the models that this AWS offers. The first prefix that fits counts.
var families = []family{
	{"anthropic.claude-", "claude", []string{"messages"}, "text"},
	{"amazon.nova-canvas", "canvas", []string{"taskType"}, "image"},
	{"amazon.nova-reel", "reel", []string{"taskType"}, "video"},
	{"amazon.nova-2-multimodal-embeddings", "novaembed", []string{"taskType"}, "vector"},
	{"amazon.nova-", "nova", []string{"messages"}, "text"},
	{"amazon.titan-embed-image", "imageembed", []string{"inputText", "inputImage"}, "vector"},
	{"amazon.titan-embed-text", "embed", []string{"inputText"}, "vector"},
	{"amazon.titan-image", "canvas", []string{"taskType"}, "image"},
	{"amazon.titan-text", "titan", []string{"inputText"}, "text"},
	{"amazon.rerank", "rerank", []string{"query"}, "ranking"},
	{"cohere.rerank", "rerank", []string{"query"}, "ranking"},
	{"cohere.embed-", "cohereembed", []string{"texts", "images", "inputs"}, "vector"},
	{"cohere.command-r", "commandr", []string{"message"}, "text"},
	{"meta.llama", "llama", []string{"prompt"}, "text"},
	{"mistral.mistral-7b", "mistral", []string{"prompt"}, "text"},
	{"mistral.mixtral", "mistral", []string{"prompt"}, "text"},
	{"mistral.", "chat", []string{"messages"}, "text"},
	{"ai21.jamba", "chat", []string{"messages"}, "text"},
	{"deepseek.r1", "r1", []string{"prompt"}, "text"},
	{"deepseek.", "chat", []string{"messages"}, "text"},
	{"qwen.", "chat", []string{"messages"}, "text"},
	{"openai.gpt-oss-", "chat", []string{"messages"}, "text"},
	{"moonshot", "chat", []string{"messages"}, "text"},
	{"minimax.", "chat", []string{"messages"}, "text"},
	{"zai.", "chat", []string{"messages"}, "text"},
	{"nvidia.", "chat", []string{"messages"}, "text"},
	{"google.gemma-", "chat", []string{"messages"}, "text"},
	{"writer.", "chat", []string{"messages"}, "text"},
	{"stability.", "stability", []string{"prompt"}, "image"},
	{"twelvelabs.pegasus", "pegasus", []string{"inputPrompt"}, "text"},
	{"twelvelabs.marengo", "marengo", []string{"inputType"}, "video"},
	{"luma.ray", "ray", []string{"prompt"}, "video"},
}

func familyOf(model string) *family {
	for i := range families {
		if strings.HasPrefix(model, families[i].prefix) {
			return &families[i]
		}
	}
	return nil
}

// read holds the body of an InvokeModel call against its family, besides those that
// readInvoke knows, and measures what is not counted in tokens.
func (a *admitted) read(body []byte, call *Call) *refusal {
	var b struct {
		MaxTokens  int64 `json:"max_tokens"`
		MaxTokens2 int64 `json:"max_completion_tokens"`
		MaxGen     int64 `json:"max_gen_len"`
		Stream     *bool
		Tier       string `json:"service_tier"`
		Titan      struct {
			Max int64 `json:"maxTokenCount"`
		} `json:"textGenerationConfig"`
		Documents []json.RawMessage
		TopN      int64 `json:"top_n"`
		Texts     []string
		Images    []string
		Image     struct {
			N             *int64 `json:"numberOfImages"`
			Width, Height int64
			Quality       string
		} `json:"imageGenerationConfig"`
		TaskType string
		Type     string `json:"input_type"`
		Version  *int64 `json:"api_version"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return validation("Malformed input request: %v, please reformat your input and try again.", err)
	}
	a.maxTokens = max(b.MaxTokens, b.MaxTokens2, b.MaxGen, b.Titan.Max)
	switch a.family.name {
	case "chat":
		if b.Tier != "" {
			call.Tier = b.Tier
		}
	case "rerank":
		if n := len(b.Documents); n < 1 || n > 1000 {
			return validation("Malformed input request: #/documents: expected between 1 and 1000 items, please reformat your input and try again.")
		}
		if strings.HasPrefix(call.BaseModel, "cohere.") && (b.Version == nil || *b.Version < 2) {
			return validation("Malformed input request: #: required key [api_version] not found, please reformat your input and try again.")
		}
		a.items = int64(len(b.Documents))
		if b.TopN > 0 {
			a.items = min(a.items, b.TopN)
		}
		call.SearchUnits = (int64(len(b.Documents)) + 99) / 100
	case "cohereembed":
		if b.Type == "" {
			return validation("Malformed input request: #: required key [input_type] not found, please reformat your input and try again.")
		}
		if len(b.Texts) > 96 {
			return validation("Malformed input request: #/texts: expected maximum item count: 96, found: %d, please reformat your input and try again.", len(b.Texts))
		}
		a.items, a.texts, call.Images = max(int64(len(b.Texts)+len(b.Images)), 1), b.Texts, int64(len(b.Images))
	case "canvas":
		n := int64(1)
		if b.Image.N != nil {
			n = *b.Image.N
		}
		width, height, quality := b.Image.Width, b.Image.Height, b.Image.Quality
		if width == 0 && height == 0 {
			width, height = 1024, 1024
		}
		switch {
		case n < 1 || n > 5:
			return validation("Malformed input request: #/imageGenerationConfig/numberOfImages: %d is not between 1 and 5, please reformat your input and try again.", n)
		case width < 320 || width > 4096 || height < 320 || height > 4096:
			return validation("Malformed input request: #/imageGenerationConfig: width and height are between 320 and 4096, please reformat your input and try again.")
		case !contains([]string{"", "standard", "premium"}, quality):
			return validation("Malformed input request: #/imageGenerationConfig/quality: %s is not a valid enum value, please reformat your input and try again.", quality)
		}
		if quality == "" {
			quality = "standard"
		}
		a.items, call.Images, call.ImageSize, call.ImageQuality = n, n, fmt.Sprintf("%dx%d", width, height), quality
	case "stability":
		a.items, call.Images = 1, 1
	}
	return nil
}

// picture is a small one in the colour of a seed.
func picture(seed uint64, i int64) string {
	m := image.NewPaletted(image.Rect(0, 0, 4, 4), color.Palette{color.RGBA{uint8(seed), uint8(seed >> 8), uint8(i), 255}})
	var buf bytes.Buffer
	if err := png.Encode(&buf, m); err != nil {
		panic(err) // a Buffer takes everything
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes())
}

// body is the InvokeModel answer of the families that invokeBody does not know.
func (a *admitted) body(text string, c *Call) obj {
	id := fmt.Sprintf("%016x", a.seed)
	switch a.family.name {
	case "titan":
		return obj{"inputTextTokenCount": c.InputTokens, "results": []any{obj{"tokenCount": c.OutputTokens, "outputText": text, "completionReason": "FINISH"}}}
	case "commandr":
		return obj{"response_id": id, "generation_id": id, "text": text, "finish_reason": "COMPLETE", "chat_history": []any{}}
	case "mistral":
		return obj{"outputs": []any{obj{"text": text, "stop_reason": "stop"}}}
	case "r1":
		return obj{"choices": []any{obj{"text": text, "stop_reason": "stop"}}}
	case "pegasus":
		return obj{"message": text, "finishReason": "stop"}
	case "rerank":
		results := make([]any, a.items)
		for i := range results {
			results[i] = obj{"index": i, "relevance_score": float64(a.seed>>(i%32)%1000) / 1000 / float64(i+1)}
		}
		return obj{"results": results}
	case "cohereembed":
		list := make([]any, a.items)
		for i := range list {
			list[i] = direction(a.seed+uint64(i), 16)
		}
		return obj{"id": id, "embeddings": list, "texts": a.texts, "response_type": "embeddings_floats"}
	case "novaembed":
		return obj{"embeddings": []any{obj{"embeddingType": "TEXT", "embedding": direction(a.seed, 16)}}}
	case "imageembed":
		return obj{"embedding": direction(a.seed, 16), "message": nil}
	case "canvas", "stability":
		images, reasons, seeds := make([]any, a.items), make([]any, a.items), make([]any, a.items)
		for i := range images {
			images[i], seeds[i] = picture(a.seed, int64(i)), a.seed>>32
		}
		if a.family.name == "stability" {
			return obj{"images": images, "finish_reasons": reasons, "seeds": seeds}
		}
		return obj{"images": images, "error": nil}
	}
	return obj{"id": "chatcmpl-" + id, "object": "chat.completion", "created": fixedTime, "model": c.BaseModel,
		"choices": []any{obj{"index": 0, "message": obj{"role": "assistant", "content": text}, "finish_reason": "stop"}}, "usage": tokenUsage(c)}
}

func tokenUsage(c *Call) obj {
	return obj{"prompt_tokens": c.InputTokens, "completion_tokens": c.OutputTokens, "total_tokens": c.InputTokens + c.OutputTokens}
}

// parts is the same in a stream's chunks; the metrics ride on the last.
func (a *admitted) parts(words []string, c *Call) (parts []any) {
	id := fmt.Sprintf("%016x", a.seed)
	for i, t := range words {
		switch a.family.name {
		case "titan":
			p := obj{"outputText": t, "index": i, "totalOutputTextTokenCount": nil, "completionReason": nil, "inputTextTokenCount": nil}
			if i == 0 {
				p["inputTextTokenCount"] = c.InputTokens
			}
			if i == len(words)-1 {
				p["totalOutputTextTokenCount"], p["completionReason"] = c.OutputTokens, "FINISH"
			}
			parts = append(parts, p)
		case "commandr":
			parts = append(parts, obj{"is_finished": false, "event_type": "text-generation", "text": t})
		case "mistral":
			parts = append(parts, obj{"outputs": []any{obj{"text": t, "stop_reason": nil}}})
		case "r1":
			parts = append(parts, obj{"choices": []any{obj{"text": t, "stop_reason": nil}}})
		case "pegasus":
			parts = append(parts, obj{"message": t, "finishReason": nil})
		default:
			parts = append(parts, obj{"id": "chatcmpl-" + id, "object": "chat.completion.chunk", "created": fixedTime, "model": c.BaseModel,
				"choices": []any{obj{"index": 0, "delta": obj{"role": "assistant", "content": t}, "finish_reason": nil}}})
		}
	}
	switch a.family.name {
	case "titan":
	case "commandr":
		parts = append(parts, obj{"is_finished": true, "event_type": "stream-end", "finish_reason": "COMPLETE"})
	case "mistral":
		parts = append(parts, obj{"outputs": []any{obj{"text": "", "stop_reason": "stop"}}})
	case "r1":
		parts = append(parts, obj{"choices": []any{obj{"text": "", "stop_reason": "stop"}}})
	case "pegasus":
		parts = append(parts, obj{"message": "", "finishReason": "stop"})
	default:
		parts = append(parts, obj{"id": "chatcmpl-" + id, "object": "chat.completion.chunk", "created": fixedTime, "model": c.BaseModel,
			"choices": []any{obj{"index": 0, "delta": obj{}, "finish_reason": "stop"}}, "usage": tokenUsage(c)})
	}
	return parts
}

// countMembers are what CountTokens takes of a Converse body.
var countMembers = strings.Fields("messages system toolConfig additionalModelRequestFields")

// admitCount takes a call of CountTokens: it counts what the same body would be charged
// for, and is free.
func (x *exchange) admitCount() (answer, *refusal) {
	a, no := x.w.admitOn(x)
	if no != nil {
		return nil, no
	}
	if x.call.ProfileARN != "" || len(x.call.ModelID) > 256 {
		return nil, validation("1 validation error detected: Value '%s' at 'modelId' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z_\\.\\-/0-9:]+", x.call.ModelID)
	}
	if a.family.name != "claude" {
		return nil, validation("The provided model doesn't support counting tokens.")
	}
	var b struct {
		Input struct {
			InvokeModel *struct{ Body []byte }
			Converse    json.RawMessage
		}
	}
	if err := json.Unmarshal(x.body, &b); err != nil || (b.Input.InvokeModel == nil) == (b.Input.Converse == nil) {
		return nil, validation("1 validation error detected: Value at 'input' failed to satisfy constraint: exactly one of [invokeModel, converse] must be set")
	}
	var counted Call
	body := []byte(b.Input.Converse)
	if a.converse = b.Input.Converse != nil; a.converse {
		var m map[string]json.RawMessage
		if json.Unmarshal(body, &m) != nil {
			return nil, validation("Malformed input request, please reformat your input and try again.")
		}
		for name := range m {
			if !contains(countMembers, name) {
				return nil, validation("Malformed input request: extraneous key [%s] is not permitted", name)
			}
		}
		no = a.readConverse(body, &counted)
	} else {
		body = b.Input.InvokeModel.Body
		no = a.readInvoke(body, &counted)
	}
	if no != nil {
		return nil, no
	}
	return func(x *exchange) bool {
		a.use(&counted)
		x.w.scale(&counted)
		return x.json(obj{"inputTokens": counted.InputTokens + counted.CacheRead + counted.CacheWrite5m + counted.CacheWrite1h})
	}, nil
}

// textUnits is how guardrails count a text: by the thousand characters that were begun.
func textUnits(n int) int64 { return int64(n+999) / 1000 }

func number(text string, least, most int64) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= least && n <= most
}
