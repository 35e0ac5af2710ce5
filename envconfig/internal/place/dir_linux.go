package place

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// Dir is an open directory of a [Tree]. It opens files by their name alone and without following a
// link, so that they need neither the walk nor the poller of package os: those are most of the
// system calls for a small file. For all that is rare it opens an [os.Root] of the directory.
type Dir struct {
	tree *Tree
	name string
	fd   descriptor // none where the directory may be searched but not read
	slow *os.Root   // nil until it is needed
}

// none is no descriptor.
const none descriptor = -1

// atCWD stands for the working directory, AT_FDCWD of <fcntl.h>.
const atCWD descriptor = -100

// openDir opens a directory of the tree from the one above it. A link on the way, and any error but
// that there is no such directory, is left to os.Root, which knows where a link may lead.
func (t *Tree) openDir(name string) (*Dir, error) {
	d := &Dir{tree: t, name: name, fd: none}
	if name == "." {
		d.slow = t.root
		if d.fd = openSame(t.root); d.fd != none {
			return d, nil
		}
		return d, d.openSlow()
	}
	dir, base := path.Split(name)
	parent, err := t.Dir(path.Clean(dir))
	if err == nil && parent.fd != none {
		d.fd, err = openAt(parent.fd, base, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err == nil {
			return d, nil
		}
		d.fd = none
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if d.slow, err = t.root.OpenRoot(DirName(name)); err != nil {
		return nil, err
	}
	return d, d.openSlow()
}

// openSame opens the directory of a root by its name, unless that leads elsewhere by now. Package
// os would register it with its poller, which a start needs for nothing else.
func openSame(root *os.Root) descriptor {
	fd, err := openAt(atCWD, root.Name(), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return none
	}
	var here syscall.Stat_t
	info, err := root.Stat(".")
	if err == nil {
		err = syscall.Fstat(int(fd), &here)
	}
	if err == nil {
		there, ok := info.Sys().(*syscall.Stat_t)
		if ok && there.Dev == here.Dev && there.Ino == here.Ino {
			return fd
		}
	}
	fd.Close()
	return none
}

// openSlow gives d the descriptor of its os.Root, if the directory may be read.
func (d *Dir) openSlow() error {
	f, err := d.slow.Open(".")
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	d.fd, err = openAt(descriptor(f.Fd()), ".", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	return err
}

// root returns the os.Root of the directory.
func (d *Dir) root() (*os.Root, error) {
	if d.slow == nil {
		root, err := d.tree.root.OpenRoot(DirName(d.name))
		if err != nil {
			return nil, err
		}
		d.slow = root
	}
	return d.slow, nil
}

func (d *Dir) close() {
	if d.fd != none {
		d.fd.Close()
	}
	if d.slow != nil && d.slow != d.tree.root {
		d.slow.Close()
	}
}

// descriptor is a regular file, or a directory to be locked.
type descriptor int

// openAt opens an entry of the directory in. The last element of name is not followed where it is a
// link.
func openAt(in descriptor, name string, flags int, mode uint32) (descriptor, error) {
	for {
		flags |= syscall.O_NOFOLLOW | syscall.O_CLOEXEC
		fd, err := syscall.Openat(int(in), name, flags, mode)
		if err == nil {
			return descriptor(fd), nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return none, &fs.PathError{Op: "openat", Path: name, Err: err}
		}
	}
}

func (d *Dir) openFile(name string, flags int, mode uint32) (descriptor, error) {
	return openAt(d.fd, name, flags, mode)
}

// Look returns the mode and the size of the entry with the name; a link is not followed. It is
// os.Root.Lstat without its allocations.
func (d *Dir) Look(name string) (fs.FileMode, int64, error) {
	if number := fstatat(); d.fd != none && number != 0 {
		path, err := syscall.BytePtrFromString(name)
		if err != nil {
			return 0, 0, &fs.PathError{Op: "fstatat", Path: name, Err: err}
		}
		const noFollow = 0x100 // AT_SYMLINK_NOFOLLOW
		var st syscall.Stat_t
		_, _, errno := syscall.Syscall6(number, d.fd.Fd(),
			uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&st)), noFollow, 0, 0)
		switch {
		case errno == 0 && st.Mode&^uint32(fs.ModePerm) == syscall.S_IFREG:
			return fs.FileMode(st.Mode).Perm(), st.Size, nil
		case errno == syscall.ENOENT:
			return 0, 0, &fs.PathError{Op: "fstatat", Path: name, Err: errno}
		}
	}
	info, err := d.Lstat(name)
	if err != nil {
		return 0, 0, err
	}
	return info.Mode(), info.Size(), nil
}

// openRead opens a file that is not a link.
func (d *Dir) openRead(name string) (io.ReadCloser, error) {
	if d.fd == none {
		return d.slow.Open(name)
	}
	const noWait = syscall.O_NONBLOCK // for the writer of a pipe
	return d.openFile(name, syscall.O_RDONLY|noWait, 0)
}

// openNew makes a file that must not exist.
func (d *Dir) openNew(name string) (newFile, error) {
	if d.fd == none {
		return d.slow.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return d.openFile(name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o600)
}

// again opens the directory once more, for a lock that is kept when the Tree closes the directory.
func (d *Dir) again() (handle, error) {
	if d.fd == none {
		return nil, fs.ErrPermission
	}
	return d.openFile(".", syscall.O_RDONLY, 0)
}

// Fd is the number of the descriptor.
func (f descriptor) Fd() uintptr { return uintptr(f) }

// rename gives a file of the directory another name. Unlike os.Root.Rename it does not look first
// whether a directory has that name; the kernel refuses that in any case.
func (d *Dir) rename(from, to string) error {
	if d.fd == none {
		return d.slow.Rename(from, to)
	}
	fd := int(d.fd)
	if err := syscall.Renameat(fd, from, fd, to); err != nil {
		return &os.LinkError{Op: "renameat", Old: from, New: to, Err: err}
	}
	return nil
}

// Read reads as [io.Reader] says.
func (f descriptor) Read(p []byte) (int, error) {
	for {
		switch n, err := syscall.Read(int(f), p); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes as [io.Writer] says.
func (f descriptor) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := syscall.Write(int(f), p[written:])
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return written, os.NewSyscallError("write", err)
		}
		written += max(n, 0)
	}
	return written, nil
}

// Chmod sets the permission bits exactly.
func (f descriptor) Chmod(mode fs.FileMode) error {
	return os.NewSyscallError("fchmod", syscall.Fchmod(int(f), uint32(mode.Perm())))
}

// Close closes the file.
func (f descriptor) Close() error { return os.NewSyscallError("close", syscall.Close(int(f))) }

// Truncate cuts the file, or fills it up, to that many bytes.
func (f descriptor) Truncate(size int64) error {
	return os.NewSyscallError("ftruncate", syscall.Ftruncate(int(f), size))
}

// openWrite opens a file, which is not a link, to write from its beginning.
func (d *Dir) openWrite(name string) (oldFile, error) {
	if d.fd == none {
		return d.slow.OpenFile(name, os.O_WRONLY, 0)
	}
	const noWait = syscall.O_NONBLOCK // for the reader of a pipe
	return d.openFile(name, syscall.O_WRONLY|noWait, 0)
}

// mounted reports whether a file is a mount of its own, by proc_pid_fdinfo(5).
func (d *Dir) mounted(name string) bool {
	if d.fd == none {
		return false
	}
	const path = 0x200000 // O_PATH
	f, err := d.openFile(name, path, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	of, dir := mount(f), mount(d.fd)
	return of != "" && dir != "" && of != dir
}

// mount returns the id of the mount that an open file is on, or "".
func mount(f handle) string {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strings.TrimSpace(id)
		}
	}
	return ""
}

// access returns why files cannot be made in the directory, or why the file cannot be written, or
// nil; "." is the directory itself.
func (d *Dir) access(name string) error {
	if d.fd == none {
		return nil // cannot be asked without a descriptor: the first file shows it
	}
	const write, search = 2, 1
	mode := uint32(write)
	if name == "." {
		mode |= search
	}
	return syscall.Faccessat(int(d.fd), name, mode, 0)
}

// fstatat is the number of fstatat(2), or 0.
func fstatat() uintptr {
	switch runtime.GOARCH {
	case "amd64":
		return 262
	case "arm64", "riscv64":
		return 79
	}
	return 0
}

// syncfs is the number of syncfs(2), which package syscall does not have for all machines, or 0
// where sync(2) is used instead.
func syncfs() uintptr {
	switch runtime.GOARCH {
	case "amd64":
		return 306
	case "arm64", "riscv64", "loong64":
		return 267
	}
	return 0
}

// sync waits until the file system of the directory, ".", or of a file in it has written its
// buffers to the disk. A file system in synced is passed over, and is in synced afterwards.
func (d *Dir) sync(name string, synced map[uint64]bool) error {
	if d.fd == none || syncfs() == 0 {
		syscall.Sync()
		return nil
	}
	f, err := d.openFile(name, syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f), &st); err != nil || synced[uint64(st.Dev)] {
		return os.NewSyscallError("fstat", err)
	}
	synced[uint64(st.Dev)] = true
	if _, _, errno := syscall.Syscall(syncfs(), f.Fd(), 0, 0); errno != 0 {
		return os.NewSyscallError("syncfs", errno)
	}
	return nil
}
