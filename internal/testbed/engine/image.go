//go:build linux

package engine

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// RunImage pulls an image, given with its digest, from a registry that speaks plain HTTP, and
// starts it under runc as its configuration says: user, environment, working directory, entrypoint,
// command and stop signal. The network is this machine's. env is added to
// the environment, each NAME=VALUE.
func RunImage(t testing.TB, reference string, env ...string) *Container {
	t.Helper()
	ref, err := name.NewDigest(reference, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	bundle := testbed.Own(t).TestDir(t, "bundle")
	if err := extract(img, filepath.Join(bundle, "rootfs")); err != nil {
		t.Fatal(err)
	}
	user, err := imageUser(file.Config.User, filepath.Join(bundle, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	r := Runc(t).(*runtime)
	id := newID()
	config := r.config(id, Spec{})
	mounts := config["mounts"].([]object)[:4] // without /run and the directories of this machine
	process := config["process"].(object)
	process["user"], process["cwd"] = user, cwd(file.Config.WorkingDir)
	process["args"] = append(append([]string{}, file.Config.Entrypoint...), file.Config.Cmd...)
	process["env"] = append(append([]string{searchPath}, file.Config.Env...), env...)
	config["mounts"] = mounts
	return r.start(t, id, bundle, config, file.Config.StopSignal)
}

func cwd(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}

// imageUser reads the USER of an image whose files are below root: a user, then a group behind
// ":". Each is a number or a name in /etc/passwd or /etc/group. Without a group it is that of the
// user in /etc/passwd, and 0 for an unknown user.
func imageUser(user, root string) (object, error) {
	u, g, _ := strings.Cut(user, ":")
	owner, err := lookUp(filepath.Join(root, "etc/passwd"), u)
	if err != nil {
		return nil, fmt.Errorf("user %q of the image: %w", user, err)
	}
	group := []string{"", "", "0"}
	switch {
	case g != "":
		group, err = lookUp(filepath.Join(root, "etc/group"), g)
	case len(owner) > 3:
		group[2] = owner[3]
	}
	uid, err1 := strconv.Atoi(owner[2])
	gid, err2 := strconv.Atoi(group[2])
	if err := errors.Join(err, err1, err2); err != nil {
		return nil, fmt.Errorf("user %q of the image: %w", user, err)
	}
	return object{"uid": uid, "gid": gid}, nil
}

// lookUp returns the fields of a name or number in a file such as /etc/passwd: passwd(5), group(5).
// A number that is not there has three fields.
func lookUp(file, name string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) > 2 && (f[0] == name || f[2] == name) {
			return f, nil
		}
	}
	if _, err := strconv.Atoi(name); err != nil {
		return nil, fmt.Errorf("%q is no number and not in %s", name, file)
	}
	return []string{"", "", name}, nil
}

// extract writes the files of an image into a directory, with modes and owners.
func extract(img v1.Image, root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	files := mutate.Extract(img)
	defer files.Close()
	for tr := tar.NewReader(files); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = place(tr, h, root)
		}
		if err != nil {
			return fmt.Errorf("extract the image: %w", err)
		}
	}
}

// place writes one entry. Directories above it may come later in the archive.
func place(r io.Reader, h *tar.Header, root string) error {
	at, err := within(root, h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeSymlink:
		if err := os.Symlink(h.Linkname, at); err != nil {
			return err
		}
		return os.Lchown(at, h.Uid, h.Gid)
	case tar.TypeLink:
		target, err := within(root, h.Linkname)
		if err != nil {
			return err
		}
		return os.Link(target, at)
	case tar.TypeReg:
		f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	default:
		return nil
	}
	return errors.Join(os.Lchown(at, h.Uid, h.Gid), os.Chmod(at, h.FileInfo().Mode()))
}

// within is the path of a name of the image below root, whose parent exists then. The tests' own
// images have no link among the parents that leads out.
func within(root, name string) (string, error) {
	at := filepath.Join(root, path.Clean("/"+name))
	return at, os.MkdirAll(filepath.Dir(at), 0o755)
}
