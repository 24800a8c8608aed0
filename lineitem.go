package waybill

import "time"

// A LineItem is one charge of the bill, in the words of CUR 2.0: the columns
// Waybill keeps. Amounts come from the shortest decimal text of the export's
// doubles. Columns that the export does not have are empty.
type LineItem struct {
	Period          Period    // bill_billing_period_start_date
	ID              string    // identity_line_item_id: unique within one delivery only
	UsageStart      time.Time // line_item_usage_start_date, inclusive
	UsageEnd        time.Time // line_item_usage_end_date, exclusive
	PayerAccount    string
	UsageAccount    string
	BillingEntity   string // AWS, AWS Marketplace
	InvoiceID       string
	LegalEntity     string
	Type            string // line_item_line_item_type: Usage, Tax, Credit, ...
	ProductCode     string
	ProductFamily   string
	ProductName     string
	UsageType       string
	Operation       string
	ResourceID      string
	IAMPrincipal    string
	Description     string
	RegionCode      string   // product_region_code, else product['region']
	UsageAmount     Quantity // in PricingUnit, as billed
	PricingUnit     string
	Currency        string
	UnblendedRate   string
	UnblendedCost   Money
	NetCost         Money // line_item_net_unblended_cost
	HasNetCost      bool  // whether the column exists and is filled
	RateCode        string
	ProductModel    string // product['model']
	ProductProvider string
	InferenceType   string // product['inference_type']
	Feature         string // product['feature']
	Tags            Tags   // the tags map: iamPrincipal/..., resourceTags/..., unchanged
	ResourceTags    Tags   // the resource_tags map, unchanged
}

// Cost is the invoice amount of the line item: net of discounts where the bill says
// so, else unblended.
func (l *LineItem) Cost() Money {
	if l.HasNetCost {
		return l.NetCost
	}
	return l.UnblendedCost
}

// A Claim says whether a row of the bill is Bedrock's.
type Claim string

// The claims.
const (
	Claimed    Claim = "bedrock"     // Bedrock's: it is in every total
	NotClaimed Claim = "not_claimed" // another service's: counted and summed only
)

// A ChargeTotal is line items of one billing period summed over those that agree in
// everything that judging them takes.
type ChargeTotal struct {
	Claim         Claim
	Day           Day // UTC day of UsageStart; 0 where that is not told, or the line items cover more than a day
	PayerAccount  string
	UsageAccount  string
	BillingEntity string
	Type          string
	ProductCode   string
	ProductFamily string
	ProductName   string
	UsageType     string
	Description   string
	RegionCode    string
	PricingUnit   string
	Currency      string
	UnblendedRate string
	ProductModel  string
	InferenceType string
	Feature       string
	ResourceID    string
	IAMPrincipal  string
	TagSet        string // Tags.ID of the tags map

	Rows        int64
	UsageAmount Quantity // in PricingUnit
	Cost        Money    // LineItem.Cost, summed
	Unblended   Money    // unblended cost, summed
}
