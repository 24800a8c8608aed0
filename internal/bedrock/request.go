package bedrock

import (
	"strconv"
	"strings"

	"github.com/waybill-dev/waybill"
)

// askedUsage is the usage of models that are charged by what was asked, as the request's
// body tells it: documents to rank, seconds of video to make or to read. It is not known
// where the body leaves it to something else, such as the length of a file in S3.
func askedUsage(r Route, model waybill.ModelID, body []byte) (waybill.Usage, bool) {
	switch r.Operation {
	case InvokeModel:
		return rankedDocuments(body)
	case StartAsyncInvoke:
		return asyncUsage(model, body)
	}
	return waybill.Usage{}, false
}

// documentsPerQuery is how many documents a rerank query holds; more of them are charged
// as further queries (Amazon Bedrock pricing page, rerank models). A document of more
// than 512 tokens counts as several, which no answer tells: the count is the least that
// is charged.
const documentsPerQuery = 100

// rankedDocuments counts the queries of a rerank request, of Amazon's and of Cohere's
// models alike.
func rankedDocuments(body []byte) (waybill.Usage, bool) {
	documents, query := 0, false
	err := readObject(body, func(m jsonMember) error {
		switch string(m.name) {
		case "documents":
			documents = elements(body[m.valueStart:m.valueEnd])
		case "query":
			query = true
		}
		return nil
	})
	if err != nil || !query || documents == 0 {
		return waybill.Usage{}, false
	}
	queries := (documents + documentsPerQuery - 1) / documentsPerQuery
	return waybill.NewUsage().With(waybill.SearchUnit, int64(queries)), true
}

// elements counts the elements of an array that was read, 0 of other values.
func elements(v []byte) int {
	if len(v) == 0 || v[0] != '[' {
		return 0
	}
	r := jsonReader{src: v}
	n := 0
	for i := skipBlank(v, 1); i < len(v) && v[i] != ']'; n++ {
		end, err := r.value(i, 2)
		if err != nil {
			return 0
		}
		if i = skipBlank(v, end); i < len(v) && v[i] == ',' {
			i = skipBlank(v, i+1)
		}
	}
	return n
}

// asyncUsage is what a job asks for. A job that fails later is not charged: the answer to
// its start cannot know.
func asyncUsage(model waybill.ModelID, body []byte) (waybill.Usage, bool) {
	input := memberOf(body, "modelInput")
	id := model.Base()
	kind, n, ok := waybill.VideoSecond, int64(0), false
	switch {
	case strings.Contains(id, "nova-reel"):
		n, ok = novaReelSeconds(input)
	case strings.Contains(id, "luma.ray"):
		length, _ := stringOf(memberOf(input, "duration")) // "5s" or "9s" (user guide, Luma AI models)
		n, ok = seconds([]byte(strings.TrimSuffix(length, "s")))
	case strings.Contains(id, "twelvelabs."):
		if n, ok = seconds(memberOf(input, "lengthSec")); !ok {
			break
		}
		switch what, _ := stringOf(memberOf(input, "inputType")); what {
		case "video":
			kind = waybill.InputVideoSecond
		case "audio":
			kind = waybill.InputAudioSecond
		default:
			ok = false
		}
	}
	if !ok {
		return waybill.Usage{}, false
	}
	return waybill.NewUsage().With(kind, n), true
}

// novaReelSeconds goes by Amazon Nova's user guide, "Video generation access and usage":
// a shot is of six seconds, a single one unless the task is one of many shots; those are
// counted, or their whole length is asked for.
func novaReelSeconds(input []byte) (int64, bool) {
	const shot = 6
	if n, ok := seconds(memberOf(memberOf(input, "videoGenerationConfig"), "durationSeconds")); ok {
		return n, true
	}
	switch task, _ := stringOf(memberOf(input, "taskType")); task {
	case "TEXT_VIDEO":
		return shot, true
	case "MULTI_SHOT_MANUAL":
		n := elements(memberOf(memberOf(input, "multiShotManualParams"), "shots"))
		return int64(n) * shot, n > 0
	}
	return 0, false
}

// seconds is a length in whole seconds; parts of one count as one.
func seconds(v []byte) (int64, bool) {
	whole, part, _ := strings.Cut(string(v), ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n < 0 || n > 1<<32 {
		return 0, false
	}
	if strings.Trim(part, "0") != "" {
		n++
	}
	return n, n > 0
}
