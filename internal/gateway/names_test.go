package gateway_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime"
	"github.com/aws/aws-sdk-go-v2/service/bedrockruntime/types"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/fakeaws"
	"github.com/waybill-dev/waybill/internal/gateway"
)

// spellings are the ways in which clients write a name as a part of a path.
var spellings = map[string]func(string) string{
	"as AWS's SDKs": escaped,
	"plain":         func(s string) string { return s },
	"with colons":   url.PathEscape, // of the slash alone
	"in lower case": func(s string) string { return strings.NewReplacer(":", "%3a", "/", "%2f").Replace(s) },
	"more than needed": func(s string) string {
		return strings.NewReplacer(":", "%3A", "/", "%2F", ".", "%2E", "-", "%2D", "a", "%61").Replace(s)
	},
	"some of it":        func(s string) string { return strings.Replace(s, ":", "%3A", 1) },
	"slashes, no colon": func(s string) string { return strings.ReplaceAll(s, ":", "%3A") },
}

func escaped(s string) string { return strings.NewReplacer(":", "%3A", "/", "%2F").Replace(s) }

// Every form of a model's name, in every spelling that is one of a path, arrives at AWS as
// it was written and under a signature that holds; the record has it unescaped.
func TestModelNames(t *testing.T) {
	const here = "arn:aws:bedrock:us-east-1:111122223333:"
	profile := here + "application-inference-profile/abcdef123456"
	models := map[string]string{here + "provisioned-model/abcdef123456": nova, here + "imported-model/abcdef123456": nova, here + "custom-model-deployment/abcdef123456": nova,
		here + "custom-model/" + nova + "/abcdef123456": nova, here + "prompt-router/abcdef123456": nova, here + "default-prompt-router/amazon.nova:1": nova}
	ids := []string{nova, claude, "us." + nova, "global." + claude, profile, here + "inference-profile/us." + nova, "arn:aws:bedrock:us-east-1::foundation-model/" + nova}
	for id := range models {
		ids = append(ids, id)
	}
	s := newStand(t, func(f *fakeaws.Config, _ *gateway.Config) {
		f.Profiles, f.Models = map[string]string{profile: nova}, models
	})
	type sent struct{ id, path string }
	var all []sent
	for _, id := range ids {
		for how, spell := range spellings {
			path := "/model/" + spell(id) + "/converse"
			if a, text := s.post(t, path, hello, nil); a.StatusCode != 200 {
				t.Errorf("%s, %s: %d %s", id, how, a.StatusCode, text)
				continue
			}
			calls := s.world.Calls()
			if last := calls[len(calls)-1]; last.ModelID != id || last.Path != path {
				t.Errorf("%s, %s: AWS saw %s in %s, want %s", id, how, last.ModelID, last.Path, path)
			}
			all = append(all, sent{id, path})
		}
	}
	// What is escaped twice is no name of AWS's.
	if a, text := s.post(t, "/model/"+strings.ReplaceAll(escaped(nova), "%", "%25")+"/converse", hello, nil); a.StatusCode != 400 || a.Header.Get("X-Waybill-Error") != "WB1102" {
		t.Errorf("escaped twice: %d %s", a.StatusCode, text)
	}
	records := s.records(t)
	if len(records) != len(all)+1 {
		t.Fatalf("%d records of %d calls", len(records), len(all)+1)
	}
	for i, v := range all {
		if r := records[i]; string(r.ModelID) != v.id || r.Outcome != waybill.Completed || !r.Usage.Known {
			t.Errorf("%s is recorded as %s, %s", v.path, r.ModelID, r.Outcome)
		}
	}
}

// What was begun by StartAsyncInvoke can be asked for and listed by a stock SDK; the ARN in
// the path stays as it was written, and so does the query.
func TestAsyncInvocations(t *testing.T) {
	s := newStand(t, nil)
	for i := range 3 {
		body := fmt.Sprintf(`{"modelId":"amazon.nova-reel-v1:1","modelInput":{"taskType":"TEXT_VIDEO","seed":%d},"outputDataConfig":{"s3OutputDataConfig":{"s3Uri":"s3://some-bucket/videos"}}}`, i)
		if a, text := s.post(t, "/async-invoke", body, nil); a.StatusCode != 200 {
			t.Fatalf("%d %s", a.StatusCode, text)
		}
	}
	client, _ := stock(t, s.gw, s.token)
	listed := make(map[string]bool)
	pages := bedrockruntime.NewListAsyncInvokesPaginator(client, &bedrockruntime.ListAsyncInvokesInput{MaxResults: aws.Int32(2), StatusEquals: types.AsyncInvokeStatusInProgress,
		SubmitTimeAfter: aws.Time(s.world.Calls()[0].At.AddDate(0, 0, -1)), SortBy: types.SortAsyncInvocationBySubmissionTime, SortOrder: types.SortOrderAscending})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range page.AsyncInvokeSummaries {
			listed[*v.InvocationArn] = true
		}
	}
	if len(listed) != 3 {
		t.Fatalf("%d invocations are listed", len(listed))
	}
	n := 3 + 2 // three begun, two pages
	for arn := range listed {
		got, err := client.GetAsyncInvoke(t.Context(), &bedrockruntime.GetAsyncInvokeInput{InvocationArn: aws.String(arn)})
		if err != nil {
			t.Fatal(err)
		}
		if *got.InvocationArn != arn {
			t.Errorf("asked for %s, got %s", arn, *got.InvocationArn)
		}
		n++
		for how, spell := range spellings {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/async-invoke/"+spell(arn), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+s.token)
			a, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if n++; a.StatusCode != 200 {
				t.Errorf("%s, %s: %d", arn, how, a.StatusCode)
			}
		}
	}
	records := s.records(t)
	if len(records) != n {
		t.Errorf("%d records of %d calls", len(records), n)
	}
	for _, r := range records {
		if r.Outcome != waybill.Completed || r.Operation != "StartAsyncInvoke" && r.Usage != waybill.NewUsage() {
			t.Errorf("%s is recorded as %s with %v", r.Operation, r.Outcome, r.Usage)
		}
	}
}
