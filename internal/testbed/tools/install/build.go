//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed/tools"
)

// lock waits until no other install runs.
func lock(ctx context.Context) (unlock func(), err error) {
	cache, err := tools.Cache()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for said := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which unlocks
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if !said {
			fmt.Fprintln(os.Stderr, "make tools: waiting for another one that runs")
			said = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// whole reports whether all programs of the tool are there with the sums that were noted when they
// were built.
func whole(t tools.Tool) (bool, error) {
	dir, err := t.Dir()
	if err != nil {
		return false, err
	}
	if ok, err := asBuilt(t); ok || err != nil {
		return ok, err
	}
	if _, err := os.Stat(filepath.Join(dir, tools.Sums)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	fmt.Fprintf(os.Stderr, "make tools: %s %s is not as it was built, and is built again\n", t.Name,
		t.Version)
	return false, os.RemoveAll(dir)
}

// asBuilt reports whether a tool is there as it was built.
func asBuilt(t tools.Tool) (bool, error) {
	dir, err := t.Dir()
	if err != nil {
		return false, err
	}
	noted, err := os.ReadFile(filepath.Join(dir, tools.Sums))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now, err := sums(dir, t)
	return err == nil && bytes.Equal(noted, now), nil
}

func sums(dir string, t tools.Tool) ([]byte, error) {
	var out bytes.Buffer
	for _, name := range t.Programs() {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%x  %s\n", sum.Sum(nil), name)
	}
	return out.Bytes(), nil
}

// build makes the programs in a directory beside their place and moves it there. Sources are
// checked against go.sum by Go.
func build(ctx context.Context, t tools.Tool, p *progress) (err error) {
	dir, err := t.Dir()
	if err != nil {
		return err
	}
	staged := dir + ".new"
	if err := errors.Join(os.RemoveAll(staged), os.MkdirAll(staged, 0o755)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(staged)) }()
	p.begin(t)
	if out, err := command(ctx, t, "mod", "download").CombinedOutput(); err != nil {
		return fmt.Errorf("go mod download: %w: %s", err, tail(out))
	}
	list := append(append([]string{"list"}, t.BuildFlags()...), "-deps", "-f", "{{.Stale}}")
	stale, err := command(ctx, t, append(list, t.Packages...)...).Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	p.compile(bytes.Count(stale, []byte("true\n")), bytes.Count(stale, []byte("\n")))
	if err := compile(ctx, t, staged, p); err != nil {
		return err
	}
	for i, pkg := range t.Packages {
		made, name := filepath.Join(staged, filepath.Base(pkg)),
			filepath.Join(staged, t.Programs()[i])
		if err := os.Rename(made, name); err != nil {
			return err
		}
	}
	noted, err := sums(staged, t)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(staged, tools.Sums), noted, 0o644); err != nil {
		return err
	}
	syscall.Sync() // before the name says that it is whole
	if err := os.Rename(staged, dir); err != nil {
		return err
	}
	p.end()
	return nil
}

// compile builds the programs into dir.
func compile(ctx context.Context, t tools.Tool, dir string, p *progress) error {
	// one after the other: the linker of a large one takes two gigabytes
	for _, pkg := range t.Packages {
		cmd := command(ctx, t, append(append([]string{"build", "-v"}, t.BuildFlags()...),
			"-o", filepath.Join(dir, filepath.Base(pkg)), pkg)...)
		pipe, err := cmd.StderrPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		var said []byte
		for lines := bufio.NewScanner(pipe); lines.Scan(); p.compiled() {
			said = append(append(said, lines.Bytes()...), '\n')
		}
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("go build %s: %w: %s", pkg, err, tail(said))
		}
	}
	return nil
}

// command is a go command in the module of the tool that changes nothing there. It ends when ctx
// does.
func command(ctx context.Context, t tools.Tool, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, _ = t.Module() // Dir has found it before
	cgo := "0"
	if t.Cgo {
		cgo = "1"
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOWORK=off", "GOFLAGS=-mod=readonly",
		"GOTOOLCHAIN=local")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its compilers
	return cmd
}

func tail(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}
