package lake

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/waybill-dev/waybill"
)

// billColumn is how one column of line_items is made of the export's columns: the
// first that the export has.
type billColumn struct {
	to    string
	from  []string // columns of CUR 2.0
	inMap string   // "product.model": a key of a map column
}

var billText = []billColumn{
	{to: "line_item_id", from: []string{"identity_line_item_id"}}, {to: "payer_account", from: []string{"bill_payer_account_id"}},
	{to: "usage_account", from: []string{"line_item_usage_account_id"}}, {to: "billing_entity", from: []string{"bill_billing_entity"}},
	{to: "invoice_id", from: []string{"bill_invoice_id"}}, {to: "legal_entity", from: []string{"line_item_legal_entity"}},
	{to: "line_item_type", from: []string{"line_item_line_item_type"}}, {to: "product_code", from: []string{"line_item_product_code"}},
	{to: "product_family", from: []string{"product_product_family"}}, {to: "product_name", from: []string{"product_product_name"}, inMap: "product.product_name"},
	{to: "usage_type", from: []string{"line_item_usage_type"}}, {to: "operation", from: []string{"line_item_operation"}},
	{to: "resource_id", from: []string{"line_item_resource_id"}}, {to: "iam_principal", from: []string{"line_item_iam_principal"}},
	{to: "description", from: []string{"line_item_line_item_description"}}, {to: "region_code", from: []string{"product_region_code"}, inMap: "product.region"},
	{to: "pricing_unit", from: []string{"pricing_unit"}}, {to: "currency", from: []string{"line_item_currency_code"}},
	{to: "unblended_rate", from: []string{"line_item_unblended_rate"}}, {to: "rate_code", from: []string{"pricing_rate_code"}},
	{to: "product_model", inMap: "product.model"}, {to: "product_provider", inMap: "product.provider"},
	{to: "inference_type", inMap: "product.inference_type"}, {to: "feature", inMap: "product.feature"},
}

// bedrockRow is the rule by which a row of the bill is Bedrock's, in the order of
// trust: product family, product code, Marketplace product name, and the grammar of
// the marketplace dialect with Bedrock in its description. It is never null.
const bedrockRow = `(product_family = 'Amazon Bedrock'
  OR product_code IN ('AmazonBedrock', 'AmazonBedrockService', 'AmazonBedrockFoundationModels', 'AmazonBedrockAgentCore')
  OR (billing_entity = 'AWS Marketplace' AND product_name ILIKE '%Bedrock%')
  OR (regexp_matches(usage_type, '^([A-Z0-9]+-MP:)?[A-Z]{2,3}[A-Z0-9]*_.+-Units$') AND (description ILIKE '%Bedrock%' OR product_name ILIKE '%Bedrock%'))
  OR (product_code = '' AND product_family = '' AND regexp_matches(usage_type, '(Claude|Nova|Titan|Llama)[A-Za-z0-9.]*-.*(token|Text-input)')))`

// ownRow is the rule for a row among those of its export: it is Bedrock's, or it is of a
// Marketplace product that other rows show to be Bedrock's. Such a product is one model;
// its taxes and credits have its code, and often neither family nor name.
func ownRow(stage string) string {
	return "(" + bedrockRow + " OR (billing_entity = 'AWS Marketplace' AND product_code IN (SELECT product_code FROM " + stage +
		" WHERE billing_entity = 'AWS Marketplace' AND product_code <> '' AND " + bedrockRow + ")))"
}

// An Export is one delivery of the bill: files of this machine, Parquet or CSV.
type Export struct {
	Manifest waybill.Object
	Period   waybill.Period
	Files    []string // paths; .parquet, or .csv / .csv.gz
}

// id names the export among others: by where it is delivered. All deliveries of one export
// have the same.
func (e *Export) id() string {
	place, _, _ := strings.Cut(e.Manifest.URI, "/metadata/")
	return digest([]string{place})
}

// ReplaceLineItems puts an export's rows in the place of all that the lake has of their
// payer, and of the same export, in its billing period, in one commit that also says what
// was loaded. The bills of other payers stay. A row that cannot be read goes to quarantine
// in the load that is returned.
func (l *Lake) ReplaceLineItems(ctx context.Context, e Export) (Load, error) {
	load := Load{Object: e.Manifest, Kind: "cur", Period: e.Period.String()}
	stage := "bill_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	defer func() {
		_, _ = l.db.ExecContext(context.WithoutCancel(ctx), "DROP TABLE IF EXISTS "+stage) // a temporary table
	}()
	if err := l.stageBill(ctx, stage, e, &load); err != nil {
		return load, fmt.Errorf("read the export of %s: %w", e.Period, err)
	}
	if err := l.stageTags(ctx, stage); err != nil {
		return load, fmt.Errorf("read the tags of the export of %s: %w", e.Period, err)
	}
	payers, err := l.payers(ctx, "SELECT payer_account FROM "+stage)
	if err != nil {
		return load, fmt.Errorf("read the payers of the export of %s: %w", e.Period, err)
	}
	files := []billFile{{export: e.id()}} // of rows that name no payer
	if len(payers) > 0 {
		files = files[:0]
		for _, payer := range payers {
			files = append(files, billFile{payer, e.id()})
		}
	}
	var add []string
	for i, f := range files {
		of := "payer_account = '" + quote(f.payer) + "'"
		if i == 0 { // rows without a payer are among those of the first
			of = "payer_account IN ('', '" + quote(f.payer) + "')"
		}
		name, rows, err := l.writeAs(ctx, &lineItems, e.Period.String(), f.name(), billQuery(stage, of, e.Period))
		if err != nil {
			return load, err
		}
		if load.Rows += rows; rows > 0 {
			add = append(add, name)
		}
	}
	props, err := l.putLoads(ctx, &lineItems, []Load{load})
	if err != nil {
		return load, fmt.Errorf("store the list of loads: %w", err)
	}
	return load, l.replace(ctx, &lineItems, e.Period, add, props, func(have []string) ([]string, error) {
		return l.replacedBy(ctx, e, payers, len(add) > 0, have)
	})
}

// payers are the payer accounts that a query's one column names, sorted.
func (l *Lake) payers(ctx context.Context, query string) ([]string, error) {
	rows, err := l.db.QueryContext(ctx, "SELECT DISTINCT payer_account FROM ("+query+") WHERE payer_account <> '' ORDER BY 1")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var payer string
		if err := rows.Scan(&payer); err != nil {
			return nil, err
		}
		out = append(out, payer)
	}
	return out, rows.Err()
}

// A billFile is whose bill a file of line items is, as its name tells. Files from before
// names told it have a zero one.
type billFile struct {
	payer  string // account; empty where no row names one
	export string // Export.id
}

// name is the name of a new file, without its ending.
func (f billFile) name() string {
	return strings.Join([]string{"bill", url.PathEscape(f.payer), f.export, uuid.NewString()}, "_")
}

func readBillFile(name string) billFile {
	parts := strings.Split(name[strings.LastIndexByte(name, '/')+1:], "_")
	if len(parts) != 4 || parts[0] != "bill" {
		return billFile{}
	}
	payer, err := url.PathUnescape(parts[1])
	if err != nil {
		return billFile{}
	}
	return billFile{payer, parts[2]}
}

// replacedBy picks, of the files of a billing period, those in whose place an export comes:
// its own earlier delivery, and what other exports told of the same payers. Where it cannot
// be told whether two exports are of one payer, the second is refused: it would be taken
// twice, or the other lost.
func (l *Lake) replacedBy(ctx context.Context, e Export, payers []string, hasRows bool, have []string) (old []string, err error) {
	only := "" // the one export that was loaded for the period, if there is one
	loads, err := l.Loads(ctx)
	if err != nil {
		return nil, err
	}
	for _, load := range loads {
		if load.Kind != "cur" || load.Period != e.Period.String() {
			continue
		}
		switch id := (&Export{Manifest: load.Object}).id(); only {
		case "", id:
			only = id
		default:
			only = "several"
		}
	}
	for _, name := range have {
		f := readBillFile(name)
		theirs := []string{f.payer}
		if f == (billFile{}) {
			from, err := l.scan(ctx, []string{name})
			if err != nil {
				return nil, err
			}
			if theirs, err = l.payers(ctx, "SELECT payer_account FROM "+from); err != nil {
				return nil, fmt.Errorf("read line items: %w", err)
			}
			f.export = only
		}
		known := len(theirs) > 0 && theirs[0] != ""
		switch {
		case f.export == e.id(), slices.ContainsFunc(theirs, func(p string) bool { return slices.Contains(payers, p) }):
			old = append(old, name)
		case hasRows && (!known || len(payers) == 0):
			unnamed := "the export at " + e.Manifest.URI
			if len(payers) > 0 {
				unnamed = "the bill of that month that the lake has"
			}
			return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("the lake has the bill of %s from another export, and %s names no payer account: whether one replaces the other or both count cannot be told", e.Period, unnamed),
				Hint: "let both exports select bill_payer_account_id, and ingest the one that did not have it first"}
		}
	}
	return old, nil
}

// billQuery brings the staged rows to line_items: Bedrock's one by one, the others
// summed by product, so that what the reader left out is told with its sum. It takes the
// rows of which of holds.
func billQuery(stage, of string, p waybill.Period) string {
	money := func(name string) string { return "CAST(" + name + " AS DECIMAL(38,18))" }
	// Net costs hold the discounts already. The rows of the discounts are in the export as
	// well, without a net cost of their own: on top they would be taken twice.
	within := "net_cost_text IS NULL AND line_item_type LIKE '%Discount' AND product_code IN (SELECT product_code FROM " + stage +
		" WHERE net_cost_text IS NOT NULL AND line_item_type NOT LIKE '%Discount')"
	cost := "CASE WHEN " + within + " THEN 0 ELSE coalesce(" + money("net_cost_text") + ", " + money("cost_text") + ", 0) END"
	var own, sums []string
	for _, c := range lineItems.columns {
		switch c.name {
		case "period":
			own, sums = append(own, "'"+p.String()+"' AS period"), append(sums, "'"+p.String()+"'")
		case "claim":
			own, sums = append(own, "'bedrock' AS claim"), append(sums, "'not_claimed'")
		case "row_count":
			own, sums = append(own, "1 AS row_count"), append(sums, "count(*)")
		case "day":
			own, sums = append(own, "CASE WHEN usage_end > usage_start + INTERVAL 1 DAY THEN NULL ELSE CAST(epoch_us(usage_start) // 86400000000 AS INTEGER) END AS day"), append(sums, "NULL")
		case "usage_amount":
			own, sums = append(own, "coalesce("+money("amount_text")+", 0) AS usage_amount"), append(sums, "0")
		case "unblended_cost":
			own, sums = append(own, "coalesce("+money("cost_text")+", 0) AS unblended_cost"), append(sums, "sum(coalesce("+money("cost_text")+", 0))")
		case "cost":
			own, sums = append(own, cost+" AS cost"), append(sums, "sum("+cost+")")
		case "usage_start", "usage_end":
			own, sums = append(own, c.name), append(sums, "NULL")
		case "product_code", "line_item_type", "currency", "billing_entity":
			own, sums = append(own, c.name), append(sums, c.name)
		default:
			own, sums = append(own, c.name), append(sums, "''")
		}
	}
	return fmt.Sprintf("SELECT %s FROM %s WHERE %s AND %s UNION ALL SELECT %s FROM %s WHERE %s AND NOT %s GROUP BY product_code, line_item_type, currency, billing_entity",
		strings.Join(own, ", "), stage, of, ownRow(stage), strings.Join(sums, ", "), stage, of, ownRow(stage))
}

// stageBill reads the files into a temporary table of texts. The export's doubles
// become their shortest decimal text there, and decimals only from that.
func (l *Lake) stageBill(ctx context.Context, stage string, e Export, load *Load) error {
	made := false
	for _, path := range e.Files {
		if info, err := os.Stat(path); err == nil && info.Size() == 0 {
			continue // an empty chunk, and too small for its format
		}
		from := "read_parquet('" + quote(path) + "', file_row_number=true)"
		if !strings.HasSuffix(path, ".parquet") {
			from = "(SELECT *, row_number() OVER () - 1 AS file_row_number FROM read_csv('" + quote(path) + "', header=true, all_varchar=true, delim=',', quote='\"', escape='\"', parallel=false, nullstr=''))"
		}
		have, err := l.columns(ctx, from)
		if err != nil {
			return err
		}
		if len(have) <= 1 {
			continue // an empty chunk
		}
		query := "SELECT " + strings.Join(billSelect(have), ", ") + fmt.Sprintf(", %d AS file_index, file_row_number AS file_row FROM ", slices.Index(e.Files, path)) + from
		verb := "INSERT INTO " + stage + " BY NAME "
		if !made {
			verb = "CREATE TEMP TABLE " + stage + " AS "
			made = true
		}
		if _, err := l.db.ExecContext(ctx, verb+query); err != nil {
			return err
		}
	}
	if !made {
		query := "SELECT " + strings.Join(billSelect(nil), ", ") + ", 0 AS file_index, 0 AS file_row"
		if _, err := l.db.ExecContext(ctx, "CREATE TEMP TABLE "+stage+" AS "+query+" LIMIT 0"); err != nil {
			return err
		}
	}
	return l.quarantineBill(ctx, stage, e, load)
}

// columns are the names and types of a query's columns.
func (l *Lake) columns(ctx context.Context, from string) (map[string]string, error) {
	rows, err := l.db.QueryContext(ctx, "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM "+from+")")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[string]string)
	for rows.Next() {
		var name, typ string
		if err := rows.Scan(&name, &typ); err != nil {
			return nil, err
		}
		out[strings.ToLower(name)] = typ
	}
	return out, rows.Err()
}

// billSelect lists the expressions that make a staged row, for the columns there are.
func billSelect(have map[string]string) []string {
	object := func(name string) string { // a map as JSON text
		switch typ := have[name]; {
		case typ == "":
			return "CAST(NULL AS VARCHAR)"
		case strings.HasPrefix(typ, "MAP"):
			return "CAST(to_json(" + name + ") AS VARCHAR)"
		}
		return "CAST(" + name + " AS VARCHAR)"
	}
	var out []string
	for _, c := range billText {
		var parts []string
		for _, f := range c.from {
			if have[f] != "" {
				parts = append(parts, "nullif(CAST("+f+" AS VARCHAR), '')")
			}
		}
		if m, key, ok := strings.Cut(c.inMap, "."); ok && have[m] != "" {
			parts = append(parts, "json_extract_string(TRY_CAST("+object(m)+" AS JSON), '$."+key+"')")
		}
		out = append(out, "coalesce("+strings.Join(append(parts, "''"), ", ")+") AS "+c.to)
	}
	for to, from := range map[string]string{"amount_text": "line_item_usage_amount", "cost_text": "line_item_unblended_cost", "net_cost_text": "line_item_net_unblended_cost"} {
		if have[from] == "" {
			out = append(out, "CAST(NULL AS VARCHAR) AS "+to)
		} else {
			out = append(out, "nullif(trim(CAST("+from+" AS VARCHAR)), '') AS "+to)
		}
	}
	for to, from := range map[string]string{"usage_start": "line_item_usage_start_date", "usage_end": "line_item_usage_end_date"} {
		switch have[from] {
		case "":
			out = append(out, "CAST(NULL AS TIMESTAMP) AS "+to, "CAST(NULL AS VARCHAR) AS "+to+"_text")
		case "VARCHAR": // by way of a time with an offset, which a plain one would drop
			out = append(out, "CAST(TRY_CAST("+from+" AS TIMESTAMPTZ) AS TIMESTAMP) AS "+to, from+" AS "+to+"_text")
		default:
			out = append(out, "CAST("+from+" AS TIMESTAMP) AS "+to, "CAST(NULL AS VARCHAR) AS "+to+"_text")
		}
	}
	return append(out, object("tags")+" AS tags_json", object("resource_tags")+" AS resource_tags_json")
}

// quarantineBill takes out the rows that cannot be read, and counts the amounts that
// have more places than are kept.
func (l *Lake) quarantineBill(ctx context.Context, stage string, e Export, load *Load) error {
	bad := func(name string) string {
		return "(" + name + " IS NOT NULL AND TRY_CAST(" + name + " AS DECIMAL(38,18)) IS NULL)"
	}
	noMap := func(name string) string {
		return "coalesce(" + name + ", '') <> '' AND coalesce(json_type(TRY_CAST(" + name + " AS JSON)), '') NOT IN ('OBJECT', 'NULL')"
	}
	badTime := "(usage_start_text IS NOT NULL AND usage_start_text <> '' AND usage_start IS NULL)"
	reason := "CASE WHEN " + bad("cost_text") + " THEN 'line_item_unblended_cost is not a number' WHEN " + bad("net_cost_text") + " THEN 'line_item_net_unblended_cost is not a number' WHEN " +
		bad("amount_text") + " THEN 'line_item_usage_amount is not a number' WHEN " + badTime + " THEN 'line_item_usage_start_date is not a time' WHEN " + noMap("tags_json") + " THEN 'tags is not a map' WHEN " + noMap("resource_tags_json") + " THEN 'resource_tags is not a map' END"
	rows, err := l.db.QueryContext(ctx, "SELECT file_index, file_row + 1, why FROM (SELECT *, "+reason+" AS why FROM "+stage+") WHERE why IS NOT NULL ORDER BY ALL")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var file int
		var q Quarantine
		if err := rows.Scan(&file, &q.Line, &q.Reason); err != nil {
			return err
		}
		q.Object = e.Files[file][strings.LastIndexByte(e.Files[file], '/')+1:]
		load.Quarantined = append(load.Quarantined, q)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(load.Quarantined) > 0 {
		if _, err := l.db.ExecContext(ctx, "DELETE FROM "+stage+" WHERE "+reason+" IS NOT NULL"); err != nil {
			return err
		}
	}
	places := func(name string) string {
		return "(position('e-' IN lower(" + name + ")) > 0 OR length(split_part(" + name + ", '.', 2)) > 18) AND CAST(CAST(" + name + " AS DECIMAL(38,18)) AS DOUBLE) <> CAST(" + name + " AS DOUBLE)"
	}
	return l.db.QueryRowContext(ctx, "SELECT count(*) FROM "+stage+" WHERE ("+places("cost_text")+") OR ("+places("net_cost_text")+") OR ("+places("amount_text")+")").Scan(&load.Rounded)
}

// stageTags gives each distinct map of tags its id, and stores the sets.
func (l *Lake) stageTags(ctx context.Context, stage string) error {
	rows, err := l.db.QueryContext(ctx, "SELECT DISTINCT tags_json FROM "+stage+" WHERE tags_json IS NOT NULL UNION SELECT DISTINCT resource_tags_json FROM "+stage+" WHERE resource_tags_json IS NOT NULL")
	if err != nil {
		return err
	}
	defer rows.Close()
	ids := make(map[string]string)
	sets := make(map[string]waybill.Tags)
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		tags, err := mapTags(text)
		if err != nil {
			return err
		}
		ids[text], sets[tags.ID()] = tags.ID(), tags
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	if err := l.addTagSets(ctx, sets); err != nil {
		return err
	}
	names := "ids_" + stage
	spec := tableSpec{name: names, columns: []column{text("json", ""), text("id", "")}}
	if err := l.fill(ctx, names, &spec, func(add func(...driver.Value) error) error {
		for text, id := range ids {
			if err := add(text, id); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, q := range []string{
		"ALTER TABLE " + stage + " ADD COLUMN tag_set VARCHAR DEFAULT ''", "ALTER TABLE " + stage + " ADD COLUMN resource_tag_set VARCHAR DEFAULT ''",
		"UPDATE " + stage + " SET tag_set = coalesce((SELECT id FROM " + names + " WHERE json = tags_json), '')",
		"UPDATE " + stage + " SET resource_tag_set = coalesce((SELECT id FROM " + names + " WHERE json = resource_tags_json), '')",
		"DROP TABLE " + names,
	} {
		if _, err := l.db.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// mapTags reads a map of tags. A value that is no text is kept as it is written; none is
// no tag.
func mapTags(text string) (waybill.Tags, error) {
	var m map[string]json.RawMessage
	if text != "" && json.Unmarshal([]byte(text), &m) != nil {
		return waybill.Tags{}, errors.New("a map of tags is not an object") // quarantineBill lets none pass
	}
	plain := make(map[string]string)
	for k, v := range m {
		var s string
		if json.Unmarshal(v, &s) != nil {
			s = string(v)
		}
		if string(v) != "null" {
			plain[k] = s
		}
	}
	return waybill.TagsFromMap(plain), nil
}

// Charges gives the line items of a period, summed over those that agree in everything
// that judging them takes, and the tags of their tag sets.
func (l *Lake) Charges(ctx context.Context, p waybill.Period) ([]waybill.ChargeTotal, map[string]waybill.Tags, error) {
	files, _, err := l.dataFiles(ctx, &lineItems)
	if err != nil {
		return nil, nil, fmt.Errorf("read line items: %w", err)
	}
	if files = ofPeriod(files, p); len(files) == 0 {
		return nil, nil, nil
	}
	from, err := l.scan(ctx, files)
	if err != nil {
		return nil, nil, err
	}
	const keys = `claim, day, payer_account, usage_account, billing_entity, line_item_type, product_code, product_family, product_name, usage_type, description, region_code,
  pricing_unit, currency, unblended_rate, product_model, inference_type, feature, resource_id, iam_principal, tag_set`
	rows, err := l.db.QueryContext(ctx, "SELECT "+keys+", CAST(sum(row_count) AS BIGINT), CAST(sum(usage_amount) AS VARCHAR), CAST(sum(cost) AS VARCHAR), CAST(sum(unblended_cost) AS VARCHAR) FROM "+from+" GROUP BY "+keys+" ORDER BY ALL")
	if err != nil {
		return nil, nil, fmt.Errorf("read line items: %w", err)
	}
	defer rows.Close()
	var out []waybill.ChargeTotal
	for rows.Next() {
		var c waybill.ChargeTotal
		var day sql.NullInt32
		var amount, cost, unblended string
		if err := rows.Scan(&c.Claim, &day, &c.PayerAccount, &c.UsageAccount, &c.BillingEntity, &c.Type, &c.ProductCode, &c.ProductFamily, &c.ProductName, &c.UsageType, &c.Description, &c.RegionCode,
			&c.PricingUnit, &c.Currency, &c.UnblendedRate, &c.ProductModel, &c.InferenceType, &c.Feature, &c.ResourceID, &c.IAMPrincipal, &c.TagSet, &c.Rows, &amount, &cost, &unblended); err != nil {
			return nil, nil, fmt.Errorf("read line items: %w", err)
		}
		c.Day = waybill.Day(day.Int32)
		var e1, e2, e3 error
		c.UsageAmount, e1 = waybill.ParseQuantity(amount)
		c.Cost, e2 = waybill.ParseMoney(cost)
		c.Unblended, e3 = waybill.ParseMoney(unblended)
		if err := errors.Join(e1, e2, e3); err != nil {
			return nil, nil, fmt.Errorf("read line items: %w", err)
		}
		out = append(out, c)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	tags, err := l.readTagSets(ctx)
	return out, tags, err
}
