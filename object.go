package waybill

// An Object is where facts were read from: a file and the version of it. Its
// identity is both: an object that is read again under the same URI with another
// version is another object.
type Object struct {
	URI     string `json:"uri"`     // s3://bucket/key or file:///path
	Version string `json:"version"` // ETag on S3; size and SHA-256 of a file
	Size    int64  `json:"size"`
}
