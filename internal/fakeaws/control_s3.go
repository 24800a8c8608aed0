package fakeaws

import (
	"encoding/xml"
	"net/http"
	"regexp"
	"strings"
)

// A bucketState is what S3 knows of a bucket, its objects aside.
type bucketState struct {
	name, owner, region string
	policyText          string
	policy              *policyDocument
	lifecycle           string // the XML of its rules
	blocked             string // the XML of its public access block
	ownership           string
}

// MakeBucket makes a bucket with a bucket policy, or without if it is empty.
func (p *ControlPlane) MakeBucket(account, region, name, policy string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &bucketState{name: name, owner: account, region: region, ownership: "BucketOwnerEnforced"}
	if policy != "" {
		d, no := readPolicy(policy)
		if no != nil {
			return no
		}
		b.policyText, b.policy = policy, d
	}
	p.buckets[name] = b
	return nil
}

// s3Operation names the operations on buckets, asked path-style.
func s3Operation(r *controlRequest) string {
	path := strings.Trim(r.http.URL.Path, "/")
	if path == "" || strings.Contains(path, "/") {
		return ""
	}
	r.path = []string{path}
	q := r.http.URL.Query()
	verb := map[string]string{"GET": "Get", "PUT": "Put", "DELETE": "Delete", "HEAD": "Head"}[r.http.Method]
	for param, noun := range map[string]string{"policy": "BucketPolicy", "lifecycle": "BucketLifecycleConfiguration", "publicAccessBlock": "PublicAccessBlock",
		"ownershipControls": "BucketOwnershipControls", "location": "BucketLocation"} {
		if q.Has(param) {
			return verb + noun
		}
	}
	switch verb {
	case "Put":
		return "CreateBucket"
	case "Head":
		return "HeadBucket"
	}
	return ""
}

func answerS3(rw http.ResponseWriter, r *controlRequest, v any) {
	status := 200
	if strings.HasPrefix(r.Operation, "Delete") || r.Operation == "PutBucketPolicy" {
		status = 204
	}
	text, _ := v.(string)
	kind := "application/xml"
	switch r.Operation {
	case "GetBucketPolicy":
		kind = "application/json"
	case "HeadBucket":
		rw.Header().Set("X-Amz-Bucket-Region", text)
		text = ""
	}
	writeBody(rw, status, kind, []byte(text))
}

func refuseS3(rw http.ResponseWriter, r *controlRequest, no *refusal) {
	kind := strings.TrimSuffix(no.kind, "Exception")
	body := []byte("<Error><Code>" + kind + "</Code><Message>" + escape(no.message) + "</Message></Error>")
	if r.http.Method == http.MethodHead {
		body = nil
	}
	writeBody(rw, no.status, "application/xml", body)
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func (p *ControlPlane) s3(r *controlRequest) (any, *refusal) {
	name := r.path[0]
	b := p.buckets[name]
	if r.Operation == "CreateBucket" {
		return p.createBucket(r, b)
	}
	switch {
	case b == nil:
		return nil, &refusal{404, "NoSuchBucket", "The specified bucket does not exist"}
	case b.owner != r.Account:
		return nil, &refusal{403, "AccessDenied", "Access Denied"}
	case b.region != r.Region && r.Operation != "GetBucketLocation":
		return nil, &refusal{301, "PermanentRedirect", "The bucket is in " + b.region}
	}
	if want := r.http.Header.Get("X-Amz-Expected-Bucket-Owner"); want != "" && want != b.owner {
		return nil, &refusal{403, "AccessDenied", "Access Denied"}
	}
	switch r.Operation {
	case "HeadBucket":
		return b.region, nil
	case "GetBucketPolicy":
		if b.policy == nil {
			return nil, &refusal{404, "NoSuchBucketPolicy", "The bucket policy does not exist"}
		}
		return b.policyText, nil
	case "PutBucketPolicy":
		d, no := readPolicy(string(r.body))
		if no != nil {
			return nil, &refusal{400, "MalformedPolicy", no.message}
		}
		if len(r.body) > 20<<10 {
			return nil, &refusal{400, "PolicyTooLarge", "20 KB"}
		}
		for _, s := range d.Statement {
			if len(s.Principal) == 0 || len(s.Resource) == 0 {
				return nil, &refusal{400, "MalformedPolicy", "Missing required field Principal or Resource"}
			}
			for _, res := range s.Resource {
				if res != "arn:aws:s3:::"+name && !strings.HasPrefix(res, "arn:aws:s3:::"+name+"/") {
					return nil, &refusal{400, "MalformedPolicy", "Policy has invalid resource"}
				}
			}
		}
		b.policyText, b.policy = string(r.body), d
		return "", nil
	case "DeleteBucketPolicy":
		b.policyText, b.policy = "", nil
		return "", nil
	case "GetBucketLifecycleConfiguration":
		if b.lifecycle == "" {
			return nil, &refusal{404, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"}
		}
		return b.lifecycle, nil
	case "PutBucketLifecycleConfiguration":
		var in struct {
			XMLName xml.Name `xml:"LifecycleConfiguration"`
			Rule    []struct {
				ID, Status string
				Filter     *struct{ Prefix *string }
				Prefix     *string
				Expiration *struct{ Days int }
			}
		}
		if err := xml.Unmarshal(r.body, &in); err != nil || len(in.Rule) == 0 || len(in.Rule) > 1000 {
			return nil, &refusal{400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"}
		}
		ids := make(map[string]bool)
		for _, rule := range in.Rule {
			if ids[rule.ID] || rule.Status != "Enabled" && rule.Status != "Disabled" || rule.Filter == nil && rule.Prefix == nil || rule.Expiration != nil && rule.Expiration.Days < 1 {
				return nil, &refusal{400, "MalformedXML", "rule " + rule.ID}
			}
			ids[rule.ID] = true
		}
		b.lifecycle = string(r.body)
		return "", nil
	case "GetPublicAccessBlock":
		if b.blocked == "" {
			return nil, &refusal{404, "NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"}
		}
		return b.blocked, nil
	case "PutPublicAccessBlock":
		b.blocked = string(r.body)
		return "", nil
	case "GetBucketOwnershipControls":
		if b.ownership == "" {
			return nil, &refusal{404, "OwnershipControlsNotFoundError", "The bucket ownership controls were not found"}
		}
		return `<OwnershipControls xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ObjectOwnership>` + b.ownership + `</ObjectOwnership></Rule></OwnershipControls>`, nil
	case "PutBucketOwnershipControls":
		var in struct {
			Rule []struct{ ObjectOwnership string }
		}
		if err := xml.Unmarshal(r.body, &in); err != nil || len(in.Rule) != 1 {
			return nil, &refusal{400, "MalformedXML", "ownership"}
		}
		b.ownership = in.Rule[0].ObjectOwnership
		return "", nil
	case "GetBucketLocation":
		location := b.region
		if location == "us-east-1" {
			location = ""
		}
		return `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` + location + `</LocationConstraint>`, nil
	}
	return nil, &refusal{405, "MethodNotAllowed", r.Operation}
}

func (p *ControlPlane) createBucket(r *controlRequest, b *bucketState) (any, *refusal) {
	name := r.path[0]
	var in struct{ LocationConstraint string }
	if len(r.body) > 0 {
		if err := xml.Unmarshal(r.body, &in); err != nil {
			return nil, &refusal{400, "MalformedXML", err.Error()}
		}
	}
	region := in.LocationConstraint
	if region == "" {
		region = "us-east-1"
	}
	switch {
	case !bucketName.MatchString(name):
		return nil, &refusal{400, "InvalidBucketName", "The specified bucket is not valid."}
	case region != r.Region || in.LocationConstraint == "us-east-1":
		return nil, &refusal{400, "IllegalLocationConstraintException", "The location constraint is incompatible for the region specific endpoint this request was sent to."}
	case b != nil && b.owner == r.Account && region == "us-east-1" && b.region == region:
		return "", nil // us-east-1 alone lets an owner create again
	case b != nil && b.owner == r.Account:
		return nil, &refusal{409, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it."}
	case b != nil:
		return nil, &refusal{409, "BucketAlreadyExists", "The requested bucket name is not available."}
	}
	p.buckets[name] = &bucketState{name: name, owner: r.Account, region: region, ownership: "BucketOwnerEnforced"}
	return "", nil
}
