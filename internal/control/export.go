package control

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bcmdataexports"
	exporttypes "github.com/aws/aws-sdk-go-v2/service/bcmdataexports/types"
)

func exportControls() []Control {
	return []Control{{
		ID: "billing-export", Title: "The bill is exported with principals and resources", Practices: []string{"P2", "P3", "P18"}, Severity: High,
		Holds:  "The account that pays has a healthy CUR 2.0 export, by the hour or day, with IAM principal data and resource ids.",
		Seen:   "bcm-data-exports:ListExports and GetExport in the account that pays.",
		Why:    "Without INCLUDE_IAM_PRINCIPAL_DATA the bill does not say who called, and without INCLUDE_RESOURCES not through which profile or project. The first delivery takes up to 24 hours.",
		Remedy: "waybill setup makes the bucket and the export. An export that lacks something is left alone and a second is made, unless export.update is declared.",
		Reads:  []string{"bcm-data-exports:ListExports", "bcm-data-exports:GetExport", "bcm-data-exports:GetTable", "s3:ListBucket", "s3:GetBucketPolicy"},
		Changes: []string{"bcm-data-exports:CreateExport", "bcm-data-exports:UpdateExport", "cur:PutReportDefinition", "s3:CreateBucket", "s3:PutBucketPublicAccessBlock",
			"s3:PutBucketPolicy"},
		judge: judgeExport,
	}}
}

// lacks says what an export lacks; nothing if it is good.
func (e *Export) lacks() []string {
	var out []string
	for _, k := range []string{"INCLUDE_IAM_PRINCIPAL_DATA", "INCLUDE_RESOURCES"} {
		if !strings.EqualFold(e.Properties[k], "TRUE") {
			out = append(out, k+"=TRUE")
		}
	}
	if g := e.Properties["TIME_GRANULARITY"]; g == "MONTHLY" {
		out = append(out, "TIME_GRANULARITY=HOURLY")
	}
	query := strings.ToLower(e.Query)
	// line_item_iam_principal is not among them: some accounts may not name it, and get it
	// by the property alone.
	for _, column := range []string{"line_item_resource_id", "line_item_usage_type", "line_item_unblended_cost", "tags"} {
		if !strings.Contains(query, column) && !strings.Contains(query, "*") {
			out = append(out, "column "+column)
		}
	}
	return out
}

const exportSid = "WaybillBillingExport"

func exportStatement(bucket, account string) map[string]any {
	return map[string]any{"Effect": "Allow", "Principal": map[string]any{"Service": []string{"bcm-data-exports.amazonaws.com", "billingreports.amazonaws.com"}},
		"Action": []string{"s3:PutObject", "s3:GetBucketPolicy"}, "Resource": []string{"arn:aws:s3:::" + bucket, "arn:aws:s3:::" + bucket + "/*"},
		"Condition": map[string]any{"StringLike": map[string]any{"aws:SourceAccount": account,
			"aws:SourceArn": []string{"arn:aws:bcm-data-exports:us-east-1:" + account + ":export/*", "arn:aws:cur:us-east-1:" + account + ":definition/*"}}}}
}

func judgeExport(in *Inquiry, report func(Finding)) {
	p := &in.Snapshot.Payer
	if p.Exports.Refused != "" {
		report(unknown("AWS does not list the exports: %s", p.Exports.Refused).at(p.Account, ""))
		return
	}
	var lacking []string
	var ours *Export
	for i := range p.Exports.Value {
		e := &p.Exports.Value[i]
		if in.Declaration.Export.Name != "" && (e.Name == in.Declaration.Export.Name || e.Name == secondName(in.Declaration.Export.Name)) {
			ours = e
		}
		lacks := e.lacks()
		switch {
		case len(lacks) == 0 && e.Status == "HEALTHY":
			report(holds("export %s has all that is needed", e.Name).at(p.Account, "").of(e.Name))
			return
		case len(lacks) == 0:
			lacking = append(lacking, fmt.Sprintf("%s is %s (%s)", e.Name, strings.ToLower(e.Status), e.Reason))
		default:
			lacking = append(lacking, e.Name+" lacks "+strings.Join(lacks, ", "))
		}
	}
	message := "there is no CUR 2.0 export"
	if len(lacking) > 0 {
		message = "no export will do: " + strings.Join(lacking, "; ")
	}
	f := fails("%s", message).at(p.Account, "")
	if e, _ := in.ledger(); e != nil {
		f = f.worth(e.Total)
	}
	d := in.Declaration.Export
	switch {
	case d.Name == "":
		report(f.fix("declare the export (export: {name, bucket, prefix}), then waybill setup"))
	case p.Columns.Refused != "":
		report(f.fix("AWS does not say which columns the export may have (%s): allow bcm-data-exports:GetTable, then waybill setup", p.Columns.Refused))
	case p.Bucket.Refused != "":
		report(f.fix("AWS does not say whether the bucket %s is there (%s)", d.Bucket, p.Bucket.Refused))
	default:
		if steps := exportSteps(in, ours); len(steps) > 0 {
			report(f.plan(steps...))
		} else if ours != nil && len(ours.lacks()) > 0 {
			report(f.fix("the query of export %s says more than columns: change it by hand, or declare export.update: false, and a second export is made", ours.Name))
		} else {
			report(f.fix("see why AWS does not deliver the export, in Billing and Cost Management, Data Exports"))
		}
	}
}

func secondName(name string) string { return name + "-with-principals" }

// simpleQuery is a query of columns alone: no condition, no other name for one.
var simpleQuery = regexp.MustCompile(`(?is)^\s*SELECT\s+([a-z0-9_,\s]+?)\s+FROM\s+` + curTable + `\s*;?\s*$`)

// columns are those that an export has. A query that says more than columns is for a
// person to change: others may live on what it leaves out.
func (e *Export) columns() (_ []string, plain bool) {
	m := simpleQuery.FindStringSubmatch(e.Query)
	if m == nil {
		return nil, false
	}
	var out []string
	for c := range strings.SplitSeq(m[1], ",") {
		if c = strings.TrimSpace(c); c == "" || len(strings.Fields(c)) > 1 {
			return nil, false
		}
		out = append(out, c)
	}
	return out, true
}

// improved are an export's table properties with what Waybill needs: whatever else others
// have chosen stays.
func (e *Export) improved() map[string]string {
	out := wantedProperties()
	for k, v := range e.Properties {
		if k != "INCLUDE_IAM_PRINCIPAL_DATA" && k != "INCLUDE_RESOURCES" && (k != "TIME_GRANULARITY" || v != "MONTHLY") {
			out[k] = v
		}
	}
	return out
}

func exportSteps(in *Inquiry, ours *Export) []Step {
	p, d := &in.Snapshot.Payer, in.Declaration.Export
	steps := makeBucket(&p.Bucket.Value, d.Bucket, d.Region)
	steps = append(steps, policyStep(&p.Bucket.Value, d.Bucket, exportSid, exportStatement(d.Bucket, p.Account), func(list []policyEntry) bool {
		return lets(list, "bcm-data-exports.amazonaws.com", d.Bucket, "*", p.Account, "arn:aws:bcm-data-exports:us-east-1:"+p.Account+":export/*")
	})...)
	for i := range steps {
		steps[i].Region = d.Region
	}
	if ours != nil && len(ours.lacks()) == 0 {
		return steps // it is there, and only cannot deliver
	}
	query := "SELECT " + strings.Join(p.Columns.Value, ", ") + " FROM " + curTable
	if ours != nil && d.Update {
		var whole exporttypes.Export
		columns, plain := ours.columns()
		if json.Unmarshal(ours.Whole, &whole) != nil || whole.DataQuery == nil || !plain {
			return steps
		}
		diff := properties(ours.Properties)
		for _, c := range p.Columns.Value {
			if !slices.Contains(columns, c) {
				columns = append(columns, c)
				diff = append(diff, "+ column "+c)
			}
		}
		query = "SELECT " + strings.Join(columns, ", ") + " FROM " + curTable
		whole.DataQuery.QueryStatement = &query
		whole.DataQuery.TableConfigurations = map[string]map[string]string{curTable: ours.improved()}
		whole.ExportArn = nil
		return append(steps, Step{Region: d.Region, Words: "update the export " + ours.Name, Diff: diff, Action: "bcm-data-exports:UpdateExport",
			Input: &bcmdataexports.UpdateExportInput{ExportArn: &ours.ARN, Export: &whole}})
	}
	name := d.Name
	if slices.ContainsFunc(p.Exports.Value, func(e Export) bool { return e.Name == name }) {
		name = secondName(name)
	}
	return append(steps, Step{Region: d.Region, Words: "make the export " + name, Diff: append([]string{"+ export " + name + " to s3://" + d.Bucket + "/" + d.Prefix}, properties(nil)...), Action: "bcm-data-exports:CreateExport",
		Input: &bcmdataexports.CreateExportInput{Export: &exporttypes.Export{Name: &name,
			DataQuery:      &exporttypes.DataQuery{QueryStatement: &query, TableConfigurations: map[string]map[string]string{curTable: wantedProperties()}},
			RefreshCadence: &exporttypes.RefreshCadence{Frequency: exporttypes.FrequencyOptionSynchronous},
			DestinationConfigurations: &exporttypes.DestinationConfigurations{S3Destination: &exporttypes.S3Destination{S3Bucket: aws.String(d.Bucket), S3Prefix: aws.String(d.Prefix), S3Region: aws.String(d.Region),
				S3OutputConfigurations: &exporttypes.S3OutputConfigurations{OutputType: exporttypes.S3OutputTypeCustom, Format: exporttypes.FormatOptionParquet, Compression: exporttypes.CompressionOptionParquet, Overwrite: exporttypes.OverwriteOptionOverwriteReport}}}}}})
}

// properties are the lines of a change of table properties.
func properties(have map[string]string) []string {
	var lines []string
	for _, k := range []string{"TIME_GRANULARITY", "INCLUDE_RESOURCES", "INCLUDE_IAM_PRINCIPAL_DATA"} {
		want := wantedProperties()[k]
		if have[k] == want || k == "TIME_GRANULARITY" && have[k] == "DAILY" {
			continue
		}
		if have[k] != "" {
			lines = append(lines, "- "+k+" = "+have[k])
		}
		lines = append(lines, "+ "+k+" = "+want)
	}
	return lines
}
