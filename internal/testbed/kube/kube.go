//go:build linux

// Package kube runs a Kubernetes of one node for tests: etcd, API server, controller manager,
// scheduler, kubelet and containerd. It is a module of its own, so that Kubernetes' client stays
// out of the requirements of the library.
package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Cluster is a cluster of one node, seen by one test.
type Cluster struct {
	Config     *rest.Config // of its administrator
	Client     *kubernetes.Clientset
	Kubeconfig string // a file that says the same
	Namespace  string // this test's own; it goes with the test
	HostIP     string // at which pods reach this machine

	// of the first node's owner; empty with a cluster that the test did not make
	dir     string
	machine *machine
}

// Start returns a Kubernetes: API server with RBAC, controller manager, scheduler and a kubelet on
// containerd, without kube-proxy and DNS, so that pods are reached at their addresses and Services
// have none. All test binaries that run at the same time share it, each test has a namespace of its
// own. Where KUBECONFIG is set, that cluster is used.
func Start(t testing.TB) *Cluster {
	t.Helper()
	k := &Cluster{Kubeconfig: os.Getenv(clientcmd.RecommendedConfigPathEnvVar)}
	if k.Kubeconfig == "" {
		m := kubeMachine(t)
		o := testbed.Share(t, "kubernetes", m.start)
		testbed.ShowLogs(t, o.Dir)
		k.Kubeconfig, k.dir, k.machine = filepath.Join(o.Dir, kubeconfigFile), o.Dir, m
	}
	var err error
	if k.Config, err = clientcmd.BuildConfigFromFlags("", k.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	k.Config.QPS, k.Config.Burst = 100, 200
	if k.Client, err = kubernetes.NewForConfig(k.Config); err != nil {
		t.Fatal(err)
	}
	if k.HostIP, err = k.hostIP(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.namespace(t)
	return k
}

// hostIP is the address of this machine towards the node, which is that of the bridge for a node of
// our own.
func (k *Cluster) hostIP(ctx context.Context) (string, error) {
	nodes, err := k.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if a.Type != corev1.NodeInternalIP {
				continue
			}
			conn, err := net.Dial("udp", net.JoinHostPort(a.Address, "9")) // which sends nothing
			if err != nil {
				return "", err
			}
			defer conn.Close()
			return netip.MustParseAddrPort(conn.LocalAddr().String()).Addr().String(), nil
		}
	}
	return "", errors.New("no node of the cluster has an address")
}

// namespace makes the test's namespace, in which pods can be made when it returns.
func (k *Cluster) namespace(t testing.TB) {
	t.Helper()
	ns, err := k.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "sluice-test-", Labels: map[string]string{
			"pod-security.kubernetes.io/enforce": "privileged", // builders are
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	k.Namespace = ns.Name
	t.Cleanup(func() { // the context of the test is done by now
		if t.Failed() {
			t.Logf("pods of namespace %s:\n%s", k.Namespace, k.describe(context.Background()))
		}
		now, background := int64(0), metav1.DeletePropagationBackground
		pods := k.Client.CoreV1().Pods(k.Namespace)
		err := errors.Join(
			k.Client.CoreV1().Namespaces().Delete(context.Background(), k.Namespace,
				metav1.DeleteOptions{PropagationPolicy: &background}),
			pods.DeleteCollection(context.Background(),
				metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{}),
		)
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove namespace %s: %v", k.Namespace, err)
		}
	})
	testbed.Poll(t, "the service account that pods need", func() error {
		_, err := k.Client.CoreV1().ServiceAccounts(k.Namespace).Get(t.Context(), "default",
			metav1.GetOptions{})
		return err
	})
}

// describe lists the pods, their logs and their events.
func (k *Cluster) describe(ctx context.Context) string {
	var b strings.Builder
	pods, err := k.Client.CoreV1().Pods(k.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, p := range pods.Items {
		fmt.Fprintf(&b, "%s: %s %s\n", p.Name, p.Status.Phase, p.Status.Message)
		lines := int64(40)
		for _, c := range p.Spec.Containers {
			log, err := k.Client.CoreV1().Pods(k.Namespace).GetLogs(p.Name,
				&corev1.PodLogOptions{Container: c.Name, TailLines: &lines}).DoRaw(ctx)
			fmt.Fprintf(&b, "log of %s: %v\n%s\n", c.Name, err, log)
		}
	}
	events, err := k.Client.CoreV1().Events(k.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return b.String() + err.Error()
	}
	for _, e := range events.Items {
		fmt.Fprintf(&b, "%s %s: %s: %s\n", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason,
			e.Message)
	}
	return b.String()
}

// Trust lets the node pull over plain HTTP from a registry, given as host:port. It does nothing
// with a cluster that the test did not make: its administrator decides.
func (k *Cluster) Trust(t testing.TB, registry string) {
	t.Helper()
	if k.dir == "" {
		return
	}
	dir := filepath.Join(k.dir, hostsDir, registry)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "hosts.toml"),
			fmt.Appendf(nil, "[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
				registry), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
