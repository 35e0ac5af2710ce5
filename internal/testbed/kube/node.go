//go:build linux

package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
	"golang.org/x/sys/unix"
)

// The kubelet takes these settings over without asking; they are put back at the end.
var kubeletSysctls = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
	"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

// remember records the changes that containerd and the kubelet of a cluster's first node make
// outside of the owner's directory.
func (n *node) remember() error {
	if err := freeOfKubelets(testbed.KubeletDir); err != nil {
		return err
	}
	for _, name := range kubeletSysctls {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			continue // this kernel has none
		}
		if err := n.owner.Record("sysctl", name+"="+strings.TrimSpace(string(value))); err != nil {
			return err
		}
	}
	for _, dir := range []string{testbed.KubeletDir, testbed.ContainerLogs, testbed.ContainerdRun,
		testbed.CNIDir} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			if err := n.owner.Record("directory", dir); err != nil {
				return err
			}
		}
	}
	return n.grouped()
}

// freeOfKubelets returns an error if a kubelet keeps its socket in dir, which all kubelets of a
// machine share, or has left it there.
func freeOfKubelets(dir string) error {
	socket := filepath.Join(dir, "device-plugins/kubelet.sock")
	conn, err := net.Dial("unix", socket)
	switch {
	case err == nil:
		return errors.Join(errors.New("a kubelet runs on this machine, that of a cluster or of "+
			"tests with another TMPDIR: wait for the end of these tests, or set KUBECONFIG to "+
			"use the cluster"), conn.Close())
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return fmt.Errorf("a kubelet ran on this machine: delete %s, which it has left: %w", dir, err)
}

// shortEnough returns an error if the names of the sockets that a kubelet makes below root, its
// root directory, are too long for the kernel (unix(7): 107 bytes).
func shortEnough(root string) error {
	const longest = "pod-resources/1234567890" // a temporary name, renamed to kubelet.sock
	if over := len(filepath.Join(root, longest)) - 107; over > 0 {
		return fmt.Errorf("TMPDIR=%s is %d bytes too long for the kubelet's sockets: set a "+
			"shorter one, such as /tmp", os.TempDir(), over)
	}
	return nil
}

// grouped makes the cgroup of the node's pods.
func (n *node) grouped() error {
	n.cgroup = fmt.Sprintf("/sluice-testbed-kube-%d-%s", os.Getpid(), n.name)
	return errors.Join(n.owner.Record("logs", n.owner.Dir), n.owner.Record("cgroup", n.cgroup),
		testbed.MakeCgroup(n.cgroup))
}

// snapshotter is overlayfs, where the directory's file system carries it.
func (n *node) snapshotter() (string, error) {
	dir, err := n.owner.MakeDir("overlay")
	if err != nil {
		return "", err
	}
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return "", err
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	if unix.Mount("overlay", dir+"/merged", "overlay", 0, options) != nil {
		return "native", nil
	}
	return "overlayfs", unix.Unmount(dir+"/merged", 0)
}

func (n *node) containerd() error {
	snapshotter, err := n.snapshotter()
	if err != nil {
		return err
	}
	dir, err := n.owner.MakeDir("containerd")
	if err != nil {
		return err
	}
	n.socket = filepath.Join(dir, "sock")
	config := fmt.Sprintf(`version = 3
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "%[2]s"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "%[4]s"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "%[3]s"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "%[6]s"
[plugins."io.containerd.cri.v1.runtime"]
  # without it runc cannot start a pod where the parent may not lower its own value
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = "%[7]s"
    options = {Root = "%[1]s/runc", BinaryName = "%[8]s"}
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["%[5]s"]
    conf_dir = "%[1]s/cni"
`, dir, n.socket, image.Pause, snapshotter, n.cni, n.shared(hostsDir),
		n.program["containerd-shim-runc-v2"], n.program["runc"])
	network := fmt.Sprintf(`{"cniVersion": "0.4.0", "name": "%[1]s", "plugins": [
  {"type": "bridge", "bridge": "%[1]s", "ipam": {"type": "host-local", "dataDir": "%[2]s/addresses",
    "ranges": [[{"subnet": "%[3]s", "gateway": "%[4]s"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
`, n.Bridge, dir, n.Prefix, n.IP)
	err = errors.Join(
		os.MkdirAll(n.shared(hostsDir), 0o755),
		os.Mkdir(filepath.Join(dir, "cni"), 0o755),
		os.WriteFile(filepath.Join(dir, "cni", "pods.conflist"), []byte(network), 0o644),
		os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o644),
		n.owner.Record("cni", n.Bridge),
		n.owner.Record("shims", filepath.Join(dir, "state")),
	)
	if err != nil {
		return err
	}
	ctr := func(args ...string) error {
		return n.owner.Run(n.program["ctr"], append([]string{"-a", n.socket}, args...)...)
	}
	_, err = testbed.StartShared(dir, testbed.Command{
		Name: "containerd", Path: n.program["containerd"],
		Args:  []string{"-c", filepath.Join(dir, "config.toml")},
		Ready: func(context.Context) error { return ctr("version") },
	})
	if err != nil {
		return err
	}
	archive := filepath.Join(dir, "pause.tar")
	if err := image.WritePause(archive, n.program["busybox"]); err != nil {
		return err
	}
	return ctr("-n", "k8s.io", "images", "import", "--snapshotter", snapshotter, archive)
}

func (n *node) kubelet() error {
	port, err := testbed.FreePorts(1)
	if err != nil {
		return err
	}
	dir, err := n.owner.MakeDir("kubelet-data")
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "root")
	if err := shortEnough(root); err != nil {
		return err
	}
	config := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: %[6]s}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix://%[1]s
address: %[2]s
port: %[3]s
healthzPort: 0
cgroupDriver: cgroupfs
cgroupRoot: %[4]s
failSwapOn: false
failCgroupV1: false
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: "1%%", imagefs.available: "1%%"}
containerLogMaxSize: 1Mi
containerLogMaxFiles: 3
makeIPTablesUtilChains: false
podLogsDir: %[5]s/logs
volumePluginDir: %[5]s/volume-plugins
`, n.socket, n.IP, port[0], n.cgroup, dir, n.shared(kubeletClientCert))
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(config), 0o644); err != nil {
		return err
	}
	n.agent, err = n.service("kubelet", testbed.Listens(n.IP+":"+port[0]), "--config",
		filepath.Join(dir, "config.yaml"),
		"--kubeconfig", n.shared(kubeconfigFile), "--root-dir", root,
		"--cert-dir", filepath.Join(dir, "pki"), "--register-with-taints", n.taint,
		"--hostname-override", n.name, "--node-ip", n.IP)
	return err
}
