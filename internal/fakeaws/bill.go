package fakeaws

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"sort"
	"strings"
	"time"
	"unicode"

	"github.com/parquet-go/parquet-go"
)

// An ExtraRow is a row of the bill that no call made.
type ExtraRow struct {
	Type, ProductCode, Family, UsageType, Description, Entity, Region, Principal string
	Product                                                                      map[string]string
	At                                                                           time.Time
	Amount, Unit, Cost                                                           string // decimals
}

// ExportOptions say how the bill is written.
type ExportOptions struct {
	Prefix, Name string // of the export
	Bucket       string
	Payer        string
	Daily        bool            // one row a day, not an hour
	Activated    map[string]bool // tag keys activated for cost allocation
	Prices       Prices
	Extra        []ExtraRow
	RowsPerFile  int // 0 means 5,000
	// NoMantlePrincipal leaves the principal out of rows of bedrock-mantle, as AWS is said
	// to have done before August 2026.
	NoMantlePrincipal bool
}

// A billRow is a row of CUR 2.0 with the columns that an export of Bedrock selects.
type billRow struct {
	ID            string            `parquet:"identity_line_item_id"`
	Interval      string            `parquet:"identity_time_interval"`
	BillType      string            `parquet:"bill_bill_type"`
	Entity        string            `parquet:"bill_billing_entity"`
	PeriodStart   time.Time         `parquet:"bill_billing_period_start_date,timestamp(millisecond)"`
	PeriodEnd     time.Time         `parquet:"bill_billing_period_end_date,timestamp(millisecond)"`
	Invoice       string            `parquet:"bill_invoice_id"`
	Payer         string            `parquet:"bill_payer_account_id"`
	Account       string            `parquet:"line_item_usage_account_id"`
	Start         time.Time         `parquet:"line_item_usage_start_date,timestamp(millisecond)"`
	End           time.Time         `parquet:"line_item_usage_end_date,timestamp(millisecond)"`
	Type          string            `parquet:"line_item_line_item_type"`
	ProductCode   string            `parquet:"line_item_product_code"`
	UsageType     string            `parquet:"line_item_usage_type"`
	Operation     string            `parquet:"line_item_operation"`
	ResourceID    string            `parquet:"line_item_resource_id"`
	Principal     string            `parquet:"line_item_iam_principal"`
	Amount        float64           `parquet:"line_item_usage_amount"`
	Currency      string            `parquet:"line_item_currency_code"`
	UnblendedRate string            `parquet:"line_item_unblended_rate"`
	UnblendedCost float64           `parquet:"line_item_unblended_cost"`
	Description   string            `parquet:"line_item_line_item_description"`
	LegalEntity   string            `parquet:"line_item_legal_entity"`
	PricingUnit   string            `parquet:"pricing_unit"`
	RateCode      string            `parquet:"pricing_rate_code"`
	Product       map[string]string `parquet:"product"`
	Family        string            `parquet:"product_product_family"`
	ServiceCode   string            `parquet:"product_servicecode"`
	RegionCode    string            `parquet:"product_region_code"`
	ResourceTags  map[string]string `parquet:"resource_tags"`
	Tags          map[string]string `parquet:"tags"`
}

// A Summary is what a bill says, in exact decimals.
type Summary struct {
	Total   string
	Bedrock string            // Bedrock's part of it
	ByType  map[string]string // by usage type, or by line item type where there is none
	ByWhom  map[string]string // by IAM principal
	Rows    int
}

type billKey struct {
	hour                                                          time.Time
	account, region, scope, kind, tier, principal, tags, resource string
	endpoint, model, detail                                       string
	streamed                                                      bool
}

// WriteExport writes the bill of a month as a CUR 2.0 export in the overwrite layout:
// data files, then the manifest. A later export of the month replaces it whole.
func WriteExport(put Putter, month time.Time, calls []Call, o ExportOptions) (Summary, error) {
	if o.RowsPerFile == 0 {
		o.RowsPerFile = 5000
	}
	month = time.Date(month.Year(), month.Month(), 1, 0, 0, 0, 0, time.UTC)
	sums := make(map[billKey]int64)
	for _, c := range calls {
		if c.Status != 200 || c.At.Before(month) || !c.At.Before(month.AddDate(0, 1, 0)) {
			continue
		}
		hour := c.At.UTC().Truncate(time.Hour)
		if o.Daily {
			hour = c.At.UTC().Truncate(24 * time.Hour)
		}
		tier := map[string]string{"": "standard", "default": "standard"}[c.Tier]
		if tier == "" {
			tier = c.Tier
		}
		k := billKey{hour: hour, account: c.Account, region: c.Region, scope: c.Scope, tier: tier, principal: c.PrincipalARN,
			tags: billTags(c, o.Activated), resource: c.ProfileARN, endpoint: c.Endpoint, model: c.BaseModel, streamed: c.Streamed}
		if c.Endpoint == Mantle {
			k.resource = c.ProjectARN
			if o.NoMantlePrincipal {
				k.principal = ""
			}
		}
		for kind, n := range map[string]int64{"input": c.InputTokens, "output": c.OutputTokens, "cache_read": c.CacheRead,
			"cache_write_5m": c.CacheWrite5m, "cache_write_1h": c.CacheWrite1h, "cache_write_30m": c.CacheWrite30m} {
			if n > 0 {
				k.kind = kind
				sums[k] += n
			}
		}
		for unit, n := range otherUnits(c) {
			if n > 0 {
				u := k
				u.kind, u.detail, _ = strings.Cut(unit, "|")
				u.model, u.scope, u.tier = "", "plain", "standard"
				sums[u] += n
			}
		}
	}
	var rows []billRow
	for k, n := range sums {
		row, err := o.usageRow(month, k, n)
		if err != nil {
			return Summary{}, err
		}
		row.ResourceTags = resourceTags(row.Tags)
		rows = append(rows, row)
	}
	for _, e := range o.Extra {
		rows = append(rows, o.extraRow(month, e))
	}
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		return fmt.Sprint(a.Start.Unix(), a.UsageType, a.Principal, a.Tags, a.Operation, a.ResourceID, a.Account) < fmt.Sprint(b.Start.Unix(), b.UsageType, b.Principal, b.Tags, b.Operation, b.ResourceID, b.Account)
	})
	for i := range rows {
		rows[i].ID = fmt.Sprintf("line-%08d", i)
	}
	return summarize(rows), o.store(put, month, rows)
}

// otherUnits are what a call is charged for besides tokens: by the unit's name on the
// price list, and after a bar what varies in its usage type.
func otherUnits(c Call) map[string]int64 {
	units := make(map[string]int64)
	for name, n := range c.Guardrail {
		units[name] = n
	}
	units["webSearch"] = c.Searches
	f := familyOf(c.BaseModel)
	if f == nil {
		return units
	}
	switch f.makes {
	case "ranking":
		units[f.prefix] = c.SearchUnits
	case "video":
		units[f.prefix] = c.VideoSeconds
	case "image":
		name, size := f.prefix, "512"
		if c.ImageQuality == "premium" {
			name += " premium"
		}
		var width, height int
		if n, _ := fmt.Sscanf(c.ImageSize, "%dx%d", &width, &height); n == 2 && max(width, height) > 512 {
			size = "1024"
			if max(width, height) > 1024 {
				size = "2048"
			}
		}
		units[name+"|"+size] = c.Images
	}
	return units
}

// billTags is the tags map of a row as JSON: the activated session tags, and those of the
// project or of what the call made.
func billTags(c Call, activated map[string]bool) string {
	m := make(map[string]string)
	for prefix, tags := range map[string]map[string]string{"iamPrincipal/": c.SessionTags, "resourceTags/": c.ResourceTags} {
		for k, v := range tags {
			if activated[k] {
				m[prefix+k] = v
			}
		}
	}
	return string(encode(m))
}

// resourceTags are the tags of a resource among a row's, under the names that the bill has
// normalised.
func resourceTags(tags map[string]string) map[string]string {
	out := make(map[string]string)
	for k, v := range tags {
		name, ok := strings.CutPrefix(k, "resourceTags/")
		if !ok {
			continue
		}
		var b strings.Builder
		for i, c := range name {
			switch {
			case unicode.IsUpper(c):
				if i > 0 && unicode.IsLower(rune(name[i-1])) {
					b.WriteByte('_')
				}
				b.WriteRune(unicode.ToLower(c))
			case unicode.IsLetter(c), unicode.IsDigit(c):
				b.WriteRune(c)
			default:
				b.WriteByte('_')
			}
		}
		out["user_"+b.String()] = v
	}
	return out
}

// unitRow is a row of what is not counted in tokens.
func (o *ExportOptions) unitRow(month time.Time, k billKey, n int64) (billRow, error) {
	u, ok := unitPrices[k.kind]
	if !ok {
		return billRow{}, fmt.Errorf("%s is not on the price list", k.kind)
	}
	row := o.row(month, k)
	prefix, price := regionPrefix[k.region], rat(u.amount)
	row.UsageType = prefix + "-" + u.usage
	switch {
	case u.marketplace != "":
		row.UsageType = prefix + "-" + fmt.Sprintf(u.usage, prefix)
		row.Entity, row.LegalEntity, row.ProductCode = "AWS Marketplace", "AWS Marketplace", "5k2x9example00000000000"
		row.Product["product_name"] = u.marketplace
	case strings.Contains(u.usage, "%s"):
		row.UsageType = prefix + "-" + fmt.Sprintf(u.usage, k.detail)
	}
	if u.marketplace == "" {
		row.ProductCode, row.ServiceCode = "AmazonBedrock", "AmazonBedrock"
	}
	row.Amount = double(new(big.Rat).SetInt64(n), 12)
	row.UnblendedRate, row.PricingUnit = decimal(price, 15), u.unit
	row.UnblendedCost = double(new(big.Rat).Mul(new(big.Rat).SetInt64(n), price), 10)
	row.Description = fmt.Sprintf("$%s per %s for %s in %s", row.UnblendedRate, u.unit, row.UsageType, k.region)
	return row, json.Unmarshal([]byte(k.tags), &row.Tags)
}

// row is what all rows of usage have.
func (o *ExportOptions) row(month time.Time, k billKey) billRow {
	length := time.Hour
	if o.Daily {
		length = 24 * time.Hour
	}
	row := o.frame(month, k.hour, length)
	row.Account, row.Type, row.Principal, row.ResourceID = k.account, "Usage", k.principal, k.resource
	row.Family, row.RegionCode = "Amazon Bedrock", k.region
	row.Product["region"] = k.region
	return row
}

func (o *ExportOptions) usageRow(month time.Time, k billKey, tokens int64) (billRow, error) {
	if k.model == "" {
		return o.unitRow(month, k, tokens)
	}
	l := listed(k.model)
	if l == nil {
		return billRow{}, fmt.Errorf("model %s is not on the price list", k.model)
	}
	scope := k.scope
	if scope == "geo" && !l.ownGeo {
		scope = "plain" // billed under the Region's own usage type
	}
	price := o.Prices.perToken(l, scope, k.kind, k.tier, k.hour)
	if price == nil {
		return billRow{}, fmt.Errorf("%s has no price for %s %s", k.model, scope, k.kind)
	}
	n := new(big.Rat).SetInt64(tokens)
	rate := new(big.Rat).Mul(price, new(big.Rat).SetInt64(l.per))
	row := o.row(month, k)
	row.UsageType = usageType(l, k.endpoint, k.region, scope, k.kind, k.tier)
	row.Operation = "InvokeModelInference"
	if k.streamed {
		row.Operation = "InvokeModelStreamingInference"
	}
	row.Amount = double(new(big.Rat).Quo(n, new(big.Rat).SetInt64(l.per)), 12)
	row.UnblendedRate = decimal(rate, 15)
	row.UnblendedCost = double(new(big.Rat).Mul(n, price), 10)
	row.PricingUnit = l.unit
	row.Product = map[string]string{"provider": l.provider, "feature": "On-demand Inference", "region": k.region,
		"inference_type": map[string]string{"input": "Input tokens", "output": "Output tokens", "cache_read": "Prompt cache read input tokens"}[k.kind]}
	if strings.HasPrefix(k.kind, "cache_write") {
		row.Product["inference_type"] = "Prompt cache write input tokens"
	}
	if k.endpoint == Mantle {
		row.ProductCode, row.ServiceCode, row.PricingUnit = "AmazonBedrockService", "AmazonBedrockService", "1M tokens"
		row.Amount = double(new(big.Rat).Quo(n, big.NewRat(1_000_000, 1)), 12)
		row.UnblendedRate = decimal(new(big.Rat).Mul(price, big.NewRat(1_000_000, 1)), 15)
		row.Description = fmt.Sprintf("$%s per 1M tokens for %s", row.UnblendedRate, row.UsageType)
	} else if l.marketplace() {
		row.Entity, row.LegalEntity, row.ProductCode = "AWS Marketplace", l.provider, "7zgyu5r4example0000000000"
		row.Product["model"], row.Product["product_name"] = l.name, l.name+" (Amazon Bedrock Edition)"
		row.Description = "AWS Marketplace software usage|" + k.region + "|Million " + row.Product["inference_type"]
	} else {
		row.ProductCode, row.ServiceCode = "AmazonBedrock", "AmazonBedrock"
		row.Description = fmt.Sprintf("$%s per %s for %s", row.UnblendedRate, l.unit, l.name)
	}
	return row, json.Unmarshal([]byte(k.tags), &row.Tags)
}

func (o *ExportOptions) frame(month, start time.Time, length time.Duration) billRow {
	return billRow{BillType: "Anniversary", Entity: "AWS", PeriodStart: month, PeriodEnd: month.AddDate(0, 1, 0), Payer: o.Payer, Start: start, End: start.Add(length),
		Interval: start.Format(time.RFC3339) + "/" + start.Add(length).Format(time.RFC3339), Currency: "USD", LegalEntity: "Amazon Web Services, Inc.",
		Product: map[string]string{}, ResourceTags: map[string]string{}, Tags: map[string]string{}}
}

func (o *ExportOptions) extraRow(month time.Time, e ExtraRow) billRow {
	at := e.At
	if at.IsZero() {
		at = month
	}
	row := o.frame(month, at, 24*time.Hour)
	row.Account, row.Type, row.ProductCode, row.Family, row.UsageType = o.Payer, e.Type, e.ProductCode, e.Family, e.UsageType
	row.Description, row.RegionCode, row.Principal, row.PricingUnit = e.Description, e.Region, e.Principal, e.Unit
	if e.Entity != "" {
		row.Entity = e.Entity
	}
	if e.Product != nil {
		row.Product = e.Product
	}
	row.UnblendedCost = double(rat(e.Cost), 10)
	if e.Amount != "" {
		row.Amount = double(rat(e.Amount), 12)
	}
	return row
}

func summarize(rows []billRow) Summary {
	total, bedrock, by, whom := new(big.Rat), new(big.Rat), make(map[string]*big.Rat), make(map[string]*big.Rat)
	for _, r := range rows {
		cost := rat(fmt.Sprintf("%.10f", r.UnblendedCost))
		total.Add(total, cost)
		if r.Family == "Amazon Bedrock" {
			bedrock.Add(bedrock, cost)
		}
		name := r.UsageType
		if name == "" {
			name = r.Type
		}
		if by[name] == nil {
			by[name] = new(big.Rat)
		}
		by[name].Add(by[name], cost)
		if whom[r.Principal] == nil {
			whom[r.Principal] = new(big.Rat)
		}
		whom[r.Principal].Add(whom[r.Principal], cost)
	}
	s := Summary{Total: decimal(total, 10), Bedrock: decimal(bedrock, 10), ByType: make(map[string]string), ByWhom: make(map[string]string), Rows: len(rows)}
	for k, v := range by {
		s.ByType[k] = decimal(v, 10)
	}
	for k, v := range whom {
		s.ByWhom[k] = decimal(v, 10)
	}
	return s
}

// store writes the data files and then the manifest.
func (o *ExportOptions) store(put Putter, month time.Time, rows []billRow) error {
	base := strings.TrimPrefix(o.Prefix+"/"+o.Name, "/")
	partition := "BILLING_PERIOD=" + month.Format("2006-01")
	var files []string
	for i := 0; i == 0 || i < len(rows); i += o.RowsPerFile {
		var buf bytes.Buffer
		w := parquet.NewGenericWriter[billRow](&buf, parquet.Compression(&parquet.Snappy))
		if _, err := w.Write(rows[i:min(i+o.RowsPerFile, len(rows))]); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		key := fmt.Sprintf("%s/data/%s/%s-%05d.snappy.parquet", base, partition, o.Name, len(files)+1)
		if err := put(key, buf.Bytes()); err != nil {
			return err
		}
		files = append(files, "s3://"+o.Bucket+"/"+key)
	}
	var columns []string
	for _, f := range parquet.SchemaOf(billRow{}).Fields() {
		columns = append(columns, f.Name())
	}
	manifest := obj{"exportName": o.Name, "dataFiles": files, "columns": columns,
		"billingPeriod": obj{"start": month.Format(time.RFC3339), "end": month.AddDate(0, 1, 0).Format(time.RFC3339)}}
	return put(fmt.Sprintf("%s/metadata/%s/%s-Manifest.json", base, partition, o.Name), encode(manifest))
}
