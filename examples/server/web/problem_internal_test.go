package web

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/examples/server/instance"
	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/untar"
	"github.com/sluice-deploy/sluice/promote"
	"github.com/sluice-deploy/sluice/vip"
)

// TestStatusOfEachSentinel reads the sources of the packages, so that a new sentinel has to get a
// row.
func TestStatusOfEachSentinel(t *testing.T) {
	t.Parallel()
	rows := map[string]struct {
		err    error
		status int
		code   string
	}{
		"vip.ErrExhausted":      {vip.ErrExhausted, 503, "exhausted"},
		"vip.ErrConflict":       {vip.ErrConflict, 409, "conflict"},
		"vip.ErrFenced":         {vip.ErrFenced, 409, "fenced"},
		"vip.ErrNotFound":       {vip.ErrNotFound, 404, "not-found"},
		"vip.ErrTaken":          {vip.ErrTaken, 409, "taken"},
		"vip.ErrQuota":          {vip.ErrQuota, 429, "quota"},
		"vip.ErrInvalid":        {vip.ErrInvalid, 400, "invalid"},
		"vip.ErrUncertain":      {vip.ErrUncertain, 503, "uncertain"},
		"vip.ErrContended":      {vip.ErrContended, 503, "contended"},
		"vip.ErrQuarantineFull": {vip.ErrQuarantineFull, 409, "quarantine-full"},
		"vip.ErrTooLarge":       {vip.ErrTooLarge, 413, "too-large"},
		"vip.ErrCompacted":      {vip.ErrCompacted, 410, "compacted"},
		// a Store's, which the Allocator deals with
		"vip.ErrRevision": {vip.ErrRevision, 500, "internal"},

		"promote.ErrInvalid":  {promote.ErrInvalid, 400, "invalid"},
		"promote.ErrUnbound":  {promote.ErrUnbound, 404, "not-found"},
		"promote.ErrRebound":  {promote.ErrRebound, 409, "conflict"},
		"promote.ErrConflict": {promote.ErrConflict, 409, "conflict"},
		"promote.ErrFenced":   {promote.ErrFenced, 409, "fenced"},
		"promote.ErrNotFound": {promote.ErrNotFound, 404, "not-found"},
		"promote.ErrClosed":   {promote.ErrClosed, 503, "unavailable"},
		"promote.ErrClock":    {promote.ErrClock, 503, "unavailable"},
		// of a journal that an operator has to look after
		"promote.ErrDamaged":  {promote.ErrDamaged, 503, "read-only"},
		"promote.ErrNewer":    {promote.ErrNewer, 503, "read-only"},
		"promote.ErrSetBack":  {promote.ErrSetBack, 503, "read-only"},
		"promote.ErrTooLarge": {promote.ErrTooLarge, 413, "too-large"},
		// of changes, where a DeployError wraps them
		"promote.ErrAborted":     {promote.ErrAborted, 500, "internal"},
		"promote.ErrDeadline":    {promote.ErrDeadline, 500, "internal"},
		"promote.ErrUnavailable": {promote.ErrUnavailable, 500, "internal"},

		"builder.ErrNotFound":    {builder.ErrNotFound, 404, "not-found"},
		"builder.ErrInvalid":     {builder.ErrInvalid, 400, "invalid"},
		"builder.ErrUnsupported": {builder.ErrUnsupported, 400, "invalid"},
		"builder.ErrTagExists":   {builder.ErrTagExists, 409, "conflict"},

		"untar.ErrInvalid":  {untar.ErrInvalid, 400, "invalid"},
		"untar.ErrFormat":   {untar.ErrFormat, 415, "unsupported-format"},
		"untar.ErrTooLarge": {untar.ErrTooLarge, 413, "too-large"},

		"platform.ErrNotFound":   {platform.ErrNotFound, 404, "not-found"},
		"platform.ErrInvalid":    {platform.ErrInvalid, 400, "invalid"},
		"platform.ErrConflict":   {platform.ErrConflict, 409, "conflict"},
		"platform.ErrUnverified": {platform.ErrUnverified, 504, "timeout"},
		"platform.ErrClosed":     {platform.ErrClosed, 503, "unavailable"},
		"instance.ErrNotFound":   {instance.ErrNotFound, 404, "not-found"},
		"instance.ErrStart":      {instance.ErrStart, 422, "deploy-failed"},
		// of a Config, at the start
		"instance.ErrInvalid": {instance.ErrInvalid, 500, "internal"},
	}
	var found []string
	for name, dir := range map[string]string{
		"vip": "../../../vip", "promote": "../../../promote", "builder": "../../../builder",
		"platform": "../platform", "instance": "../instance", "untar": "../untar",
	} {
		for _, sentinel := range sentinels(t, dir) {
			found = append(found, name+"."+sentinel)
		}
	}
	var want []string
	for name, row := range rows {
		want = append(want, name)
		p := problemOf(fmt.Errorf("task x: %w", row.err))
		require.Equal(t, row.status, p.Status, name)
		require.Equal(t, row.code, string(p.Code), name)
		require.NotEqual(t, http.StatusPreconditionFailed, p.Status, "%s: 412 is for If-Match",
			name)
	}
	require.ElementsMatch(t, found, want)
}

// sentinels lists the variables of the package in dir whose names begin with Err.
func sentinels(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		for _, decl := range tree.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	require.NotEmpty(t, names, dir)
	return names
}

func TestProblemsHideTheServersPaths(t *testing.T) {
	t.Parallel()
	file := &fs.PathError{Op: "write", Path: "/srv/data/sources/.upload-1/app",
		Err: syscall.ENOSPC}
	link := &os.LinkError{Op: "rename", Old: "/srv/data/a", New: "/srv/data/sub/b",
		Err: syscall.EDQUOT}
	for _, err := range []error{file, link, fmt.Errorf("source web: %w", file),
		errors.Join(fmt.Errorf("one: %w", link), fmt.Errorf("two: %w", errors.Join(file)))} {
		p := problemOf(err)
		require.Equal(t, 507, p.Status)
		require.NotContains(t, p.Detail, "/srv")
	}
	require.Equal(t, "source web: write app: no space left on device",
		problemOf(fmt.Errorf("source web: %w", file)).Detail)
}

func TestProblemOfErrorsWithData(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"a gate refuses": {&promote.RefusedError{}, 422, "refused"},
		"the service does not come": {&promote.DeployError{Err: errors.New("it does not listen")},
			422, "deploy-failed"},
		"the deployer misses something": {
			&promote.DeployError{Err: fmt.Errorf("image: %w", instance.ErrNotFound)}, 422,
			"deploy-failed",
		},
		"Nginx does not take the routes": {
			&promote.DeployError{Err: fmt.Errorf("routes: %w", platform.ErrUnverified)}, 504,
			"timeout",
		},
		"another server has taken over": {&promote.DeployError{Err: promote.ErrFenced}, 409,
			"fenced"},
		"the owner has another lease": {&vip.ConflictError{}, 409, "conflict"},
		"the pool is full": {&vip.ExhaustedError{Pools: []string{"trial"}}, 503,
			"exhausted"},
		"the wait took too long": {errors.Join(context.DeadlineExceeded, vip.ErrExhausted),
			503, "exhausted"},
		"the deadline has passed": {fmt.Errorf("routes: %w", context.DeadlineExceeded), 504,
			"timeout"},
		"the upload is too long": {fmt.Errorf("source: %w: %w",
			&http.MaxBytesError{Limit: 1}, untar.ErrInvalid), 413, "too-large"},
		"the disk is full": {fmt.Errorf("source: %w", syscall.ENOSPC), 507,
			"storage-full"},
		"the quota is used up": {fmt.Errorf("source: %w", syscall.EDQUOT), 507,
			"storage-full"},
		"a fault of the server": {errors.New("disk"), 500, "internal"},
	} {
		p := problemOf(fmt.Errorf("task x: %w", tc.err))
		require.Equal(t, tc.status, p.Status, name)
		require.Equal(t, tc.code, string(p.Code), name)
		require.Contains(t, p.Detail, "task x: ", name)
	}
}
