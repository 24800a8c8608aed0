package fakeaws

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
)

// A Metric is one datum of CloudWatch, of one day.
type Metric struct {
	Namespace, Name string
	Dimensions      map[string]string
	Day             time.Time // midnight UTC
	Sum             float64
}

// A Quota is one of an account's service quotas.
type Quota struct {
	ServiceCode, QuotaCode, QuotaName string
	Value                             float64
	Adjustable                        bool
}

type logGroup struct {
	Name      string
	Retention int // days; 0 for ever
}

// PutMetric adds a datum.
func (p *ControlPlane) PutMetric(account, region string, m Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.region(account, region)
	r.metrics = append(r.metrics, m)
}

// PutEvent adds an event to CloudTrail's history; the text is the event's own JSON.
func (p *ControlPlane) PutEvent(account, region, event string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.region(account, region)
	r.trail = append(r.trail, json.RawMessage(event))
}

// PutQuota sets a service quota.
func (p *ControlPlane) PutQuota(account, region string, q Quota) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.region(account, region)
	r.quotas = append(r.quotas, q)
}

// PutLogGroup makes a log group.
func (p *ControlPlane) PutLogGroup(account, region, name string, retentionDays int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.region(account, region).groups[name] = &logGroup{name, retentionDays}
}

func cborText(m cbor.Map, key string) string {
	s, _ := m[key].(cbor.String)
	return string(s)
}

func cborList(m cbor.Map, key string) cbor.List {
	l, _ := m[key].(cbor.List)
	return l
}

func cborDimensions(l cbor.List) map[string]string {
	out := make(map[string]string)
	for _, v := range l {
		m, _ := v.(cbor.Map)
		out[cborText(m, "Name")] = cborText(m, "Value")
	}
	return out
}

func sameTags(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

func (p *ControlPlane) cloudWatch(r *controlRequest) (any, *refusal) {
	value, err := cbor.Decode(r.body)
	in, ok := value.(cbor.Map)
	if err != nil || !ok {
		return nil, refusef("SerializationException", "not a CBOR map: %v", err)
	}
	here := p.region(r.Account, r.Region)
	switch r.Operation {
	case "ListMetrics":
		return p.listMetrics(in, here)
	case "GetMetricData":
		return p.metricData(in, here)
	}
	return nil, refusef("UnknownOperationException", "%s", r.Operation)
}

func metricKey(m *Metric) string {
	s := m.Namespace + "\x00" + m.Name
	for _, k := range sortedKeys(m.Dimensions) {
		s += "\x00" + k + "=" + m.Dimensions[k]
	}
	return s
}

func (p *ControlPlane) listMetrics(in cbor.Map, here *regionState) (any, *refusal) {
	seen := make(map[string]*Metric)
	for i := range here.metrics {
		m := &here.metrics[i]
		if ns := cborText(in, "Namespace"); ns != "" && ns != m.Namespace {
			continue
		}
		if name := cborText(in, "MetricName"); name != "" && name != m.Name {
			continue
		}
		good := true
		for _, v := range cborList(in, "Dimensions") {
			f, _ := v.(cbor.Map)
			have, ok := m.Dimensions[cborText(f, "Name")]
			good = good && ok && (cborText(f, "Value") == "" || cborText(f, "Value") == have)
		}
		if good {
			seen[metricKey(m)] = m
		}
	}
	part, next, no := page(sortedKeys(seen), cborText(in, "NextToken"), 0, 500, p.config.PageSize)
	if no != nil {
		return nil, no
	}
	list := cbor.List{}
	for _, k := range part {
		m := seen[k]
		dims := cbor.List{}
		for _, d := range sortedKeys(m.Dimensions) {
			dims = append(dims, cbor.Map{"Name": cbor.String(d), "Value": cbor.String(m.Dimensions[d])})
		}
		list = append(list, cbor.Map{"Namespace": cbor.String(m.Namespace), "MetricName": cbor.String(m.Name), "Dimensions": dims})
	}
	out := cbor.Map{"Metrics": list}
	if next != "" {
		out["NextToken"] = cbor.String(next)
	}
	return out, nil
}

func (p *ControlPlane) metricData(in cbor.Map, here *regionState) (any, *refusal) {
	start, err1 := cbor.AsTime(in["StartTime"])
	end, err2 := cbor.AsTime(in["EndTime"])
	queries := cborList(in, "MetricDataQueries")
	if err1 != nil || err2 != nil || !start.Before(end) || len(queries) == 0 || len(queries) > 500 {
		return nil, refusef("ValidationError", "StartTime before EndTime, 1 to 500 queries")
	}
	results := cbor.List{}
	ids := make(map[string]bool)
	for _, v := range queries {
		q, _ := v.(cbor.Map)
		id := cborText(q, "Id")
		stat, _ := q["MetricStat"].(cbor.Map)
		metric, _ := stat["Metric"].(cbor.Map)
		period, err := cbor.AsInt32(stat["Period"])
		if id == "" || ids[id] || id[0] < 'a' || id[0] > 'z' || err != nil || period != 86400 || cborText(stat, "Stat") != "Sum" {
			return nil, refusef("ValidationError", "query %q: an id that begins with a small letter, once; a metric, a sum, a day", id)
		}
		ids[id] = true
		sums := make(map[time.Time]float64)
		for _, m := range here.metrics {
			if m.Namespace == cborText(metric, "Namespace") && m.Name == cborText(metric, "MetricName") && sameTags(m.Dimensions, cborDimensions(cborList(metric, "Dimensions"))) &&
				!m.Day.Before(start) && m.Day.Before(end) {
				sums[m.Day] += m.Sum
			}
		}
		var days []time.Time
		for d := range sums {
			days = append(days, d)
		}
		sort.Slice(days, func(i, j int) bool { return days[i].After(days[j]) }) // newest first
		at, values := cbor.List{}, cbor.List{}
		for _, d := range days {
			at = append(at, &cbor.Tag{ID: 1, Value: cbor.Float64(d.Unix())})
			values = append(values, cbor.Float64(sums[d]))
		}
		results = append(results, cbor.Map{"Id": cbor.String(id), "Label": cbor.String(id), "Timestamps": at, "Values": values, "StatusCode": cbor.String("Complete")})
	}
	part, next, no := page(results, cborText(in, "NextToken"), 0, 500, p.config.PageSize)
	if no != nil {
		return nil, no
	}
	out := cbor.Map{"MetricDataResults": cbor.List(part), "Messages": cbor.List{}}
	if next != "" {
		out["NextToken"] = cbor.String(next)
	}
	return out, nil
}

func (p *ControlPlane) cloudTrail(r *controlRequest) (any, *refusal) {
	if r.Operation != "LookupEvents" {
		return nil, refusef("UnknownOperationException", "%s", r.Operation)
	}
	var in struct {
		LookupAttributes   []struct{ AttributeKey, AttributeValue string }
		StartTime, EndTime float64
		MaxResults         int
		NextToken          string
		EventCategory      string
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	if len(in.LookupAttributes) > 1 || in.MaxResults > 50 || in.MaxResults < 0 {
		return nil, refusef("InvalidLookupAttributesException", "one attribute, at most 50 results")
	}
	var all []obj
	for _, raw := range p.region(r.Account, r.Region).trail {
		var e struct {
			EventID, EventName, EventSource string
			EventTime                       time.Time
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			return nil, &refusal{500, "InternalError", err.Error()}
		}
		at := float64(e.EventTime.Unix())
		if in.StartTime > 0 && at < in.StartTime || in.EndTime > 0 && at > in.EndTime {
			continue
		}
		if len(in.LookupAttributes) == 1 {
			a := in.LookupAttributes[0]
			if a.AttributeKey == "EventSource" && a.AttributeValue != e.EventSource || a.AttributeKey == "EventName" && a.AttributeValue != e.EventName {
				continue
			}
		}
		all = append(all, obj{"EventId": e.EventID, "EventName": e.EventName, "EventSource": e.EventSource, "EventTime": at, "CloudTrailEvent": string(raw)})
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i]["EventTime"].(float64) > all[j]["EventTime"].(float64) })
	part, next, no := page(all, in.NextToken, in.MaxResults, 50, p.config.PageSize)
	if no != nil {
		return nil, no
	}
	out := obj{"Events": append([]obj{}, part...)}
	if next != "" {
		out["NextToken"] = next
	}
	return out, nil
}

func (p *ControlPlane) serviceQuotas(r *controlRequest) (any, *refusal) {
	var in struct {
		ServiceCode, QuotaCode, NextToken string
		MaxResults                        int
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	var all []obj
	for _, q := range p.region(r.Account, r.Region).quotas {
		if q.ServiceCode == in.ServiceCode && (in.QuotaCode == "" || in.QuotaCode == q.QuotaCode) {
			all = append(all, obj{"ServiceCode": q.ServiceCode, "QuotaCode": q.QuotaCode, "QuotaName": q.QuotaName, "Value": q.Value, "Adjustable": q.Adjustable})
		}
	}
	switch r.Operation {
	case "ListServiceQuotas":
		if len(all) == 0 {
			return nil, refusef("NoSuchResourceException", "service %s", in.ServiceCode)
		}
		part, next, no := page(all, in.NextToken, in.MaxResults, 100, p.config.PageSize)
		if no != nil {
			return nil, no
		}
		out := obj{"Quotas": append([]obj{}, part...)}
		if next != "" {
			out["NextToken"] = next
		}
		return out, nil
	case "GetServiceQuota":
		if len(all) != 1 {
			return nil, refusef("NoSuchResourceException", "quota %s", in.QuotaCode)
		}
		return obj{"Quota": all[0]}, nil
	}
	return nil, refusef("UnknownOperationException", "%s", r.Operation)
}

// retentions are the days that CloudWatch Logs takes.
var retentions = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

func (p *ControlPlane) cloudWatchLogs(r *controlRequest) (any, *refusal) {
	var in struct {
		LogGroupName, LogGroupNamePrefix, NextToken, LogGroupClass string
		RetentionInDays, Limit                                     int
		Tags                                                       map[string]string
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	groups := p.region(r.Account, r.Region).groups
	arn := "arn:aws:logs:" + r.Region + ":" + r.Account + ":log-group:"
	switch r.Operation {
	case "DescribeLogGroups":
		var names []string
		for _, n := range sortedKeys(groups) {
			if strings.HasPrefix(n, in.LogGroupNamePrefix) {
				names = append(names, n)
			}
		}
		part, next, no := page(names, in.NextToken, in.Limit, 50, p.config.PageSize)
		if no != nil {
			return nil, no
		}
		list := []obj{}
		for _, n := range part {
			o := obj{"logGroupName": n, "arn": arn + n + ":*", "logGroupArn": arn + n, "storedBytes": 0}
			if d := groups[n].Retention; d > 0 {
				o["retentionInDays"] = d
			}
			list = append(list, o)
		}
		out := obj{"logGroups": list}
		if next != "" {
			out["nextToken"] = next
		}
		return out, nil
	case "CreateLogGroup":
		if !logGroupText.MatchString(in.LogGroupName) {
			return nil, refusef("InvalidParameterException", "%s", in.LogGroupName)
		}
		if groups[in.LogGroupName] != nil {
			return nil, refusef("ResourceAlreadyExistsException", "The specified log group already exists")
		}
		groups[in.LogGroupName] = &logGroup{Name: in.LogGroupName}
		return obj{}, nil
	case "PutRetentionPolicy":
		g := groups[in.LogGroupName]
		if g == nil {
			return nil, refusef("ResourceNotFoundException", "The specified log group does not exist.")
		}
		for _, d := range retentions {
			if d == in.RetentionInDays {
				g.Retention = d
				return obj{}, nil
			}
		}
		return nil, refusef("InvalidParameterException", "retentionInDays %s", fmt.Sprint(in.RetentionInDays))
	}
	return nil, refusef("UnknownOperationException", "%s", r.Operation)
}
