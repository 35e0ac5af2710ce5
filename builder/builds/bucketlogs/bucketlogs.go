// Package bucketlogs keeps the logs of builds in a bucket of [gocloud.dev/blob]: S3, Google Cloud
// Storage, Azure, a directory, memory. The embedder opens the bucket with the driver that it
// imports; this package imports none.
//
// A log is a directory of objects that never change, one for each append, named by their offset:
// PREFIX/BUILD/00000000000000065536. BUILD is a name that is made of the build's, with its letters
// and digits. An append makes an object only where there is none (S3: If-None-Match), so that two
// processes never write the same place; a store that claims to be S3 has to know this header. A
// directory, fileblob's, looks and writes in two steps: one process at a time may write its logs.
//
// An append costs a listing and an object, and package builds appends each line: filestore serves
// it better.
package bucketlogs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/internal/names"
)

// Config says where a [Store] is.
type Config struct {
	// Bucket has the logs. The caller closes it after the last call of the Store. Required.
	Bucket *blob.Bucket
	// Prefix begins the keys of all objects: "logs/". The default is none.
	Prefix string
}

// Store keeps logs in a bucket. All methods are safe for concurrent use.
type Store struct {
	config Config
	seed   maphash.Seed
	locks  [64]sync.Mutex // of appends, by the log
}

var _ builds.Logs = (*Store)(nil)

// New returns a store, or every problem of cfg at once, each wrapping builder.ErrInvalid. It does
// no I/O.
func New(cfg Config) (*Store, error) {
	var errs []error
	if cfg.Bucket == nil {
		errs = append(errs, fmt.Errorf("bucketlogs: Config.Bucket: is nil: want a bucket: %w",
			builder.ErrInvalid))
	}
	if strings.HasPrefix(cfg.Prefix, "/") || strings.Contains("/"+cfg.Prefix, "/../") {
		errs = append(errs, fmt.Errorf("bucketlogs: Config.Prefix: %q: want a prefix of keys such "+
			"as logs/: %w", cfg.Prefix, builder.ErrInvalid))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Store{config: cfg, seed: maphash.MakeSeed()}, nil
}

// segment is an object of a log.
type segment struct {
	key      string
	from, to int64
}

// directory begins the keys of a log.
func (s *Store) directory(build string) string {
	return s.config.Prefix + names.DNSLabel(build) + "/"
}

// segments returns the objects of a log in their order.
func (s *Store) segments(ctx context.Context, build string) ([]segment, error) {
	var list []segment
	objects := s.config.Bucket.List(&blob.ListOptions{Prefix: s.directory(build)})
	for {
		o, err := objects.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, failed(ctx, "list the log of build "+build, err)
		}
		at, err := strconv.ParseInt(o.Key[len(s.directory(build)):], 10, 64)
		if err != nil { // fileblob's, while it writes one
			continue
		}
		list = append(list, segment{key: o.Key, from: at, to: at + o.Size})
	}
	slices.SortFunc(list, func(a, b segment) int { return cmp.Compare(a.from, b.from) })
	var end int64
	for _, o := range list {
		if o.from != end {
			return nil, fmt.Errorf("log of build %s: object %s: want the one of byte %d before "+
				"it: remove the log, or put the object back", build, o.key, end)
		}
		end = o.to
	}
	return list, nil
}

func size(list []segment) int64 {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1].to
}

// failed returns an error of the bucket, or the cause of ctx where that has ended.
func failed(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// AppendLog implements builds.Logs.
func (s *Store) AppendLog(ctx context.Context, build string, offset int64, data []byte) error {
	what := fmt.Sprintf("append to the log of build %s at %d", build, offset)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	lock := &s.locks[maphash.String(s.seed, build)%uint64(len(s.locks))]
	lock.Lock() // drivers whose IfNotExist is two steps, such as fileblob's, need it
	defer lock.Unlock()
	list, err := s.segments(ctx, build)
	if err != nil {
		return err
	}
	if n := size(list); n != offset {
		return fmt.Errorf("%s: it has %d bytes: %w", what, n, builds.ErrConflict)
	}
	if len(data) == 0 {
		return nil
	}
	err = s.config.Bucket.WriteAll(ctx, fmt.Sprintf("%s%020d", s.directory(build), offset), data,
		&blob.WriterOptions{IfNotExist: true, ContentType: "text/plain; charset=utf-8"})
	switch {
	case err == nil:
		return nil
	case gcerrors.Code(err) == gcerrors.FailedPrecondition:
		return fmt.Errorf("%s: another process was first: %w", what, builds.ErrConflict)
	}
	return failed(ctx, what, err)
}

// ReadLog implements builds.Logs.
func (s *Store) ReadLog(ctx context.Context, build string, offset int64, limit int) ([]byte, int64,
	error) {
	what := fmt.Sprintf("read the log of build %s at %d", build, offset)
	if ctx.Err() != nil {
		return nil, 0, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	list, err := s.segments(ctx, build)
	if err != nil {
		return nil, 0, err
	}
	end := min(size(list), offset+int64(limit))
	var data []byte
	for _, o := range list {
		from, to := max(o.from, offset), min(o.to, end)
		if from >= to {
			continue
		}
		part, err := s.read(ctx, o.key, from-o.from, to-from)
		if err != nil {
			return nil, 0, failed(ctx, what, err)
		}
		data = append(data, part...)
	}
	return data, size(list), nil
}

// read returns n bytes of an object.
func (s *Store) read(ctx context.Context, key string, from, n int64) ([]byte, error) {
	r, err := s.config.Bucket.NewRangeReader(ctx, key, from, n, nil)
	if err != nil {
		return nil, err
	}
	data := make([]byte, n)
	_, err = io.ReadFull(r, data)
	return data, errors.Join(err, r.Close())
}

// RemoveLog implements builds.Logs. The end of the log goes first, so that a process that is killed
// leaves a log that can be read.
func (s *Store) RemoveLog(ctx context.Context, build string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("remove the log of build %s: %w", build, context.Cause(ctx))
	}
	list, err := s.segments(ctx, build)
	if err != nil {
		return err
	}
	for _, o := range slices.Backward(list) {
		err := s.config.Bucket.Delete(ctx, o.key)
		if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
			return failed(ctx, "remove the log of build "+build, err)
		}
	}
	return nil
}
