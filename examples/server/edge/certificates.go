package edge

import (
	"context"
	"path/filepath"

	"github.com/sluice-deploy/sluice/nginxsync/testca"
)

// openCA opens the authority of the test environment, and issues the certificates that the
// transformed tree reads. A tree without TLS has none.
func (e *Edge) openCA() error {
	if len(e.Result.Certificates) == 0 {
		return nil
	}
	var names []string
	for _, c := range e.Result.Certificates {
		names = append(names, c.Names...)
	}
	var err error
	e.CA, err = testca.Open(testca.Config{File: filepath.Join(e.config.Dir, "ca.pem"),
		Names: names, Logger: e.config.Logger})
	if err != nil {
		return wrap(err)
	}
	_, err = e.issue()
	return err
}

// issue writes the certificates that are missing, or near their end. It reports whether it wrote
// one.
func (e *Edge) issue() (written bool, err error) {
	for _, c := range e.Result.Certificates {
		wrote, err := e.CA.Ensure(c.File, c.Names)
		if err != nil {
			return false, wrap(err)
		}
		written = written || wrote
	}
	return written, nil
}

// Renew issues the certificates that are near their end, and has Nginx read them when there are
// any.
func (e *Edge) Renew(ctx context.Context) error {
	if written, err := e.issue(); err != nil || !written {
		return err
	}
	return e.Start(ctx)
}
