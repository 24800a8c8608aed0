package fakeaws

import (
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"time"
)

type billingState struct {
	tags      map[string]*CostTag
	backfills []backfill
	exports   []*exportState
}

// A CostTag is a cost allocation tag as the payer's account lists it.
type CostTag struct {
	TagKey          string
	Type            string // UserDefined or AWSGenerated
	Status          string // Active or Inactive
	LastUpdatedDate string `json:",omitempty"`
	LastUsedDate    string `json:",omitempty"`
}

type backfill struct {
	BackfillFrom, RequestedAt, CompletedAt, BackfillStatus, LastUpdatedAt string
	at                                                                    time.Time
}

type exportState struct {
	arn     string
	body    exportBody
	created time.Time
	tags    []exportTag
}

// UseTag makes a key listed, as it is a day after a call or resource first carried it.
func (p *ControlPlane) UseTag(t CostTag) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.billing.tags == nil {
		p.billing.tags = make(map[string]*CostTag)
	}
	p.billing.tags[t.TagKey] = &t
}

func (p *ControlPlane) costExplorer(r *controlRequest) (any, *refusal) {
	if r.Account != p.config.Management {
		return nil, refusef("AccessDeniedException", "Linked account doesn't have access to cost allocation tags.")
	}
	switch r.Operation {
	case "ListCostAllocationTags":
		return p.listCostTags(r)
	case "UpdateCostAllocationTagsStatus":
		return p.updateCostTags(r)
	case "StartCostAllocationTagBackfill":
		return p.startBackfill(r)
	case "ListCostAllocationTagBackfillHistory":
		var in struct {
			NextToken  string
			MaxResults int
		}
		if no := r.json(&in); no != nil {
			return nil, no
		}
		part, next, no := page(p.billing.backfills, in.NextToken, in.MaxResults, 1000, p.config.PageSize)
		if no != nil {
			return nil, no
		}
		out := obj{"BackfillRequests": append([]backfill{}, part...)}
		if next != "" {
			out["NextToken"] = next
		}
		return out, nil
	}
	return nil, refusef("UnknownOperationException", "%s", r.Operation)
}

func (p *ControlPlane) listCostTags(r *controlRequest) (any, *refusal) {
	var in struct {
		Status, Type, NextToken string
		TagKeys                 []string
		MaxResults              int
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	if len(in.TagKeys) > 100 || in.MaxResults < 0 || in.MaxResults > 1000 {
		return nil, refusef("ValidationException", "TagKeys at most 100, MaxResults 1 to 1000")
	}
	var all []CostTag
	for _, k := range sortedKeys(p.billing.tags) {
		t := p.billing.tags[k]
		if (in.Status == "" || t.Status == in.Status) && (in.Type == "" || t.Type == in.Type) && (len(in.TagKeys) == 0 || contains(in.TagKeys, k)) {
			all = append(all, *t)
		}
	}
	part, next, no := page(all, in.NextToken, in.MaxResults, 100, p.config.PageSize)
	if no != nil {
		return nil, no
	}
	out := obj{"CostAllocationTags": append([]CostTag{}, part...)}
	if next != "" {
		out["NextToken"] = next
	}
	return out, nil
}

func (p *ControlPlane) updateCostTags(r *controlRequest) (any, *refusal) {
	var in struct {
		CostAllocationTagsStatus []struct{ TagKey, Status string }
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	if n := len(in.CostAllocationTagsStatus); n < 1 || n > 20 {
		return nil, refusef("ValidationException", "CostAllocationTagsStatus has 1 to 20 members, not %d", n)
	}
	active := 0
	for _, t := range p.billing.tags {
		if t.Status == "Active" {
			active++
		}
	}
	failed := []obj{}
	for _, s := range in.CostAllocationTagsStatus {
		t := p.billing.tags[s.TagKey]
		switch {
		case s.Status != "Active" && s.Status != "Inactive":
			return nil, refusef("ValidationException", "Status %q", s.Status)
		case t == nil:
			failed = append(failed, obj{"TagKey": s.TagKey, "Code": "TagKeyNotFound", "Message": "Tag keys not found: " + s.TagKey})
		case t.Status == s.Status:
		case s.Status == "Active" && active >= 500:
			failed = append(failed, obj{"TagKey": s.TagKey, "Code": "LimitExceeded", "Message": "500 keys are active"})
		default:
			if s.Status == "Active" {
				active++
			} else {
				active--
			}
			t.Status, t.LastUpdatedDate = s.Status, p.world.Now().UTC().Format(time.RFC3339)
		}
	}
	return obj{"Errors": failed}, nil
}

func (p *ControlPlane) startBackfill(r *controlRequest) (any, *refusal) {
	var in struct{ BackfillFrom string }
	if no := r.json(&in); no != nil {
		return nil, no
	}
	from, err := time.Parse(time.RFC3339, in.BackfillFrom)
	now := p.world.Now().UTC()
	if err != nil || len(in.BackfillFrom) < 20 || len(in.BackfillFrom) > 25 || from.Day() != 1 || from.Hour() != 0 {
		return nil, refusef("ValidationException", "BackfillFrom is the first of a month, such as 2026-10-01T00:00:00Z")
	}
	if from.After(now) || from.Before(time.Date(now.Year(), now.Month()-12, 1, 0, 0, 0, 0, time.UTC)) {
		return nil, refusef("ValidationException", "BackfillFrom is at most twelve months back")
	}
	for _, b := range p.billing.backfills {
		if b.BackfillStatus == "PROCESSING" || now.Sub(b.at) < 24*time.Hour {
			return nil, refusef("BackfillLimitExceededException", "one backfill in 24 hours")
		}
	}
	at := now.Format(time.RFC3339)
	b := backfill{BackfillFrom: in.BackfillFrom, RequestedAt: at, LastUpdatedAt: at, BackfillStatus: "SUCCEEDED", CompletedAt: at, at: now}
	p.billing.backfills = append([]backfill{b}, p.billing.backfills...)
	return obj{"BackfillRequest": b}, nil
}

type exportTag struct{ Key, Value string }

type exportBody struct {
	ExportArn   string `json:",omitempty"`
	Name        string
	Description string `json:",omitempty"`
	DataQuery   struct {
		QueryStatement      string
		TableConfigurations map[string]map[string]string `json:",omitempty"`
	}
	DestinationConfigurations struct {
		S3Destination struct {
			S3Bucket, S3Prefix, S3Region string
			S3BucketOwner                string `json:",omitempty"`
			S3OutputConfigurations       struct{ OutputType, Format, Compression, Overwrite string }
		}
	}
	RefreshCadence struct{ Frequency string }
}

// curColumns are columns of COST_AND_USAGE_REPORT; those with a property come with it.
var curColumns = map[string]string{
	"bill_bill_type": "", "bill_billing_entity": "", "bill_billing_period_end_date": "", "bill_billing_period_start_date": "", "bill_invoice_id": "",
	"bill_invoicing_entity": "", "bill_payer_account_id": "", "bill_payer_account_name": "", "cost_category": "", "discount": "", "discount_bundled_discount": "",
	"discount_total_discount": "", "identity_line_item_id": "", "identity_time_interval": "", "line_item_availability_zone": "", "line_item_blended_cost": "",
	"line_item_blended_rate": "", "line_item_currency_code": "", "line_item_legal_entity": "", "line_item_line_item_description": "", "line_item_line_item_type": "",
	"line_item_net_unblended_cost": "", "line_item_net_unblended_rate": "", "line_item_normalization_factor": "", "line_item_normalized_usage_amount": "",
	"line_item_operation": "", "line_item_product_code": "", "line_item_tax_type": "", "line_item_unblended_cost": "", "line_item_unblended_rate": "",
	"line_item_usage_account_id": "", "line_item_usage_account_name": "", "line_item_usage_amount": "", "line_item_usage_end_date": "", "line_item_usage_start_date": "",
	"line_item_usage_type": "", "pricing_currency": "", "pricing_public_on_demand_cost": "", "pricing_public_on_demand_rate": "", "pricing_rate_code": "",
	"pricing_rate_id": "", "pricing_term": "", "pricing_unit": "", "product": "", "product_fee_code": "", "product_product_family": "", "product_region_code": "",
	"product_servicecode": "", "product_sku": "", "product_usagetype": "", "resource_tags": "", "tags": "",
	"line_item_resource_id": "INCLUDE_RESOURCES", "line_item_iam_principal": "INCLUDE_IAM_PRINCIPAL_DATA",
}

var curProperties = map[string][]string{
	"TIME_GRANULARITY": {"HOURLY", "DAILY", "MONTHLY"}, "INCLUDE_RESOURCES": {"TRUE", "FALSE"}, "INCLUDE_IAM_PRINCIPAL_DATA": {"TRUE", "FALSE"},
	"INCLUDE_SPLIT_COST_ALLOCATION_DATA": {"TRUE", "FALSE"}, "INCLUDE_MANUAL_DISCOUNT_COMPATIBILITY": {"TRUE", "FALSE"},
	"INCLUDE_CAPACITY_RESERVATION_DATA": {"TRUE", "FALSE"},
}

func (p *ControlPlane) columnsOf(properties map[string]string) ([]string, *refusal) {
	for k, v := range properties {
		if allowed, ok := curProperties[k]; !ok || !contains(allowed, v) {
			return nil, refusef("ValidationException", "table COST_AND_USAGE_REPORT has no such property: %s=%s", k, v)
		}
	}
	var names []string
	for name, need := range curColumns {
		if need == "" || properties[need] == "TRUE" && !(p.config.NoPrincipalColumn && name == "line_item_iam_principal") {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names, nil
}

func (p *ControlPlane) dataExports(r *controlRequest) (any, *refusal) {
	switch r.Operation {
	case "ListExports":
		var in struct {
			MaxResults int
			NextToken  string
		}
		if no := r.json(&in); no != nil {
			return nil, no
		}
		var mine []*exportState
		for _, e := range p.billing.exports {
			if accountOf(e.arn) == r.Account {
				mine = append(mine, e)
			}
		}
		part, next, no := page(mine, in.NextToken, in.MaxResults, 300, p.config.PageSize)
		if no != nil {
			return nil, no
		}
		list := []any{}
		for _, e := range part {
			list = append(list, obj{"ExportArn": e.arn, "ExportName": e.body.Name, "ExportStatus": p.exportStatus(e)})
		}
		out := obj{"Exports": list}
		if next != "" {
			out["NextToken"] = next
		}
		return out, nil
	case "GetTable":
		var in struct {
			TableName       string
			TableProperties map[string]string
		}
		if no := r.json(&in); no != nil {
			return nil, no
		}
		if in.TableName != "COST_AND_USAGE_REPORT" {
			return nil, refusef("ValidationException", "table %s does not exist", in.TableName)
		}
		names, no := p.columnsOf(in.TableProperties)
		if no != nil {
			return nil, no
		}
		schema := []any{}
		for _, n := range names {
			schema = append(schema, obj{"Name": n, "Type": "string", "Description": n})
		}
		return obj{"TableName": in.TableName, "Schema": schema, "TableProperties": in.TableProperties}, nil
	case "GetExport":
		var in struct{ ExportArn string }
		if no := r.json(&in); no != nil {
			return nil, no
		}
		e := p.export(r.Account, in.ExportArn)
		if e == nil {
			return nil, refusef("ResourceNotFoundException", "%s", in.ExportArn)
		}
		body := e.body
		body.ExportArn = e.arn
		return obj{"Export": body, "ExportStatus": p.exportStatus(e)}, nil
	case "CreateExport", "UpdateExport":
		return p.putExport(r)
	}
	return nil, refusef("UnknownOperationException", "%s", r.Operation)
}

func (p *ControlPlane) export(account, arn string) *exportState {
	for _, e := range p.billing.exports {
		if e.arn == arn && accountOf(arn) == account {
			return e
		}
	}
	return nil
}

func (p *ControlPlane) exportStatus(e *exportState) obj {
	at := e.created.UTC().Format(time.RFC3339)
	status := obj{"StatusCode": "HEALTHY", "CreatedAt": at, "LastUpdatedAt": at}
	if !p.mayExport(accountOf(e.arn), &e.body) {
		status["StatusCode"], status["StatusReason"] = "UNHEALTHY", "INSUFFICIENT_PERMISSION"
	}
	return status
}

func (p *ControlPlane) mayExport(account string, e *exportBody) bool {
	d := e.DestinationConfigurations.S3Destination
	b := p.buckets[d.S3Bucket]
	if b == nil || b.owner != account || b.policy == nil || b.region != d.S3Region {
		return false
	}
	// The test object goes to the root: a grant on the prefix alone does not do.
	return b.policy.mayPut("bcm-data-exports.amazonaws.com", "arn:aws:s3:::"+d.S3Bucket+"/aws-programmatic-access-test-object", account,
		"arn:aws:bcm-data-exports:us-east-1:"+account+":export/any")
}

var (
	exportName  = regexp.MustCompile(`^[0-9A-Za-z_-]{1,128}$`)
	exportQuery = regexp.MustCompile(`(?i)^\s*SELECT\s+(.+?)\s+FROM\s+COST_AND_USAGE_REPORT\s*$`)
)

func (p *ControlPlane) putExport(r *controlRequest) (any, *refusal) {
	var in struct {
		ExportArn    string
		Export       exportBody
		ResourceTags []exportTag
	}
	if no := r.json(&in); no != nil {
		return nil, no
	}
	e := &in.Export
	out := e.DestinationConfigurations.S3Destination.S3OutputConfigurations
	query := exportQuery.FindStringSubmatch(e.DataQuery.QueryStatement)
	switch {
	case !exportName.MatchString(e.Name):
		return nil, refusef("ValidationException", "Name %q", e.Name)
	case len(e.DataQuery.QueryStatement) > 36000 || query == nil:
		return nil, refusef("ValidationException", "QueryStatement is not valid")
	case !contains([]string{"CUSTOM", "ATHENA", "REDSHIFT"}, out.OutputType),
		out.Format+out.Compression != "PARQUETPARQUET" && out.Format+out.Compression != "TEXT_OR_CSVGZIP",
		!contains([]string{"CREATE_NEW_REPORT", "OVERWRITE_REPORT"}, out.Overwrite):
		return nil, refusef("ValidationException", "S3OutputConfigurations %+v", out)
	case e.RefreshCadence.Frequency != "SYNCHRONOUS":
		return nil, refusef("ValidationException", "Frequency %q", e.RefreshCadence.Frequency)
	case len(in.ResourceTags) > 200:
		return nil, refusef("ValidationException", "at most 200 tags")
	}
	properties := e.DataQuery.TableConfigurations["COST_AND_USAGE_REPORT"]
	columns, no := p.columnsOf(properties)
	if no != nil {
		return nil, no
	}
	for _, c := range strings.Split(query[1], ",") {
		if name := strings.ToLower(strings.TrimSpace(c)); !contains(columns, name) {
			return nil, refusef("ValidationException", "column %s does not exist in table COST_AND_USAGE_REPORT", name)
		}
	}
	if !p.mayExport(r.Account, e) {
		return nil, refusef("ValidationException", "S3 bucket permission validation failed.")
	}
	if r.Operation == "UpdateExport" {
		old := p.export(r.Account, in.ExportArn)
		if old == nil {
			return nil, refusef("ResourceNotFoundException", "%s", in.ExportArn)
		}
		was := old.body.DataQuery.TableConfigurations["COST_AND_USAGE_REPORT"]["INCLUDE_IAM_PRINCIPAL_DATA"]
		if p.config.FixedExports && was != properties["INCLUDE_IAM_PRINCIPAL_DATA"] {
			return nil, refusef("ValidationException", "table configurations cannot be changed")
		}
		e.ExportArn = ""
		old.body = *e
		return obj{"ExportArn": old.arn}, nil
	}
	for _, old := range p.billing.exports {
		if old.body.Name == e.Name && accountOf(old.arn) == r.Account {
			return nil, refusef("ValidationException", "an export of the name %s exists", e.Name)
		}
	}
	if len(p.billing.exports) >= 5 {
		return nil, refusef("ServiceQuotaExceededException", "5 exports of a table")
	}
	state := &exportState{arn: fmt.Sprintf("arn:aws:bcm-data-exports:us-east-1:%s:export/%s-%s", r.Account, e.Name, newID()), body: *e, created: p.world.Now(), tags: in.ResourceTags}
	p.billing.exports = append(p.billing.exports, state)
	return obj{"ExportArn": state.arn}, nil
}

// PutExport puts an export there as it is, whatever it lacks. The text is that of the
// API's Export.
func (p *ControlPlane) PutExport(account, body string) error {
	var e exportBody
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.billing.exports = append(p.billing.exports, &exportState{arn: fmt.Sprintf("arn:aws:bcm-data-exports:us-east-1:%s:export/%s-%s", account, e.Name, newID()), body: e, created: p.world.Now()})
	return nil
}
