package iam

import (
	"strings"
	"testing"
)

// Every mistake is told with its place: IAM User Guide, "Grammar of the IAM JSON policy
// language"; Organizations User Guide, "SCP syntax".
func TestMistakes(t *testing.T) {
	const head = `{"Version":"2012-10-17","Statement":`
	tests := []struct {
		kind        Kind
		text, wants string
	}{
		{Identity, ``, "ends too early"},
		{Identity, `[]`, "a policy is an object"},
		{Identity, `{}`, "Statement is missing"},
		{Identity, head + allowAll + `} {}`, "something follows"},
		{Identity, `{"Version":"2012-10-17"}`, "Statement is missing"},
		{Identity, head + `[]}`, "Statement is empty"},
		{Identity, `{"Version":"2026-01-01","Statement":` + allowAll + `}`, "neither 2012-10-17"},
		{Identity, `{"version":"2012-10-17","Statement":` + allowAll + `}`, `p:1:2: "version" is no element`},
		{Identity, head + allowAll + `,"Statement":` + allowAll + `}`, "twice"},
		{Identity, head + `{"Effect":"allow","Action":"*","Resource":"*"}}`, "neither Allow nor Deny"},
		{Identity, head + `{"Action":"*","Resource":"*"}}`, "Effect is missing"},
		{Identity, head + `{"Effect":"Allow","Resource":"*"}}`, "either Action or NotAction"},
		{Identity, head + `{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}}`, "either Action or NotAction"},
		{Identity, head + `{"Effect":"Allow","Action":"*"}}`, "either Resource or NotResource"},
		{Identity, head + `{"Effect":"Allow","Action":[],"Resource":"*"}}`, "Action is empty"},
		{Identity, head + `{"Effect":"Allow","Action":"InvokeModel","Resource":"*"}}`, "neither * nor service:Action"},
		{Identity, head + `{"Effect":"Allow","Action":"bed*:InvokeModel","Resource":"*"}}`, "wildcards stand after the colon"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"model/x"}}`, "neither * nor an ARN"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"arn:aws:bedrock:*"}}`, "neither * nor an ARN"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}}`, "has no Principal"},
		{ServiceControl, head + `{"Effect":"Deny","Action":"*","Resource":"*","NotPrincipal":"*"}}`, "has no Principal"},
		{Trust, head + `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"}}`, "has no Resource"},
		{Trust, head + `{"Effect":"Allow","Action":"sts:AssumeRole"}}`, "either Principal or NotPrincipal"},
		{Trust, head + `{"Effect":"Allow","Action":"sts:AssumeRole","NotPrincipal":{"AWS":"111122223333"}}}`, "a role trust policy has no NotPrincipal"},
		{Resource, head + `{"Effect":"Allow","Action":"s3:*","Resource":"*","NotPrincipal":{"AWS":"111122223333"}}}`, "NotPrincipal stands with Deny only"},
		{Trust, head + `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111122223333:role/*"}}}`, "is no AWS principal"},
		{Trust, head + `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"aws":"*"}}}`, "is no kind of principal"},
		{Trust, head + `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{}}}`, "Principal is *"},
		{Trust, head + `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"bedrock"}}}`, "is no Service principal"},
		{Identity, head + `[{"Sid":"a b","Effect":"Allow","Action":"*","Resource":"*"}]}`, "other characters"},
		{Identity, head + `[{"Sid":"A","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"A","Effect":"Allow","Action":"*","Resource":"*"}]}`, "unique"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringMatches":{"aws:key":"a"}}}}`, "is not known"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"stringequals":{"aws:key":"a"}}}}`, "is not known"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForSomeValues:StringEquals":{"aws:key":"a"}}}}`, "neither ForAllValues"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ForAnyValue:StringEqualsIfExists":{"aws:key":"a"}}}}`, "does not say what IfExists means"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NullIfExists":{"aws:key":"true"}}}}`, "Null stands alone"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"BinaryEquals":{"aws:key":"AAAA"}}}}`, "not evaluated here"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"aws:key":"yes"}}}}`, "neither true nor false"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"ArnLike":{"aws:key":"*"}}}}`, "no ARN of six parts"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NumericEquals":{"aws:key":"1e9"}}}}`, "is no number"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateEquals":{"aws:key":"today"}}}}`, "is no date"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:key":"10.0.0.0/64"}}}}`, "no range of addresses"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"key":"a"}}}}`, "is no condition key"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:key":[]}}}}`, "has no value"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:key":{}}}}}`, "holds a text, a number"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:Key":"a","aws:key":"b"}}}}`, "case does not tell keys apart"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:key":"${aws:username"}}}}`, "is not closed"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:key":"${username}"}}}}`, "is no policy variable"},
		{Identity, head + `{"Effect":"Allow","Action":"*","Resource":"*","Comment":"x"}}`, "no element of a statement"},
		{Identity, "{\n \"Version\": \"2012-10-17\",\n \"Statement\": [{\"Effect\": \"Permit\"}]}", "p:3:27: "},
		{ServiceControl, head + allowAll + `}` + strings.Repeat(" ", 10_240), "at most 10240"},
		{Trust, head + `[` + strings.Repeat(`{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111122223333:role/r"}},`, 41) + `{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*"}]}`, "at most 4096"},
	}
	for _, tt := range tests {
		_, err := Parse("p", tt.kind, []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.wants) {
			t.Errorf("%s %s:\n got %v\nwant %s", tt.kind, tt.text, err, tt.wants)
		}
	}
}

// White space counts where the document is stored as sent, and nowhere else.
func TestSize(t *testing.T) {
	loose, tight := "{ \"Version\": \"2012-10-17\",\n\"Statement\": "+allowAll+" }", `{"Version":"2012-10-17","Statement":`+allowAll+`}`
	if got, want := Size(Identity, []byte(loose)), len(tight); got != want {
		t.Errorf("identity: %d, want %d", got, want)
	}
	if got, want := Size(ServiceControl, []byte(loose)), len(loose); got != want {
		t.Errorf("SCP: %d, want %d", got, want)
	}
	if got := Size(Identity, []byte(`{"a":"é é"}`)); got != 11 {
		t.Errorf("characters, not bytes: %d", got)
	}
}
