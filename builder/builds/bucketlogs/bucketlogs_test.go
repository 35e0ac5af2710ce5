package bucketlogs_test

import (
	"context"
	"fmt"
	"log"
	"testing"

	"github.com/stretchr/testify/require"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/memblob"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/builds/bucketlogs"
	"github.com/sluice-deploy/sluice/builder/builds/buildstest"
)

func open(t *testing.T, b *blob.Bucket, prefix string) *bucketlogs.Store {
	t.Helper()
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	s, err := bucketlogs.New(bucketlogs.Config{Bucket: b, Prefix: prefix})
	require.NoError(t, err)
	return s
}

func TestMemory(t *testing.T) {
	t.Parallel()
	buildstest.Logs(t, func(t *testing.T) builds.Logs {
		return open(t, memblob.OpenBucket(nil), "")
	})
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	buildstest.Logs(t, func(t *testing.T) builds.Logs {
		b, err := fileblob.OpenBucket(t.TempDir(), &fileblob.Options{NoTempDir: true})
		require.NoError(t, err)
		return open(t, b, "logs/")
	})
}

// A log that lost an object in its middle is an error that names the place; other logs go on, and
// pass over objects of other names.
func TestMissingObject(t *testing.T) {
	t.Parallel()
	b := memblob.OpenBucket(nil)
	s := open(t, b, "")
	for i, text := range []string{"one\n", "two\n", "three\n"} {
		require.NoError(t, s.AppendLog(t.Context(), "b", int64(4*i), []byte(text)))
	}
	require.NoError(t, b.Delete(t.Context(), "b/00000000000000000004"))
	_, _, err := s.ReadLog(t.Context(), "b", 0, 100)
	require.ErrorContains(t, err, "want the one of byte 4")
	require.ErrorContains(t, s.AppendLog(t.Context(), "b", 14, []byte("x")), "byte 4")
	require.NoError(t, s.AppendLog(t.Context(), "other", 0, []byte("x")))
	require.NoError(t, b.WriteAll(t.Context(), "other/00000000000000000001.tmp", []byte("y"), nil))
	text, size, err := s.ReadLog(t.Context(), "other", 0, 100)
	require.NoError(t, err)
	require.Equal(t, "x", string(text))
	require.Equal(t, int64(1), size)
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	_, err := bucketlogs.New(bucketlogs.Config{Prefix: "/logs"})
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, "bucketlogs: Config.Bucket:")
	require.ErrorContains(t, err, "bucketlogs: Config.Prefix:")
}

func Example() {
	ctx := context.Background()
	bucket := memblob.OpenBucket(nil) // or blob.OpenBucket(ctx, "s3://logs") and its driver, s3blob
	defer bucket.Close()
	logs, err := bucketlogs.New(bucketlogs.Config{Bucket: bucket, Prefix: "builds/"})
	if err != nil {
		log.Fatal(err)
	}
	if err := logs.AppendLog(ctx, "hello_web-v2", 0, []byte("[1/2] FROM base\n")); err != nil {
		log.Fatal(err)
	}
	text, size, err := logs.ReadLog(ctx, "hello_web-v2", 0, 1<<20)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d bytes: %s", size, text)
	// Output: 16 bytes: [1/2] FROM base
}
