package waybill

import (
	"strconv"
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendJSONString appends s as a JSON string, escaping no more than JSON demands.
// Bytes that are not UTF-8 become U+FFFD, as encoding/json does.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0 // s up to here is in b
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[done:i]...)
			if c >= 0x20 {
				b = append(b, '\\', c)
			} else {
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			done = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b = append(b, s[done:i]...)
			b = utf8.AppendRune(b, r)
			done = i + n
		}
		i += n
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// AppendJSON appends the entry as encoding/json would write it, but for characters that
// need no escape: it is on the path of every call, twice.
func (e *Entry) AppendJSON(b []byte) []byte { return e.Invocation.AppendEntry(b, e.Kind) }

// AppendEntry appends the entry of a kind that tells of the invocation. It needs no copy
// of it: a copy on the stack is what a waiting call would hold on to.
func (v *Invocation) AppendEntry(b []byte, kind EntryKind) []byte {
	b = append(b, `{"kind":`...)
	b = appendJSONString(b, string(kind))
	b = append(b, `,"invocation":`...)
	b = v.appendJSON(b)
	return append(b, '}')
}

// appendJSON writes every field of the invocation: TestAppendJSON knows which there are.
func (v *Invocation) appendJSON(b []byte) []byte {
	b = append(b, '{')
	b = appendMember(b, `"call_id":`, v.CallID)
	b = appendMember(b, `"request_id":`, v.RequestID)
	b = append(b, `"source":`...)
	b = appendJSONString(b, string(v.Source))
	b = append(b, `,"started_at":"`...)
	b = v.StartedAt.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `",`...)
	b = appendMember(b, `"account":`, v.Account)
	b = appendMember(b, `"region":`, v.Region)
	b = appendMember(b, `"inference_region":`, v.InferenceRegion)
	b = appendMember(b, `"endpoint":`, string(v.Endpoint))
	b = appendMember(b, `"operation":`, v.Operation)
	b = appendMember(b, `"model_id":`, string(v.ModelID))
	b = appendMember(b, `"model_asked":`, string(v.ModelAsked))
	b = appendMember(b, `"model":`, v.Model)
	b = appendMember(b, `"profile":`, v.Profile)
	b = appendMember(b, `"project":`, v.Project)
	b = appendMember(b, `"scope":`, string(v.Scope))
	b = appendMember(b, `"principal":`, v.Principal)
	b = appendMember(b, `"issuer":`, v.Issuer)
	b = appendMember(b, `"key_id":`, v.KeyID)
	b = appendMember(b, `"principal_arn":`, v.PrincipalARN)
	b = appendMember(b, `"session_name":`, v.SessionName)
	b = append(b, `"tags":`...)
	b = v.Tags.AppendJSON(b)
	b = append(b, `,"carried":`...)
	b = appendJSONString(b, v.Carried)
	b = append(b, ',')
	b = appendMember(b, `"policy_version":`, v.PolicyVersion)
	b = appendMember(b, `"policy_outcome":`, string(v.PolicyOutcome))
	if len(v.Reasons) > 0 {
		b = append(b, `"reasons":[`...)
		for i, reason := range v.Reasons {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSONString(b, reason)
		}
		b = append(b, `],`...)
	}
	b = append(b, `"usage":`...)
	b = v.Usage.appendJSON(b)
	b = append(b, ',')
	b = appendMember(b, `"usage_from":`, v.UsageFrom)
	b = appendMember(b, `"tier_asked":`, v.TierAsked)
	b = appendMember(b, `"tier":`, v.Tier)
	b = appendMember(b, `"latency_mode":`, v.LatencyMode)
	if v.Streamed {
		b = append(b, `"streamed":true,`...)
	}
	b = appendMember(b, `"stop_reason":`, v.StopReason)
	b = appendNumber(b, `"guardrail_units":`, v.GuardrailUnits)
	b = append(b, `"outcome":`...)
	b = appendJSONString(b, string(v.Outcome))
	b = append(b, ',')
	b = appendNumber(b, `"status":`, int64(v.Status))
	b = appendMember(b, `"error_code":`, v.ErrorCode)
	b = appendNumber(b, `"latency_ns":`, int64(v.Latency))
	b = appendNumber(b, `"time_to_first_byte_ns":`, int64(v.TimeToFirstByte))
	b = appendNumber(b, `"request_bytes":`, v.RequestBytes)
	b = appendNumber(b, `"response_bytes":`, v.ResponseBytes)
	if v.ClientLeft {
		b = append(b, `"client_left":true,`...)
	}
	b = appendMember(b, `"sdk_invocation_id":`, v.SDKInvocationID)
	b = appendMember(b, `"traceparent":`, v.TraceParent)
	b = appendMember(b, `"gateway":`, v.Gateway)
	b[len(b)-1] = '}' // in the place of the last comma
	return b
}

// appendMember appends a member and a comma, if the value is not empty.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, name...)
	b = appendJSONString(b, value)
	return append(b, ',')
}

// appendNumber appends a member and a comma, if the value is not zero.
func appendNumber(b []byte, name string, value int64) []byte {
	if value == 0 {
		return b
	}
	b = append(b, name...)
	b = strconv.AppendInt(b, value, 10)
	return append(b, ',')
}
