package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/sluice-deploy/sluice/nginxsync/supervisor"
)

// Start starts Nginx, or has the one that runs here already take the new configuration, and returns
// when it serves with it. A configuration that Nginx refuses then (nginx -t cannot find every
// fault: a port may be taken) is an error with Nginx's message, and the old one goes on.
func (e *Edge) Start(ctx context.Context) error { return wrap(e.nginx.Reload(ctx)) }

// Ensure starts Nginx if it does not run, and returns when it accepts requests. Workers whose
// master has been killed, which would keep the ports, end before.
func (e *Edge) Ensure(ctx context.Context) error { return wrap(e.nginx.Ensure(ctx)) }

// Stop ends the Nginx of the directory dir after the requests in progress, or at once when ctx is
// done. When it returns without an error no process of it is left.
func Stop(ctx context.Context, dir string) error {
	dir, err := realPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("edge: stop nginx: %w", err)
	}
	nginx, err := supervisor.New(supervisor.Config{Prefix: dir})
	if err != nil {
		return wrap(err)
	}
	return wrap(nginx.Stop(ctx))
}

func wrap(err error) error {
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}
	return nil
}

// realPath is dir as the kernel names it.
func realPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}
