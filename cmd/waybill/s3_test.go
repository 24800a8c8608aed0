package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/waybill-dev/waybill/internal/fakeaws"
)

// An account's own buckets, before any traffic moves: logs and bill are read from S3,
// the lake is kept on S3, and the figures are those of a directory. Now and then the
// store asks for patience.
func TestLakeAndRecordsOnS3(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "month")
	must(t, 0, "demo", "--once", "--dir", dir, "--waybilld", waybilld(t), "--calls", "240", "--seed", "3")
	store, err := fakeaws.ServeS3("my-logs", "demo-bill", "my-ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	t.Setenv("AWS_ENDPOINT_URL_S3", store.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("AWS_CA_BUNDLE", "")
	c, err := awsconfig.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := s3.NewFromConfig(c, func(o *s3.Options) { o.UsePathStyle = true })
	for bucket, folder := range map[string]string{"my-logs": "logs", "demo-bill": "cur"} {
		root := filepath.Join(dir, "aws", folder)
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			body, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			key, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			_, err = client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String(filepath.ToSlash(key)), Body: bytes.NewReader(body)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	store.Slow.Store(29)
	rates := filepath.Join(dir, "rates.csv")
	local := filepath.Join(t.TempDir(), "lake")
	must(t, 0, "ingest", "--lake", local, "--logs", filepath.Join(dir, "aws", "logs"), "--cur", filepath.Join(dir, "aws", "cur"))
	must(t, 0, "ingest", "--lake", "s3://my-ledger/lake", "--logs", "s3://my-logs", "--cur", "s3://demo-bill/exports")
	again := parse(t, must(t, 0, "ingest", "--lake", "s3://my-ledger/lake", "--logs", "s3://my-logs", "--cur", "s3://demo-bill/exports", "--output", "json"))
	if n := len(again["loaded"].(map[string]any)); n != 0 {
		t.Errorf("a second ingest loaded %v", again["loaded"])
	}
	want := must(t, 0, "report", "--lake", local, "--rates", rates, "--by", "principal,model", "--output", "json")
	got := must(t, 0, "report", "--lake", "s3://my-ledger/lake", "--rates", rates, "--by", "principal,model", "--output", "json")
	if got != want {
		t.Error("a lake on S3 gives another report than one on a directory")
	}
	addsUp(t, got)
}
