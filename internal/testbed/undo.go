//go:build linux

package testbed

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The kubelet, containerd and the network plugins use these directories with any settings.
const (
	KubeletDir    = "/var/lib/kubelet"
	ContainerLogs = "/var/log/containers"
	ContainerdRun = "/run/containerd"
	CNIDir        = "/var/lib/cni"
)

// undoDirectory removes a directory that was not there before. Its content stays when another
// containerd or kubelet has begun to use it meanwhile.
func undoDirectory(dir string) error {
	for _, theirs := range []string{ContainerdRun + "/containerd.sock", KubeletDir + "/config.yaml",
		KubeletDir + "/pods"} {
		if _, err := os.Lstat(theirs); err == nil {
			return removeEmpty(dir)
		}
	}
	switch dir {
	case ContainerdRun, KubeletDir:
		return unmountAndRemove(dir)
	case CNIDir: // other engines use it, too
		return errors.Join(undoCNI("cni-loopback"), removeEmpty(dir))
	}
	return removeEmpty(dir)
}

// removeEmpty removes a directory as far as there are no files in it.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeEmpty(filepath.Join(dir, e.Name())))
		}
	}
	if err := os.Remove(dir); !errors.Is(err, syscall.ENOTEMPTY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// undoSysctl puts a kernel setting, given as name=value, back.
func undoSysctl(setting string) error {
	name, value, _ := strings.Cut(setting, "=")
	return os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
}

// undoLogs removes the links that the kubelet makes to the logs of containers.
func undoLogs(dir string) error {
	links, err := filepath.Glob(ContainerLogs + "/*")
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && within(target, dir) {
			errs = append(errs, os.Remove(link))
		}
	}
	return errors.Join(errs...)
}

// undoCNI removes the records that the library of the network plugins keeps of a network.
func undoCNI(network string) error {
	results, err := filepath.Glob(CNIDir + "/results/" + network + "-*")
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range results {
		errs = append(errs, os.Remove(name))
	}
	return errors.Join(errs...)
}

// undoShims removes the sockets of the processes that held containers, which are named in
// containerd's directory of state: as text in address by containerd 1, as JSON in bootstrap.json by
// containerd 2.
func undoShims(state string) error {
	var errs []error
	for _, record := range []string{"address", "bootstrap.json"} {
		names, err := filepath.Glob(state + "/*/*/*/" + record)
		errs = append(errs, err)
		for _, name := range names {
			text, err := os.ReadFile(name)
			bootstrap := struct{ Address string }{Address: strings.TrimSpace(string(text))}
			if err == nil && filepath.Ext(name) == ".json" {
				err = json.Unmarshal(text, &bootstrap)
			}
			if socket, ok := strings.CutPrefix(bootstrap.Address, "unix://"); err == nil && ok {
				if err = os.Remove(socket); errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
