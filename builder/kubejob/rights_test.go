//go:build linux

package kubejob_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/kubejob"
	"github.com/sluice-deploy/sluice/internal/testbed"
)

const account = "sluice-kubejob"

// shipped applies manifests/rbac.yaml, and returns its rules as "verb group/resource".
func (b *bench) shipped(t *testing.T) []string {
	t.Helper()
	file, err := os.Open("manifests/rbac.yaml")
	require.NoError(t, err)
	defer file.Close()
	documents := yaml.NewYAMLOrJSONDecoder(file, 4096)
	var role rbacv1.Role
	var user corev1.ServiceAccount
	var binding rbacv1.RoleBinding
	require.NoError(t, documents.Decode(&role))
	require.NoError(t, documents.Decode(&user))
	require.NoError(t, documents.Decode(&binding))
	binding.Subjects[0].Namespace = b.Namespace // as kubectl apply -n does not
	_, err = b.Client.RbacV1().Roles(b.Namespace).Create(t.Context(), &role,
		metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = b.Client.CoreV1().ServiceAccounts(b.Namespace).Create(t.Context(), &user,
		metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = b.Client.RbacV1().RoleBindings(b.Namespace).Create(t.Context(), &binding,
		metav1.CreateOptions{})
	require.NoError(t, err)
	var rules []string
	for _, r := range role.Rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, verb := range r.Verbs {
					rules = append(rules, verb+" "+group+"/"+resource)
				}
			}
		}
	}
	return rules
}

// as returns a client of the service account.
func (b *bench) as(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	config := rest.CopyConfig(b.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" +
		b.Namespace + ":" + account}
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	testbed.Poll(t, "the role", func() error {
		_, err := client.BatchV1().Jobs(b.Namespace).List(t.Context(), metav1.ListOptions{})
		return err
	})
	return client
}

// The engine works with the rights of manifests/rbac.yaml, and each of them is used: by builds that
// succeed, fail, are replaced and cannot begin.
func TestShippedRightsAreThoseThatAreUsed(t *testing.T) {
	t.Parallel()
	b := start(t)
	rules := b.shipped(t)
	b.config.Client = b.as(t)
	e := b.engine(t)
	r := b.request("app", "FROM "+b.base+"\nRUN test -e /a.txt\n")
	for range 2 { // the second Job replaces the first one
		_, err := e.Build(t.Context(), r)
		require.Equal(t, builder.ReasonCommand, builder.FailureOf(err).Reason, "%v", err)
	}
	testbed.Poll(t, "the use of each right", func() error {
		used := map[string]bool{}
		for _, q := range b.Requests(t) {
			resource := q.Object.Resource
			if q.Object.Subresource != "" {
				resource += "/" + q.Object.Subresource
			}
			if q.Impersonated.Username != "system:serviceaccount:"+b.Namespace+":"+account {
				continue
			}
			rule := q.Verb + " " + q.Object.APIGroup + "/" + resource
			require.Contains(t, rules, rule)
			used[rule] = true
		}
		for _, rule := range rules {
			if !used[rule] {
				return fmt.Errorf("%s is not used", rule)
			}
		}
		return nil
	})
}

// Doctor's verdict on a profile is the API server's admission of the Job's pod, at each level of
// Pod Security.
func TestDoctorSaysWhatIsAdmitted(t *testing.T) {
	t.Parallel()
	b := start(t)
	e := b.engine(t)
	for _, level := range []string{"restricted", "baseline", "privileged"} {
		enforce(t, b, level)
		d, err := e.Doctor(t.Context())
		require.NoError(t, err)
		require.Empty(t, d.Missing)
		require.Len(t, d.Profiles, 2)
		for _, p := range d.Profiles {
			require.Equal(t, level == "privileged", p.Works(), "%s: %+v", level, p)
			require.Equal(t, 1, p.Nodes)
			require.Equal(t, level != "privileged", strings.Contains(p.Why, "PodSecurity"), "%s",
				p.Why)
		}
	}
	b.config.NodeSelector = map[string]string{"no": "node"}
	d, err := b.engine(t).Doctor(t.Context())
	require.NoError(t, err)
	require.False(t, d.Profiles[0].Works())
	require.Equal(t, kubejob.Userns, d.Profiles[0].Profile)

	b.shipped(t)
	b.config.Client, b.config.NodeSelector = b.as(t), nil
	d, err = b.engine(t).Doctor(t.Context())
	require.NoError(t, err)
	require.Empty(t, d.Missing)
	require.Equal(t, -1, d.Profiles[0].Nodes, "the platform may not list nodes")
	require.Contains(t, d.Profiles[0].Why, "cannot create resource")
}
