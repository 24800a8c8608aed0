package control

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/policy"
)

// Reference is the list of controls in Markdown: what docs/control/audit.md holds.
func Reference() string {
	var b strings.Builder
	for _, c := range Controls() {
		fmt.Fprintf(&b, "### %s\n\n`%s` · %s · %s\n\n", c.Title, c.ID, c.Severity, strings.Join(c.Practices, ", "))
		fmt.Fprintf(&b, "- **Holds when**: %s\n- **Seen by**: %s\n- **Why**: %s\n- **Remedy**: %s\n", c.Holds, c.Seen, c.Why, c.Remedy)
		if len(c.Changes) > 0 {
			fmt.Fprintf(&b, "- **Changes made**: `%s`\n", strings.Join(c.Changes, "`, `"))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Permissions are the IAM policy that an audit and some steps need: reads for all
// controls, and the steps' own actions, no more.
func Permissions(steps []Step) map[string]any {
	reads := map[string]bool{"sts:GetCallerIdentity": true}
	for _, c := range Controls() {
		for _, a := range c.Reads {
			reads[a] = true
		}
	}
	statements := []map[string]any{{"Sid": "WaybillAudit", "Effect": "Allow", "Action": slices.Sorted(maps.Keys(reads)), "Resource": "*"}}
	changes := make(map[string]bool)
	for _, s := range steps {
		changes[s.Action] = true
		switch s.Action {
		case "bcm-data-exports:CreateExport":
			changes["cur:PutReportDefinition"] = true // AWS asks for both
		case "bedrock:CreateInferenceProfile":
			changes["bedrock:TagResource"] = true // a profile is made with its tags
		case "s3:CreateBucket":
			changes["s3:PutBucketOwnershipControls"] = true // it is made with its ownership
		case "iam:CreateRole":
			changes["iam:TagRole"] = true
		case "bcm-data-exports:UpdateExport":
			changes["cur:PutReportDefinition"] = true
		case "bedrock-mantle:CreateProject", "bedrock-mantle:UpdateProject":
			changes["bedrock-mantle:TagResource"] = true
		}
	}
	if len(changes) > 0 {
		statements = append(statements, map[string]any{"Sid": "WaybillSetup", "Effect": "Allow", "Action": slices.Sorted(maps.Keys(changes)), "Resource": "*"})
	}
	return map[string]any{"Version": "2012-10-17", "Statement": statements}
}

// Targets are the gateway's rules for the declared applications, in the language of its
// configuration.
func (in *Inquiry) Targets() string {
	var b strings.Builder
	b.WriteString("targets:\n")
	for _, r := range in.Rules() {
		if r.Profile != "" {
			fmt.Fprintf(&b, "  - when: {application: %q, modelId: %q, region: %s}\n    profile: %q\n", r.Application, r.Model, r.Region, r.Profile)
		} else {
			fmt.Fprintf(&b, "  - when: {application: %q, endpoint: bedrock-mantle, region: %s}\n    project: %s\n", r.Application, r.Region, r.Project)
		}
	}
	return b.String()
}

// Template is the declaration in the language of a tool that makes it so: "terraform", in
// Terraform's JSON syntax, or "cloudformation". CloudFormation's is one template for each
// account and Region, by "account/region"; what it has no resource for is said in its
// description.
func Template(d *Declaration, p *policy.Policy, format string) ([]byte, error) {
	var v any
	switch format {
	case "terraform":
		v = terraform(d, p)
	case "cloudformation":
		v = cloudFormation(d, p)
	default:
		return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("format %q is not known", format), Hint: "terraform or cloudformation"}
	}
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

type object = map[string]any

func policyText(statements ...map[string]any) string {
	b, err := json.Marshal(object{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		panic(err) // made of strings above
	}
	return string(b)
}

// name makes a name that both tools take for a resource: letters, digits and underscores.
func name(parts ...string) string {
	return strings.ReplaceAll(slug(strings.Join(parts, "-")), "-", "_")
}

func terraform(d *Declaration, p *policy.Policy) object {
	resources := make(map[string]object)
	providers := []object{}
	put := func(kind, key, alias string, o object) {
		if resources[kind] == nil {
			resources[kind] = object{}
		}
		o["provider"] = "aws." + alias
		resources[kind][key] = o
	}
	provider := func(account, region string) string { return "a" + account + "_" + strings.ReplaceAll(region, "-", "_") }
	need := make(map[string]object)
	alias := func(account, region string) string {
		a := provider(account, region)
		o := object{"alias": a, "region": region, "allowed_account_ids": []string{account}}
		for _, x := range d.Accounts {
			if x.ID == account && x.Role != "" {
				o["assume_role"] = []object{{"role_arn": x.Role}}
			}
		}
		need[a] = o
		return a
	}
	for _, a := range d.Accounts {
		for _, region := range a.Regions {
			at := alias(a.ID, region)
			if d.Logging.Bucket != "" {
				bucket, key := d.Logging.Target(a.ID, region), name("logs", a.ID, region)
				put("aws_s3_bucket", key, at, object{"bucket": bucket})
				put("aws_s3_bucket_public_access_block", key, at, object{"bucket": bucket, "block_public_acls": true, "block_public_policy": true, "ignore_public_acls": true, "restrict_public_buckets": true, "depends_on": []string{"aws_s3_bucket." + key}})
				put("aws_s3_bucket_policy", key, at, object{"bucket": bucket, "policy": policyText(logStatement(bucket, d.Logging.Prefix, a.ID, region)), "depends_on": []string{"aws_s3_bucket." + key}})
				if d.Logging.Retention > 0 {
					put("aws_s3_bucket_lifecycle_configuration", key, at, object{"bucket": bucket, "depends_on": []string{"aws_s3_bucket." + key},
						"rule": []object{{"id": lifecycleID, "status": "Enabled", "filter": []object{{"prefix": strings.TrimPrefix(d.Logging.Prefix+"/", "/")}}, "expiration": []object{{"days": d.Logging.Retention}}}}})
				}
				on := d.Logging.Bodies == "deliver"
				put("aws_bedrock_model_invocation_logging_configuration", key, at, object{"depends_on": []string{"aws_s3_bucket_policy." + key},
					"logging_config": []object{{"text_data_delivery_enabled": on, "image_data_delivery_enabled": on, "embedding_data_delivery_enabled": on, "video_data_delivery_enabled": on,
						"s3_config": []object{{"bucket_name": bucket, "key_prefix": d.Logging.Prefix}}}}})
			}
			for i := range d.Applications {
				app := &d.Applications[i]
				if !app.in(a.ID, region) {
					continue
				}
				for _, m := range app.Models {
					put("aws_bedrock_inference_profile", name(app.Name, m, a.ID, region), at, object{"name": profileName(app.Name, m), "model_source": []object{{"copy_from": modelARN(m, a.ID, region)}}, "tags": app.tags(p)})
				}
			}
		}
	}
	for _, r := range d.Gateway.Roles {
		account := accountOf(r.ARN)
		text, err := trustDocument(trustStatements(&d.Gateway))
		if err != nil {
			continue
		}
		n := roleName(r.ARN)
		o := object{"name": n, "path": strings.TrimSuffix(r.ARN[strings.Index(r.ARN, ":role")+len(":role"):], n), "assume_role_policy": text, "tags": r.Tags}
		if d.Gateway.Session > 3600 {
			o["max_session_duration"] = d.Gateway.Session
		}
		put("aws_iam_role", name(n, account), alias(account, "us-east-1"), o)
	}
	if e := d.Export; e.Name != "" {
		at := alias(d.Payer, e.Region)
		put("aws_s3_bucket", "bill", at, object{"bucket": e.Bucket})
		put("aws_s3_bucket_policy", "bill", at, object{"bucket": e.Bucket, "policy": policyText(exportStatement(e.Bucket, d.Payer)), "depends_on": []string{"aws_s3_bucket.bill"}})
		put("aws_bcmdataexports_export", "bill", alias(d.Payer, "us-east-1"), object{"depends_on": []string{"aws_s3_bucket_policy.bill"}, "export": []object{{"name": e.Name,
			"data_query":                 []object{{"query_statement": templateQuery, "table_configurations": object{curTable: wantedProperties()}}},
			"destination_configurations": []object{{"s3_destination": []object{{"s3_bucket": e.Bucket, "s3_prefix": e.Prefix, "s3_region": e.Region, "s3_output_configurations": []object{{"overwrite": "OVERWRITE_REPORT", "format": "PARQUET", "compression": "PARQUET", "output_type": "CUSTOM"}}}}}},
			"refresh_cadence":            []object{{"frequency": "SYNCHRONOUS"}}}}})
	}
	in := &Inquiry{Snapshot: &Snapshot{}, Declaration: d, Policy: p}
	for _, key := range in.wantedTags() {
		put("aws_ce_cost_allocation_tag", name(key), alias(d.Payer, "us-east-1"), object{"tag_key": key, "status": "Active"})
	}
	for _, a := range slices.Sorted(maps.Keys(need)) {
		providers = append(providers, need[a])
	}
	return object{"terraform": object{"required_providers": object{"aws": object{"source": "hashicorp/aws"}}}, "provider": object{"aws": providers}, "resource": resources}
}

// templateQuery names the columns that Waybill reads. A template cannot ask AWS which there
// are, as setup does.
const templateQuery = "SELECT bill_bill_type, bill_billing_entity, bill_billing_period_end_date, bill_billing_period_start_date, bill_invoice_id, bill_payer_account_id, " +
	"discount, identity_line_item_id, identity_time_interval, line_item_currency_code, line_item_iam_principal, line_item_legal_entity, line_item_line_item_description, line_item_line_item_type, " +
	"line_item_net_unblended_cost, line_item_operation, line_item_product_code, line_item_resource_id, line_item_unblended_cost, line_item_unblended_rate, line_item_usage_account_id, " +
	"line_item_usage_amount, line_item_usage_end_date, line_item_usage_start_date, line_item_usage_type, pricing_unit, product, product_product_family, product_region_code, product_servicecode, " +
	"resource_tags, tags FROM " + curTable

// cloudFormation has no resource for the logging configuration, for projects and for cost
// allocation tags: those remain for setup, or for a person.
func cloudFormation(d *Declaration, p *policy.Policy) object {
	out := make(object)
	for _, a := range d.Accounts {
		for _, region := range a.Regions {
			resources := make(object)
			if d.Logging.Bucket != "" {
				bucket := d.Logging.Target(a.ID, region)
				properties := object{"BucketName": bucket, "PublicAccessBlockConfiguration": object{"BlockPublicAcls": true, "BlockPublicPolicy": true, "IgnorePublicAcls": true, "RestrictPublicBuckets": true},
					"OwnershipControls": object{"Rules": []object{{"ObjectOwnership": "BucketOwnerEnforced"}}}}
				if d.Logging.Retention > 0 {
					properties["LifecycleConfiguration"] = object{"Rules": []object{{"Id": lifecycleID, "Status": "Enabled", "Prefix": strings.TrimPrefix(d.Logging.Prefix+"/", "/"), "ExpirationInDays": d.Logging.Retention}}}
				}
				resources["LogBucket"] = object{"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": properties}
				resources["LogBucketPolicy"] = object{"Type": "AWS::S3::BucketPolicy", "DependsOn": "LogBucket",
					"Properties": object{"Bucket": bucket, "PolicyDocument": object{"Version": "2012-10-17", "Statement": []any{logStatement(bucket, d.Logging.Prefix, a.ID, region)}}}}
			}
			for i := range d.Applications {
				app := &d.Applications[i]
				if !app.in(a.ID, region) {
					continue
				}
				var tags []object
				all := app.tags(p)
				for _, k := range sortedTags(all) {
					tags = append(tags, object{"Key": k, "Value": all[k]})
				}
				for _, m := range app.Models {
					resources["Profile"+strings.ReplaceAll(name(app.Name, m), "_", "")] = object{"Type": "AWS::Bedrock::ApplicationInferenceProfile",
						"Properties": object{"InferenceProfileName": profileName(app.Name, m), "ModelSource": object{"CopyFrom": modelARN(m, a.ID, region)}, "Tags": tags}}
				}
			}
			if region == a.Regions[0] { // roles are global: they go with the account's first Region
				for _, r := range d.Gateway.Roles {
					if accountOf(r.ARN) != a.ID {
						continue
					}
					var tags []object
					for _, k := range sortedTags(r.Tags) {
						tags = append(tags, object{"Key": k, "Value": r.Tags[k]})
					}
					n := roleName(r.ARN)
					resources["Role"+strings.ReplaceAll(name(n), "_", "")] = object{"Type": "AWS::IAM::Role", "Properties": object{"RoleName": n, "Path": strings.TrimSuffix(r.ARN[strings.Index(r.ARN, ":role")+len(":role"):], n),
						"AssumeRolePolicyDocument": object{"Version": "2012-10-17", "Statement": trustStatements(&d.Gateway)}, "Tags": tags, "MaxSessionDuration": max(3600, d.Gateway.Session)}}
				}
			}
			if a.ID == d.Payer && region == d.Export.Region && d.Export.Name != "" {
				e := d.Export
				resources["BillBucket"] = object{"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": object{"BucketName": e.Bucket}}
				resources["BillBucketPolicy"] = object{"Type": "AWS::S3::BucketPolicy", "DependsOn": "BillBucket", "Properties": object{"Bucket": e.Bucket, "PolicyDocument": object{"Version": "2012-10-17", "Statement": []any{exportStatement(e.Bucket, d.Payer)}}}}
				resources["Bill"] = object{"Type": "AWS::BCMDataExports::Export", "DependsOn": "BillBucketPolicy", "Properties": object{"Export": object{"Name": e.Name,
					"DataQuery":                 object{"QueryStatement": templateQuery, "TableConfigurations": object{curTable: wantedProperties()}},
					"DestinationConfigurations": object{"S3Destination": object{"S3Bucket": e.Bucket, "S3Prefix": e.Prefix, "S3Region": e.Region, "S3OutputConfigurations": object{"OutputType": "CUSTOM", "Format": "PARQUET", "Compression": "PARQUET", "Overwrite": "OVERWRITE_REPORT"}}},
					"RefreshCadence":            object{"Frequency": "SYNCHRONOUS"}}}}
			}
			out[a.ID+"/"+region] = object{"AWSTemplateFormatVersion": "2010-09-09",
				"Description": "Waybill, account " + a.ID + " in " + region + ". CloudFormation has no resources for invocation logging, projects and cost allocation tags: use waybill setup --only logging-on,projects,cost-tags-active.", "Resources": resources}
		}
	}
	return out
}
