package lake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"

	"github.com/waybill-dev/waybill"
)

// A column is one column of a table: the one place where its name, type and meaning
// are written. docs/schema.md is made from it.
type column struct {
	name string
	typ  string // DuckDB's name: VARCHAR, BIGINT, INTEGER, BOOLEAN, TIMESTAMP, DECIMAL(38,18)
	doc  string
}

// A tableSpec is a table.
type tableSpec struct {
	name    string
	version int
	doc     string
	columns []column
}

func (s *tableSpec) schema() *iceberg.Schema {
	fields := make([]iceberg.NestedField, len(s.columns))
	for i, c := range s.columns { // optional, all of them: DuckDB writes them so
		fields[i] = iceberg.NestedField{ID: i + 1, Name: c.name, Type: icebergType(c.typ), Doc: c.doc}
	}
	return iceberg.NewSchema(0, fields...)
}

func icebergType(t string) iceberg.Type {
	switch t {
	case "BIGINT":
		return iceberg.PrimitiveTypes.Int64
	case "INTEGER":
		return iceberg.PrimitiveTypes.Int32
	case "BOOLEAN":
		return iceberg.PrimitiveTypes.Bool
	case "TIMESTAMP":
		return iceberg.PrimitiveTypes.Timestamp
	case "DECIMAL(38,18)":
		return iceberg.DecimalTypeOf(38, 18)
	}
	return iceberg.PrimitiveTypes.String
}

// fieldIDs is COPY's option that makes a Parquet file a native Iceberg one.
func (s *tableSpec) fieldIDs() string {
	parts := make([]string, len(s.columns))
	for i, c := range s.columns {
		parts[i] = fmt.Sprintf("%s: %d", c.name, i+1)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// casts lists the columns, each cast to its type.
func (s *tableSpec) casts() string {
	parts := make([]string, len(s.columns))
	for i, c := range s.columns {
		parts[i] = fmt.Sprintf("CAST(%s AS %s) AS %s", c.name, c.typ, c.name)
	}
	return strings.Join(parts, ", ")
}

func text(name, doc string) column   { return column{name, "VARCHAR", doc} }
func number(name, doc string) column { return column{name, "BIGINT", doc} }

// usageColumns are the quantities of a call by kind, one column a kind.
func usageColumns() []column {
	var out []column
	for _, k := range waybill.Kinds {
		out = append(out, number(string(k), "usage of kind "+string(k)+", in single units; null means none told"))
	}
	return append(out, number("reasoning", "reasoning tokens, a part of output"))
}

var invocations = tableSpec{name: "invocations", version: 1, doc: "One row a call and source: what the gateway's journal or AWS's invocation log tells of it. Append-only; both sources are kept. Source: journal segments, invocation-log objects.",
	columns: append([]column{
		text("period", "billing period of started_at, YYYY-MM"),
		{"day", "INTEGER", "UTC day of started_at, days since 1970-01-01"},
		text("source", "gateway or log"),
		text("call_id", "the gateway's own id of the call, UUIDv7; empty in log rows"),
		text("request_id", "AWS's x-amzn-RequestId; empty if the call never got one"),
		{"started_at", "TIMESTAMP", "time of the call in UTC, by AWS's clock where AWS told it"},
		text("account", "account that is billed"), text("region", "Region that was called"), text("inference_region", "Region where it ran, if told"),
		text("endpoint", "bedrock-runtime or bedrock-mantle"), text("operation", "Converse, InvokeModel, ..."),
		text("model_id", "model as sent to AWS: id, profile id or ARN"), text("model_asked", "model as the caller named it, where another was sent"),
		text("model", "foundation model behind it"), text("profile", "application inference profile ARN"), text("project", "project or workspace id"),
		text("scope", "plain, geo or global, by the profile that was named"),
		text("principal", "the gateway's caller"), text("issuer", "who vouches for the caller"), text("key_id", "gateway key that was used"),
		text("principal_arn", "the caller as AWS knows it"), text("session_name", "role session name"),
		text("tag_set", "id of the tags, see tag_sets; of log rows the request metadata"), text("carried", "carriers the tags were put on"),
		text("policy_version", "policy that decided"), text("policy_outcome", "allowed, warned, refused; empty in log rows"), text("reasons", "codes of violations, comma separated"),
		{"known", "BOOLEAN", "whether the usage is known"}, text("usage_from", "where the usage was read, or why it is not known"),
		text("tier_asked", "service tier asked for"), text("tier", "service tier served"), text("latency_mode", "optimized, or empty"),
		{"streamed", "BOOLEAN", "whether the answer was a stream"}, text("stop_reason", "as the model gave it"),
		text("outcome", "completed, refused, failed, stream_error, abandoned, interrupted"), number("status", "HTTP status the caller saw"), text("error_code", "AWS's error type, or Waybill's code"),
		number("latency_ns", "until the last byte, nanoseconds"), number("first_byte_ns", "until the first byte of the answer, nanoseconds"),
		number("request_bytes", "size of the request body"), number("response_bytes", "size of the answer's body"),
		{"client_left", "BOOLEAN", "whether the caller hung up before the end"},
		text("sdk_invocation_id", "groups the attempts of one logical call"), text("traceparent", "W3C trace context"), text("gateway", "instance that recorded it"),
		text("origin", "object the row was read from"), number("origin_line", "record or line in it, from 1"),
	}, usageColumns()...)}

var tagSets = tableSpec{name: "tag_sets", version: 1, doc: "The tags of each distinct set, one row a tag. Append-only, keyed by a hash of the canonical text, so rows may repeat. Source: calls and line items.",
	columns: []column{text("id", "first 16 bytes of the SHA-256 of the set's canonical JSON, hexadecimal"), text("key", "tag key"), text("value", "tag value")}}

// usageHours: a column more goes to the end, where it gets a new field id, and the version
// goes up: then a lake of an older version is given the column, and its roll-up made again.
var usageHours = tableSpec{name: "usage_hours", version: 2, doc: "The hourly roll-up: calls of both sources merged by (account, region, request_id) and summed. A cache: made from invocations, replaced a period at a time.",
	columns: slices.Concat([]column{
		text("period", "billing period, YYYY-MM"), text("covers", "digest of the files of invocations that it was made from"),
		{"hour", "INTEGER", "UTC hour, hours since 1970-01-01T00"},
		text("account", ""), text("region", ""), text("endpoint", ""), text("model", "foundation model"), text("model_id", "as called"), text("profile", ""), text("project", ""),
		text("scope", ""), text("tier", "served"), text("latency_mode", ""), number("context_bucket", "context of the calls, in steps of 1,000 tokens above 100,000; else 0"),
		text("principal", ""), text("principal_arn", ""), text("session_name", ""), text("tag_set", ""), text("sources", "gateway, log or both"), text("outcome", ""), text("policy_outcome", ""),
		number("calls", "calls"), number("unknown", "calls whose usage is not known"),
	}, usageColumns(), []column{
		text("operation", ""), text("issuer", ""), text("key_id", ""), text("model_asked", ""),
	})}

var lineItems = tableSpec{name: "line_items", version: 1, doc: "Bedrock's rows of the bill, a payer's billing period replaced whole by each newer export; earlier states stay readable as snapshots. Rows that are not Bedrock's are summed by product. Source: CUR 2.0. Amounts are the shortest decimal text of the export's doubles.",
	columns: []column{
		text("period", "bill_billing_period_start_date, YYYY-MM"), text("claim", "bedrock, or not_claimed for sums of other services' rows"), number("row_count", "rows of the bill: 1 for Bedrock's"),
		{"day", "INTEGER", "UTC day of usage_start; null where the row covers more than a day"}, {"usage_start", "TIMESTAMP", "line_item_usage_start_date, inclusive"}, {"usage_end", "TIMESTAMP", "line_item_usage_end_date, exclusive"},
		text("line_item_id", "identity_line_item_id: unique in one delivery only"), text("payer_account", "bill_payer_account_id"), text("usage_account", "line_item_usage_account_id"),
		text("billing_entity", "AWS or AWS Marketplace"), text("invoice_id", ""), text("legal_entity", "seller"), text("line_item_type", "Usage, Tax, Credit, ..."),
		text("product_code", "line_item_product_code"), text("product_family", "product_product_family"), text("product_name", "product['product_name']"),
		text("usage_type", "line_item_usage_type"), text("operation", "line_item_operation"), text("resource_id", "line_item_resource_id"), text("iam_principal", "line_item_iam_principal"),
		text("description", "line_item_line_item_description"), text("region_code", "product_region_code, else product['region']"),
		{"usage_amount", "DECIMAL(38,18)", "line_item_usage_amount, in pricing_unit"}, text("pricing_unit", ""), text("currency", "line_item_currency_code"), text("unblended_rate", "line_item_unblended_rate"),
		{"unblended_cost", "DECIMAL(38,18)", "line_item_unblended_cost"}, {"cost", "DECIMAL(38,18)", "invoice amount: line_item_net_unblended_cost where filled, else unblended_cost; 0 for a discount that the net costs of its product hold already"},
		text("rate_code", "pricing_rate_code"), text("product_model", "product['model']"), text("product_provider", "product['provider']"),
		text("inference_type", "product['inference_type']"), text("feature", "product['feature']"), text("tag_set", "id of the tags map, see tag_sets"), text("resource_tag_set", "id of the resource_tags map"),
	}}

var rates = tableSpec{name: "rates", version: 1, doc: "Prices with validity and origin, as the rate card file has them.",
	columns: []column{text("model", ""), text("region", ""), text("scope", ""), text("usage_kind", ""), text("tier", ""), text("context", ""), number("per", "units the price is for"),
		{"price", "DECIMAL(38,18)", "in currency, for per units"}, text("currency", ""), {"valid_from", "INTEGER", "first day"}, {"valid_to", "INTEGER", "day after the last; null while in force"}, text("source", "")}}

var periods = tableSpec{name: "periods", version: 1, doc: "Closed billing periods with their frozen figures and the hash of what they rest on.",
	columns: []column{text("period", ""), {"closed_at", "TIMESTAMP", ""}, {"metered", "DECIMAL(38,18)", ""}, {"billed", "DECIMAL(38,18)", ""}, {"variance", "DECIMAL(38,18)", ""}, text("facts_hash", "SHA-256 of the snapshot ids and the rate card")}}

var allTables = []*tableSpec{&invocations, &tagSets, &usageHours, &lineItems, &rates, &periods}

// SchemaDocument is docs/schema.md.
func SchemaDocument() string {
	var b strings.Builder
	b.WriteString("# The tables\n\nMade from internal/lake/schema.go by `make golden`; do not edit. Iceberg v2, on a directory or an S3 bucket. Every column is optional.\nTimes are UTC. Quantities are single units. Money is exact: DECIMAL(38,18).\n")
	for _, t := range allTables {
		fmt.Fprintf(&b, "\n## %s (version %d)\n\n%s\n\n| # | column | type | meaning |\n| --- | --- | --- | --- |\n", t.name, t.version, t.doc)
		for i, c := range t.columns {
			doc := c.doc
			if doc == "" {
				doc = "as in invocations"
				if t == &rates || t == &periods {
					doc = strings.ReplaceAll(c.name, "_", " ")
				}
			}
			fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", i+1, c.name, c.typ, doc)
		}
	}
	return b.String()
}
