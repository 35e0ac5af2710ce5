package kubejob

import corev1 "k8s.io/api/core/v1"

// Profile is how a pod gets the rights that BuildKit needs.
type Profile string

// The profiles.
const (
	// the pod has a user namespace, in which it is root with SYS_ADMIN, and no user of the node.
	// It needs Kubernetes 1.33, containerd 2 or CRI-O, and a namespace that enforces the Pod
	// Security level privileged, which is the only one that allows procMount and SYS_ADMIN
	Userns Profile = "userns"
	// the container is privileged: its root is the node's
	Privileged Profile = "privileged"
)

// profile has the fields of a pod that a profile sets.
type profile struct {
	hostUsers *bool
	security  *corev1.SecurityContext
}

var yes, no, unmasked = true, false, corev1.UnmaskedProcMount

var profiles = map[Profile]profile{
	Userns: {hostUsers: &no, security: &corev1.SecurityContext{
		Capabilities:   &corev1.Capabilities{Add: []corev1.Capability{"SYS_ADMIN"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
		ProcMount:      &unmasked,
	}},
	Privileged: {security: &corev1.SecurityContext{Privileged: &yes}},
}
