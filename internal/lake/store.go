package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// A store keeps objects by name, below the lake's location.
type store interface {
	get(ctx context.Context, name string) ([]byte, error) // fs.ErrNotExist
	put(ctx context.Context, name string, body []byte) error
	// putNew fails with fs.ErrExist where the name is taken: of many who try, one wins.
	putNew(ctx context.Context, name string, body []byte) error
	list(ctx context.Context, prefix string) ([]string, error)
	// local is a path on this machine with the object's content. Names are never
	// reused, so a copy never goes stale.
	local(ctx context.Context, name string) (string, error)
	// putFile stores a file of this machine.
	putFile(ctx context.Context, name, path string) error
}

// dirStore is a directory.
type dirStore struct{ root string }

func (d dirStore) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

func (d dirStore) get(_ context.Context, name string) ([]byte, error) {
	return os.ReadFile(d.path(name))
}

func (d dirStore) write(name string, body []byte) (temp string, err error) {
	dir := filepath.Dir(d.path(name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(body)
	return f.Name(), errors.Join(err, f.Sync(), f.Close())
}

func (d dirStore) put(_ context.Context, name string, body []byte) error {
	temp, err := d.write(name, body)
	if err != nil {
		return err
	}
	return errors.Join(os.Rename(temp, d.path(name)), syncDir(filepath.Dir(d.path(name))))
}

func (d dirStore) putNew(_ context.Context, name string, body []byte) error {
	temp, err := d.write(name, body)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, d.path(name)); err != nil {
		return err // fs.ErrExist where somebody was first
	}
	return syncDir(filepath.Dir(d.path(name)))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d dirStore) list(_ context.Context, prefix string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(d.path(prefix), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".tmp-") {
			return err
		}
		rel, err := filepath.Rel(d.root, path)
		out = append(out, filepath.ToSlash(rel))
		return err
	})
	slices.Sort(out)
	return out, err
}

func (d dirStore) local(_ context.Context, name string) (string, error) { return d.path(name), nil }

func (d dirStore) putFile(_ context.Context, name, path string) error {
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o755); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if os.Rename(path, d.path(name)) != nil { // another file system
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return d.put(context.Background(), name, body)
	}
	return syncDir(filepath.Dir(d.path(name)))
}

// s3Store is a bucket, with a cache on this machine.
type s3Store struct {
	client         *s3.Client
	bucket, prefix string
	cache          string
}

func newS3Store(ctx context.Context, location, cache string) (*s3Store, error) {
	bucket, prefix, _ := strings.Cut(strings.TrimPrefix(location, "s3://"), "/")
	c, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("load AWS configuration: %w", err)
	}
	client := s3.NewFromConfig(c, func(o *s3.Options) {
		o.UsePathStyle = os.Getenv("AWS_ENDPOINT_URL_S3") != "" || os.Getenv("AWS_ENDPOINT_URL") != ""
	})
	return &s3Store{client, bucket, strings.Trim(prefix, "/"), cache}, nil
}

func (s *s3Store) key(name string) *string {
	if s.prefix != "" {
		name = s.prefix + "/" + name
	}
	return &name
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func (s *s3Store) get(ctx context.Context, name string) ([]byte, error) {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.key(name)})
	if c := code(err); c == "NoSuchKey" || c == "NotFound" {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

func (s *s3Store) put(ctx context.Context, name string, body []byte) error {
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: s.key(name), Body: bytes.NewReader(body)})
	return err
}

func (s *s3Store) putNew(ctx context.Context, name string, body []byte) error {
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: s.key(name), Body: bytes.NewReader(body), IfNoneMatch: aws.String("*")})
	if err == nil {
		return nil
	}
	// A retry of a put that had succeeded comes back as taken as well: look.
	if there, getErr := s.get(ctx, name); getErr == nil {
		if bytes.Equal(there, body) {
			return nil
		}
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	if c := code(err); c == "PreconditionFailed" || c == "ConditionalRequestConflict" {
		return fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	return err
}

func (s *s3Store) list(ctx context.Context, prefix string) ([]string, error) {
	var out []string
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.key(prefix)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			out = append(out, strings.TrimPrefix(strings.TrimPrefix(aws.ToString(o.Key), s.prefix), "/"))
		}
	}
	slices.Sort(out)
	return out, nil
}

func (s *s3Store) local(ctx context.Context, name string) (string, error) {
	path := filepath.Join(s.cache, filepath.FromSlash(name))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	body, err := s.get(ctx, name)
	if err != nil {
		return "", err
	}
	return path, dirStore{s.cache}.put(ctx, name, body)
}

func (s *s3Store) putFile(ctx context.Context, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: s.key(name), Body: f})
	return err
}

// memFile is an object that was read whole, as iceberg-go wants to see it.
type memFile struct {
	*bytes.Reader
	name string
}

func (f memFile) Close() error               { return nil }
func (f memFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f memFile) Name() string               { return f.name }
func (f memFile) Mode() fs.FileMode          { return 0o444 }
func (f memFile) ModTime() time.Time         { return time.Time{} }
func (f memFile) IsDir() bool                { return false }
func (f memFile) Sys() any                   { return nil }
