package envconfig

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// folder is an open folder of a tree. Files in it are opened by their name alone and without following a link, so that
// they need neither the walk nor the poller of package os: of the system calls of a small file those are the most.
type folder struct {
	*os.Root
	handle *os.File
}

func newFolder(root *os.Root) (*folder, error) {
	handle, err := root.Open(".")
	if errors.Is(err, fs.ErrPermission) {
		return &folder{Root: root}, nil // it may be searched but not read
	}
	if err != nil {
		return nil, err
	}
	return &folder{root, handle}, nil
}

func (d *folder) close() {
	if d.handle != nil {
		d.handle.Close()
	}
}

// descriptor is a regular file.
type descriptor int

func (d *folder) openFile(name string, flags int, mode uint32) (descriptor, error) {
	for {
		fd, err := syscall.Openat(int(d.handle.Fd()), name, flags|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, mode)
		if err == nil {
			return descriptor(fd), nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return 0, &fs.PathError{Op: "openat", Path: name, Err: err}
		}
	}
}

// openRead opens a file that is no link.
func (d *folder) openRead(name string) (io.ReadCloser, error) {
	if d.handle == nil {
		return d.Open(name)
	}
	return d.openFile(name, syscall.O_RDONLY, 0)
}

// openNew makes a file that must not exist.
func (d *folder) openNew(name string) (newFile, error) {
	if d.handle == nil {
		return d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	return d.openFile(name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o600)
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

// access says why files cannot be made in the folder.
func (d *folder) access() error {
	if d.handle == nil {
		return nil // not to be told without a descriptor: the first file tells
	}
	const writeSearch = 2 | 1
	return syscall.Faccessat(int(d.handle.Fd()), ".", writeSearch, 0)
}

// syncfs is the number of syncfs(2), which package syscall does not have for all machines; where it is not known here,
// sync(2) has to do.
func syncfs() uintptr {
	switch runtime.GOARCH {
	case "amd64":
		return 306
	case "arm64", "riscv64", "loong64":
		return 267
	}
	return 0
}

// sync waits until the folder's file system has written down what it holds in memory, each file system once.
func (d *folder) sync(synced map[uint64]bool) error {
	if d.handle == nil || syncfs() == 0 {
		syscall.Sync()
		return nil
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(d.handle.Fd()), &st); err != nil || synced[uint64(st.Dev)] {
		return os.NewSyscallError("fstat", err)
	}
	synced[uint64(st.Dev)] = true
	if _, _, errno := syscall.Syscall(syncfs(), d.handle.Fd(), 0, 0); errno != 0 {
		return os.NewSyscallError("syncfs", errno)
	}
	return nil
}
