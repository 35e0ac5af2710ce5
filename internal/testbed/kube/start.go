//go:build linux

package kube

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/hosts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// In the directory of the shared owner.
const (
	kubeconfigFile = "kubeconfig"
	hostsDir       = "registries"

	// The kubelet, which obeys any client that it takes for an API server, listens where pods and
	// hosts of other tests reach it.
	kubeletClientCert = "kubelet-client.crt"
	kubeletClientKey  = "kubelet-client.key"
)

// machine holds the programs of a Kubernetes of our own.
type machine struct {
	program map[string]string // paths by name
	cni     string            // directory of the CNI plugins
}

// kubeMachine looks whether everything is there.
func kubeMachine(t testing.TB) *machine {
	t.Helper()
	testbed.NeedRoot(t, "Kubernetes")
	m := &machine{program: map[string]string{}}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager",
		"kube-scheduler", "kubelet", "containerd", "containerd-shim-runc-v2", "ctr", "runc"} {
		m.program[name] = testbed.NeedTool(t, name)
	}
	for name, pkg := range map[string]string{"ip": "iproute2", "busybox": "busybox-static"} {
		m.program[name] = testbed.NeedProgram(t, name, pkg)
	}
	m.cni = "/usr/lib/cni"
	testbed.NeedFile(t, filepath.Join(m.cni, "bridge"), "containernetworking-plugins")
	return m
}

// start starts everything and returns when the node is ready.
func (m *machine) start(o *testbed.Owner) error {
	n := &node{machine: m, owner: o, name: firstNode, cluster: o.Dir}
	for _, step := range []func() error{
		n.remember, n.bridged, n.credentials, n.controlPlane, n.containerd, n.kubelet, n.ready} {
		if err := step(); err != nil {
			return fmt.Errorf("start kubernetes: %w", err)
		}
	}
	return nil
}

// firstNode is the name of the node that each cluster has.
const firstNode = "testbed"

// node is one node of Kubernetes while it is started; the first one starts the control plane too.
type node struct {
	*machine
	owner   *testbed.Owner
	name    string
	taint   string // as the kubelet's option has it; empty for the first node
	cluster string // directory of the first node's owner

	*hosts.Network // of the pods

	cgroup string
	socket string           // of containerd
	certs  string           // directory of the API server's certificate
	api    string           // its URL
	agent  *testbed.Process // the kubelet
}

// service runs one of the processes in a directory of its own.
func (n *node) service(name string, ready func(context.Context) error,
	args ...string) (*testbed.Process, error) {
	dir, err := n.owner.MakeDir(name)
	if err != nil {
		return nil, err
	}
	return testbed.StartShared(dir, testbed.Command{Name: name, Path: n.program[name], Args: args,
		Ready: ready})
}

// credentials makes the key that signs service accounts' tokens, the administrator's token and the
// certificate that the API server shows to the kubelet, in files only root reads.
func (n *node) credentials() error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	token := rand.Text()
	return errors.Join(
		n.kubeletClient(),
		n.secret("audit-policy.yaml", []byte(auditPolicy)),
		n.secret("sa.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY",
			Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		n.secret("sa.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		n.secret("token", []byte(token)),
		n.secret("tokens.csv", fmt.Appendf(nil, "%s,admin,admin,\"system:masters\"\n", token)),
	)
}

func (n *node) path(name string) string { return filepath.Join(n.owner.Dir, name) }

// shared is the path of a file that all nodes of the cluster use.
func (n *node) shared(name string) string { return filepath.Join(n.cluster, name) }

func (n *node) secret(name string, data []byte) error {
	return os.WriteFile(n.path(name), data, 0o600)
}

// kubeletClient makes a certificate that has signed itself: it is also the authority that the
// kubelet trusts.
func (n *node) kubeletClient() error {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "kube-apiserver-kubelet-client"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		BasicConstraintsValid: true, IsCA: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return err
	}
	return errors.Join(
		n.secret(kubeletClientKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY",
			Bytes: secret})),
		n.secret(kubeletClientCert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE",
			Bytes: cert})),
	)
}

func (n *node) controlPlane() error {
	port, err := testbed.FreePorts(5)
	if err != nil {
		return err
	}
	client, peer := "http://127.0.0.1:"+port[0], "http://127.0.0.1:"+port[1]
	// The data of etcd need not outlive this machine, so etcd does not wait for the disk.
	_, err = n.service("etcd", testbed.Listens("127.0.0.1:"+port[0]), "--data-dir",
		n.path("etcd-data"), "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls",
		peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err != nil {
		return err
	}
	n.certs, n.api = n.path("certs"), "https://127.0.0.1:"+port[2]
	_, err = n.service("kube-apiserver", n.answers, "--etcd-servers", client,
		"--service-cluster-ip-range", "10.96.0.0/16",
		"--cert-dir", n.certs, "--token-auth-file", n.path("tokens.csv"), "--authorization-mode",
		"RBAC", "--anonymous-auth=false",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file",
		n.path("sa.pub"),
		"--service-account-signing-key-file", n.path("sa.key"), "--bind-address", "127.0.0.1",
		"--secure-port", port[2],
		"--advertise-address", n.IP, "--external-hostname", "localhost", "--allow-privileged=true",
		"--kubelet-preferred-address-types", "InternalIP", "--kubelet-client-certificate",
		n.path(kubeletClientCert),
		"--kubelet-client-key", n.path(kubeletClientKey), "--endpoint-reconciler-type", "none",
		"--audit-policy-file", n.path("audit-policy.yaml"), "--audit-log-path", n.path(auditFile))
	if err != nil {
		return err
	}
	manager := []string{
		"--kubeconfig", n.path(kubeconfigFile), "--service-account-private-key-file",
		n.path("sa.key"),
		"--root-ca-file", filepath.Join(n.certs, "apiserver.crt"),
		"--use-service-account-credentials", "--leader-elect=false",
		"--bind-address", "127.0.0.1", "--secure-port", port[3], "--cert-dir",
		n.path("manager-certs"),
	}
	scheduler := []string{
		"--kubeconfig", n.path(kubeconfigFile), "--leader-elect=false", "--bind-address",
		"127.0.0.1", "--secure-port", port[4],
		"--cert-dir", n.path("scheduler-certs"),
	}
	_, managed := n.service("kube-controller-manager", nil, manager...)
	_, scheduled := n.service("kube-scheduler", nil, scheduler...)
	return errors.Join(managed, scheduled)
}

// answers is nil once the API server is ready, and leaves the kubeconfig then.
func (n *node) answers(ctx context.Context) error {
	ca := filepath.Join(n.certs, "apiserver.crt") // it signed itself
	if _, err := os.Stat(ca); err != nil {
		return err
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["testbed"] = &clientcmdapi.Cluster{Server: n.api, CertificateAuthority: ca}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{TokenFile: n.path("token")}
	config.Contexts["testbed"] = &clientcmdapi.Context{Cluster: "testbed", AuthInfo: "admin"}
	config.CurrentContext = "testbed"
	if err := clientcmd.WriteToFile(*config, n.path(kubeconfigFile)); err != nil {
		return err
	}
	client, err := n.client()
	if err != nil {
		return err
	}
	_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err
}

func (n *node) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", n.shared(kubeconfigFile))
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// ready waits for the node.
func (n *node) ready() error {
	client, err := n.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), testbed.StartWithin)
	defer cancel()
	return testbed.Wait(ctx, func() error {
		node, err := client.CoreV1().Nodes().Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("%w: see the logs of kubelet and containerd in %s", err, n.owner.Dir)
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
			err = fmt.Errorf("node %s is not Ready: %s: see the logs of kubelet and containerd in "+
				"%s", node.Name, c.Message, n.owner.Dir)
		}
		return err
	})
}

func (n *node) bridged() (err error) {
	n.Network, err = hosts.NewNetwork(func(link string) error {
		return n.owner.Record("link", link)
	})
	return err
}
