package policy

import _ "embed" // the schemas

// Schema is the JSON Schema of a policy file, for editors. It is made from the types of
// this package: run the tests with WAYBILL_UPDATE=1.
//
//go:embed schema/tag-policy.json
var Schema []byte

// CasesSchema is the JSON Schema of a file of cases.
//
//go:embed schema/tag-policy-cases.json
var CasesSchema []byte
