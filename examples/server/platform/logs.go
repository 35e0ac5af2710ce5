package platform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// maxLog is how long the log of an instance or of Nginx may become; as much again is kept beside
// it, as NAME.1.
const maxLog = 16 << 20

// keepLogsShort looks at the logs again and again until ctx is done.
func (p *Platform) keepLogsShort(ctx context.Context) error {
	for tick := time.NewTicker(10 * time.Second); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return context.Cause(ctx)
		case <-tick.C:
			if err := p.rotateLogs(maxLog); err != nil {
				p.config.Logger.Warn("logs", "err", err)
			}
		}
	}
}

func (p *Platform) rotateLogs(limit int64) error {
	logs, err := filepath.Glob(filepath.Join(p.Edge.Dir(), "logs", "*.log"))
	if err != nil {
		return err
	}
	for _, i := range p.instances.List() {
		logs = append(logs, p.instances.Log(i.ID))
	}
	var errs []error
	for _, log := range logs {
		errs = append(errs, rotate(log, limit))
	}
	return errors.Join(errs...)
}

// rotate copies a log that is longer than limit to path.1 and empties it. Its writers append and go
// on with the same file; a line that they write between the two is lost. One that is not there is
// none.
func rotate(path string, limit int64) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.Mode().IsRegular() ||
		info.Size() <= limit) {
		return nil
	}
	if err != nil {
		return err
	}
	log, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	staged := path + ".1.new"
	earlier, err := os.OpenFile(staged, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(earlier, log)
	if err = errors.Join(err, earlier.Close()); err == nil {
		err = errors.Join(os.Rename(staged, path+".1"), log.Truncate(0))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rotate %s: %w", path, err), os.RemoveAll(staged))
	}
	return nil
}
