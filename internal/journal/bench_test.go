package journal

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-dev/waybill"
)

// full is an invocation as the gateway records it: some 850 bytes as an entry.
func full(id string) waybill.Invocation {
	v := call(id)
	v.Account, v.Region, v.Endpoint = "111122223333", "us-east-1", "bedrock-runtime"
	v.Operation, v.ModelID, v.Model = "Converse", "us.anthropic.claude-sonnet-4-20250514-v1:0", "anthropic.claude-sonnet-4-20250514-v1:0"
	v.Principal, v.Issuer, v.KeyID = "ci-runner-17", "keys", "wk_4f1c2a9b"
	v.PrincipalARN, v.SessionName = "arn:aws:sts::111122223333:assumed-role/waybill-caller/ci-runner-17", "ci-runner-17"
	v.Tags = waybill.NewTags(waybill.Tag{Key: "team", Value: "search"}, waybill.Tag{Key: "cost-center", Value: "4711"},
		waybill.Tag{Key: "environment", Value: "production"}, waybill.Tag{Key: "feature", Value: "ranking"})
	v.Carried, v.PolicyVersion, v.Gateway = "request,session", "2026-11-01", "waybilld-1"
	v.Usage = waybill.NewUsage().With(waybill.Input, 1200).With(waybill.Output, 340)
	v.UsageFrom, v.Tier, v.StopReason, v.Status = "body", "standard", "end_turn", 200
	v.Latency, v.TimeToFirstByte, v.RequestBytes, v.ResponseBytes = 812*time.Millisecond, 790*time.Millisecond, 1024, 2048
	return v
}

// A call's share of the processor: opened, closed, and every tenth waits for the disk, which
// is what a saturated core of calls comes to. The kernel's time is counted too.
func BenchmarkOpenClose(b *testing.B) {
	j, err := Start(b.TempDir(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	calls := make([]waybill.Invocation, 10)
	for i := range calls {
		calls[i] = full(fmt.Sprintf("0192f0c1-7b1e-7c3a-9d55-%012d", i))
	}
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		for i := range calls {
			synced, err := j.Open(calls[i])
			if err == nil && i == 0 {
				err = synced(b.Context())
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		for i := range calls {
			if err := j.Close(b.Context(), calls[i]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/float64(len(calls)), "cpu-ns/call")
	if err := j.Stop(); err != nil {
		b.Fatal(err)
	}
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
