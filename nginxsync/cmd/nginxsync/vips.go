package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/vipsource"
	"github.com/sluice-deploy/sluice/vip"
)

// source makes the source of the leases of another process.
func (v *vipEntry) source(log *slog.Logger,
	observe func(string, time.Duration, error)) (*vipsource.Remote, error) {
	cfg := vipsource.RemoteConfig{URL: v.URL, Tasks: v.Tasks, KeepBaseline: v.KeepBaseline,
		KeepEnded: v.KeepEnded, Silence: v.Silence, Logger: log, Now: now,
		Observe: observe}
	var errs []error
	client, err := v.TLS.client()
	if err != nil {
		errs = append(errs, err)
	}
	cfg.Client = client
	if v.TokenFile != "" {
		if !filepath.IsAbs(v.TokenFile) {
			errs = append(errs, fmt.Errorf("tokenFile %.128q: want an absolute path: %w",
				v.TokenFile, nginxsync.ErrInvalid))
		}
		cfg.Token = func() (string, error) { return readToken(v.TokenFile) }
	}
	if len(v.Branches) > nginxsync.MaxBranches {
		errs = append(errs, fmt.Errorf("branches: %d, want %d at most: %w", len(v.Branches),
			nginxsync.MaxBranches, nginxsync.ErrInvalid))
	}
	for _, name := range v.Branches {
		if err := names.Task(name); err != nil {
			errs = append(errs, fmt.Errorf("branches: %w: %w", err, nginxsync.ErrInvalid))
		}
	}
	if len(v.Branches) > 0 {
		cfg.Branches = func(vip.Lease) []string { return v.Branches }
	}
	source, err := vipsource.NewRemote(cfg)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return source, nil
}

// readToken reads the file with each request, so that another token needs no restart.
func readToken(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return "", fmt.Errorf("%s: want one line of printable ASCII", path)
		}
	}
	if token == "" {
		return "", fmt.Errorf("%s: is empty: want a token", path)
	}
	return token, nil
}
