package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/waybill-dev/waybill"
)

// A source is where objects are read from. It only reads.
type source interface {
	list(ctx context.Context) ([]waybill.Object, error)
	open(ctx context.Context, o waybill.Object) (io.ReadCloser, error)
	// find is the object of a key or URI that a manifest names.
	find(name string) waybill.Object
}

// openSource opens a directory or s3://bucket/prefix.
func openSource(ctx context.Context, location string) (source, error) {
	if !strings.HasPrefix(location, "s3://") {
		dir, err := filepath.Abs(location)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(dir); err != nil {
			return nil, &waybill.Error{Kind: waybill.Misused, Message: fmt.Sprintf("%s cannot be read: %v", location, err), Hint: "name a directory, or s3://bucket/prefix", Err: err}
		}
		return dirSource{dir}, nil
	}
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(location, "s3://"), "/")
	c, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	client := s3.NewFromConfig(c, func(o *s3.Options) {
		o.UsePathStyle = os.Getenv("AWS_ENDPOINT_URL_S3") != "" || os.Getenv("AWS_ENDPOINT_URL") != ""
	})
	return s3Source{client, bucket, prefix}, nil
}

type dirSource struct{ dir string }

func (d dirSource) list(context.Context) ([]waybill.Object, error) {
	var out []waybill.Object
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		out = append(out, waybill.Object{URI: "file://" + filepath.ToSlash(path), Size: info.Size()})
		return nil
	})
	slices.SortFunc(out, func(a, b waybill.Object) int { return strings.Compare(a.URI, b.URI) })
	return out, err
}

func (d dirSource) open(_ context.Context, o waybill.Object) (io.ReadCloser, error) {
	return os.Open(filepath.FromSlash(strings.TrimPrefix(o.URI, "file://")))
}

func (d dirSource) find(name string) waybill.Object {
	if rest, ok := strings.CutPrefix(name, "s3://"); ok {
		_, name, _ = strings.Cut(rest, "/") // the copy of a bucket: keys are paths in it
	}
	name = strings.TrimPrefix(name, "/")
	for dir := d.dir; ; dir = filepath.Dir(dir) { // the copy may begin below the bucket's root
		path := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Stat(path); err == nil || dir == filepath.Dir(dir) {
			if err != nil {
				path = d.tail(name)
			}
			return waybill.Object{URI: "file://" + filepath.ToSlash(path)}
		}
	}
}

// tail looks for a key by ever shorter ends of it below the directory.
func (d dirSource) tail(name string) string {
	for rest := name; ; {
		path := filepath.Join(d.dir, filepath.FromSlash(rest))
		if _, err := os.Stat(path); err == nil {
			return path
		}
		var ok bool
		if _, rest, ok = strings.Cut(rest, "/"); !ok {
			return filepath.Join(d.dir, filepath.FromSlash(name))
		}
	}
}

type s3Source struct {
	client         *s3.Client
	bucket, prefix string
}

func (s s3Source) list(ctx context.Context) ([]waybill.Object, error) {
	var out []waybill.Object
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: &s.prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list s3://%s/%s: %w", s.bucket, s.prefix, err)
		}
		for _, o := range page.Contents {
			out = append(out, waybill.Object{URI: "s3://" + s.bucket + "/" + aws.ToString(o.Key), Version: strings.Trim(aws.ToString(o.ETag), `"`), Size: aws.ToInt64(o.Size)})
		}
	}
	return out, nil
}

func (s s3Source) open(ctx context.Context, o waybill.Object) (io.ReadCloser, error) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(o.URI, "s3://"), "/")
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.URI, err)
	}
	return out.Body, nil
}

func (s s3Source) find(name string) waybill.Object {
	if strings.HasPrefix(name, "s3://") {
		return waybill.Object{URI: name}
	}
	return waybill.Object{URI: "s3://" + s.bucket + "/" + strings.TrimPrefix(name, "/")}
}

// withVersion fills in the version of a file: its size and the SHA-256 of its content.
// On S3 the ETag is known from the listing.
func withVersion(ctx context.Context, s source, o waybill.Object) (waybill.Object, error) {
	if o.Version != "" {
		return o, nil
	}
	r, err := s.open(ctx, o)
	if err != nil {
		return o, err
	}
	defer r.Close()
	h := sha256.New()
	n, err := io.Copy(h, r)
	o.Version = fmt.Sprintf("%d-%s", n, hex.EncodeToString(h.Sum(nil)[:12]))
	return o, err
}
