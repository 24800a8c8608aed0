package ledger

import (
	"regexp"
	"strings"

	"github.com/waybill-dev/waybill"
	"github.com/waybill-dev/waybill/internal/ratecard"
)

// A Bucket names dollars of the bill that no call takes, or a cause of variance.
type Bucket string

// The buckets for rows of the bill that no call can take.
const (
	Bypass        Bucket = "bypass"         // calls that neither passed the gateway nor carry a tag
	NotLogged     Bucket = "not_logged"     // used where nothing logs: no log in that Region, and not our call
	MantleUnseen  Bucket = "mantle_unseen"  // bedrock-mantle, which AWS never logs, and not our call
	NoCalls       Bucket = "no_calls"       // token charges for which the ledger has no call
	Batch         Bucket = "batch"          // batch inference: not in the log
	Commitment    Bucket = "commitment"     // provisioned and reserved capacity, fees, savings plans
	Guardrail     Bucket = "guardrail"      // guardrail policy units
	Customization Bucket = "customization"  // training, storage and import of custom models
	Consumption   Bucket = "consumption"    // knowledge bases, AgentCore and the like
	Tax           Bucket = "tax"            // tax
	Credit        Bucket = "credit"         // credits
	Refund        Bucket = "refund"         // refunds
	Discount      Bucket = "discount"       // discounts, as rows or inside net cost
	ModelUnmapped Bucket = "model_unmapped" // the bill names a model that no table knows
	Unparsed      Bucket = "unparsed"       // a usage type with words we do not know
	UnitUnknown   Bucket = "unit_unknown"   // token charges in a unit we do not know
	OtherCharge   Bucket = "other"          // Bedrock's, and none of the above
)

// The buckets for causes of variance in keys that have calls.
const (
	RateDiffers     Bucket = "rate"          // the bill's rate is not the rate card's
	Unpriced        Bucket = "unpriced"      // billed usage without a price on the rate card
	QuantityDiffers Bucket = "quantity"      // the bill counts another quantity than the calls
	UsageUnknown    Bucket = "usage_unknown" // the same, where there are calls whose usage is not known
	Timing          Bucket = "timing"        // days that the bill has not settled, calls that cross midnight
	Rounding        Bucket = "rounding"      // the bill rounds each row
)

// A charge is a ChargeTotal that has been judged.
type charge struct {
	waybill.ChargeTotal
	usage  ratecard.UsageType
	key    waybill.UsageKey // of token charges
	bucket Bucket           // where it goes if not to a key; empty for token charges
	tokens waybill.Quantity // UsageAmount in single units
	hasQty bool
	label  string // model or usage type, for evidence
}

// hasDay reports whether the bill tells of which day the charge is. An export by the month
// does not.
func (c *charge) hasDay() bool { return c.Day != 0 }

// judge says what one charge is. Only Bedrock's charges are given to it.
func judge(c waybill.ChargeTotal, models *ratecard.Models) charge {
	j := charge{ChargeTotal: c, usage: ratecard.ParseUsageType(c.UsageType), label: c.UsageType}
	if b := typeBucket(c.Type); b != "" {
		j.bucket, j.label = b, strings.TrimSpace(c.Type+" "+c.UsageType)
		return j
	}
	if b := kindBucket(j.usage); b != "" {
		j.bucket = b
		return j
	}
	endpoint, model, ok := waybill.Runtime, "", false
	if j.usage.Dialect == ratecard.MantleKebab { // it has the id of the calls; the display name may have another id on the other endpoint
		endpoint, model, ok = waybill.Mantle, j.usage.Model, true
	}
	for _, name := range []string{c.ProductModel, j.usage.Model, c.ProductName} {
		if !ok {
			model, ok = models.ID(name)
		}
	}
	if !ok {
		j.bucket = ModelUnmapped
		j.label = strings.TrimSpace(firstOf(c.ProductModel, j.usage.Model, c.ProductName) + " " + c.UsageType)
		return j
	}
	j.key = waybill.UsageKey{
		Account: c.UsageAccount, Region: region(c, j.usage), Endpoint: endpoint, Model: model, Kind: j.usage.Kind,
		Tier: j.usage.Tier, Scope: j.usage.Scope.Group(), LongContext: j.usage.LongContext,
	}
	unit, ok := unitSize(c, j.usage)
	if !ok {
		if !c.UsageAmount.IsZero() {
			j.bucket, j.label = UnitUnknown, c.UsageType+" in "+c.PricingUnit
			return j
		}
	} else {
		j.tokens = c.UsageAmount.Times(unit)
		j.hasQty = !c.UsageAmount.IsZero() || c.Cost.IsZero()
	}
	return j
}

func firstOf(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

// typeBucket is the bucket of a line item type that is not usage.
func typeBucket(lineItemType string) Bucket {
	switch lineItemType {
	case "", "Usage", "DiscountedUsage", "SavingsPlanCoveredUsage":
		return ""
	case "Tax":
		return Tax
	case "Credit":
		return Credit
	case "Refund":
		return Refund
	case "Fee", "RIFee", "FlatRateSubscription", "SavingsPlanRecurringFee", "SavingsPlanUpfrontFee":
		return Commitment
	}
	if strings.HasSuffix(lineItemType, "Discount") || lineItemType == "SavingsPlanNegation" {
		return Discount
	}
	return OtherCharge
}

// kindBucket is the bucket of usage that no call can have.
func kindBucket(u ratecard.UsageType) Bucket {
	switch kind := string(u.Kind); {
	case u.Tier == waybill.TierBatch:
		return Batch
	case kind == "model_unit_hour", strings.HasSuffix(kind, "_tpm_hour"):
		return Commitment
	case strings.HasPrefix(kind, "guardrail_unit"):
		return Guardrail
	case kind == "customization", strings.HasPrefix(kind, "custom_import:"):
		return Customization
	case strings.HasPrefix(kind, "consumption:"):
		return Consumption
	case u.Unparsed != "" && u.Kind != ratecard.Other:
		return Unparsed
	case !u.Tokens():
		return OtherCharge
	}
	return ""
}

// region is the Region of a charge: the bill's own column, else the second part of a
// Marketplace description, else the prefix of the usage type.
func region(c waybill.ChargeTotal, u ratecard.UsageType) string {
	if c.RegionCode != "" {
		return c.RegionCode
	}
	if parts := strings.Split(c.Description, "|"); len(parts) == 3 && strings.Count(parts[1], "-") >= 2 {
		return strings.TrimSpace(parts[1])
	}
	return u.Region
}

// singly are the kinds of usage that the bill counts one by one.
var singly = map[waybill.Kind]bool{waybill.InputImage: true, waybill.OutputImage: true, waybill.InputAudioSecond: true,
	waybill.InputVideoSecond: true, waybill.VideoSecond: true, waybill.SearchUnit: true}

// manyOf are the units that hold a thousand or a million of what is counted.
var manyOf = regexp.MustCompile(`^(1k|1m|thousand|million|1,000|1,000,000) (?:tokens?|images?|seconds?|requests?|quer(?:y|ies)|search units?)$`)

// unitSize is how many tokens (images, seconds) one unit of the charge is. It goes by
// the row: units differ between dialects, and change within a month.
func unitSize(c waybill.ChargeTotal, u ratecard.UsageType) (int64, bool) {
	unit := strings.ToLower(strings.TrimSpace(c.PricingUnit))
	if m := manyOf.FindStringSubmatch(unit); m != nil {
		if m[1] == "1m" || m[1] == "million" || m[1] == "1,000,000" {
			return 1_000_000, true
		}
		return 1_000, true
	}
	switch unit {
	case "image", "images", "second", "seconds", "token", "tokens", "request", "requests", "query", "queries", "search unit", "search units", "textunit", "text unit":
		return 1, true
	case "units", "unit", "":
	default:
		return 0, false
	}
	text := strings.ToLower(c.Description)
	if parts := strings.Split(text, "|"); len(parts) == 3 {
		text = parts[2]
	}
	switch {
	case strings.Contains(text, "million"), strings.Contains(text, "1m token"):
		return 1_000_000, true
	case strings.Contains(text, "thousand"), strings.Contains(text, "1k token"), strings.Contains(text, "1,000 tokens"):
		return 1_000, true
	case singly[u.Kind]:
		return 1, true
	case u.Dialect == ratecard.Marketplace:
		return 1_000_000, true
	case c.PricingUnit == "":
		return 1_000, true // the runtime dialect's list unit; the quantity check would show a wrong guess
	}
	return 0, false
}
