//go:build linux

package kube

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-deploy/sluice/internal/testbed"
)

// taintKey is the key of the taint that keeps pods of other tests off the node of a test.
const taintKey = "sluice.example/test"

// Node is a node that one test has added.
type Node struct {
	Name  string
	agent *testbed.Process
}

// Toleration lets a pod onto the nodes that tests have added; without the node's name in the
// selector kubernetes.io/hostname it may run on another one.
func (n *Node) Toleration() corev1.Toleration {
	return corev1.Toleration{Key: taintKey, Operator: corev1.TolerationOpEqual, Value: n.Name}
}

// Pause stops the node's kubelet in its tracks: its pods go on, and the API server hears nothing
// of them, as from a machine behind a broken network.
func (n *Node) Pause() error { return syscall.Kill(n.agent.Pid(), syscall.SIGSTOP) }

// Resume lets the kubelet go on after Pause.
func (n *Node) Resume() error { return syscall.Kill(n.agent.Pid(), syscall.SIGCONT) }

var added atomic.Int64

// AddNode starts one more node, with a kubelet, a containerd and a network of its own, on which
// only pods with its toleration run. It is removed when the test has ended. The test is skipped
// with a cluster that it did not make.
func (k *Cluster) AddNode(t testing.TB) *Node {
	t.Helper()
	if k.dir == "" {
		t.Skip("no node can be added to the cluster that KUBECONFIG names")
	}
	name := fmt.Sprintf("%s-%d-%d", firstNode, os.Getpid(), added.Add(1))
	made := &Node{Name: name}
	t.Cleanup(func() { // after the node's end: it would register again
		err := k.Client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	o := testbed.Share(t, "kubernetes-"+name, func(o *testbed.Owner) error {
		n := &node{machine: k.machine, owner: o, name: name, cluster: k.dir,
			taint: taintKey + "=" + name + ":NoSchedule"}
		for _, step := range []func() error{n.grouped, n.bridged, n.containerd, n.kubelet,
			n.ready} {
			if err := step(); err != nil {
				return fmt.Errorf("start node %s: %w", name, err)
			}
		}
		made.agent = n.agent
		return nil
	})
	testbed.ShowLogs(t, o.Dir)
	return made
}
