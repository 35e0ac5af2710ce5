package story

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// Compile builds the sample service as a static binary that answers with this version.
func Compile(ctx context.Context, examples, version, into string) (string, error) {
	binary := filepath.Join(into, "hello-"+version)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags",
		"-s -w -X main.version="+version, "-o", binary, "./hello")
	cmd.Dir = examples
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./hello: %w: %s", err, out)
	}
	return binary, nil
}

// Pack is the upload for one build: the binary as "app" and the envs directory, without the
// environments left out.
func Pack(binary, envs string, without ...string) (*bytes.Buffer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	add := func(name string, mode fs.FileMode, data []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: int64(mode.Perm()),
			Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	if err := add("app", 0o755, data); err != nil {
		return nil, err
	}
	skip := map[string]bool{}
	for _, environment := range without {
		skip[environment] = true
	}
	err = fs.WalkDir(os.DirFS(envs), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			if skip[name] {
				return fs.SkipDir
			}
			return err
		}
		data, err := os.ReadFile(filepath.Join(envs, name))
		if err != nil {
			return err
		}
		return add("envs/"+name, 0o644, data)
	})
	if err != nil {
		return nil, err
	}
	return &archive, w.Close()
}
