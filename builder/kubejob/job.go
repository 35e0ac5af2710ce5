package kubejob

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-deploy/sluice/builder"
)

// Names of the objects' metadata.
const (
	domain = "sluice-deploy.github.io/"
	// buildLabel has the hash of the build's id: an id is no value of a label
	buildLabel = domain + "build"
	// idAnnotation has the id, orderAnnotation the digest of the order
	idAnnotation    = domain + "id"
	orderAnnotation = domain + "order"
	// endedAnnotation says that the build's caller has heard of its end: success or failure
	endedAnnotation = domain + "ended"
	// logFinalizer holds a Job until the store has its log and the caller its end
	logFinalizer = domain + "log"
	// managedByLabel is app.kubernetes.io/managed-by of Kubernetes' recommended labels
	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "sluice-kubejob"
)

const (
	container = "build"
	// backstop is the time over its own deadline in which a pod ships its log
	backstop = 60 * time.Second
	// grace is the time between SIGTERM and SIGKILL, in seconds
	grace = int64(30)
)

// nameOf returns the name of the Job of an id. It has 63 characters at most.
func nameOf(id string) string { return "build-" + hash(id) }

func hash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// job is the Job of an order. deadline is the pod's.
func (c Config) job(r builder.Request, id string, order string, digest string,
	deadline time.Duration) *batchv1.Job {
	p := profiles[c.Profile]
	labels := map[string]string{buildLabel: hash(id), managedByLabel: managedBy}
	args := []string{"run", "--deadline", deadline.String(), "--log-limit", fmt.Sprint(c.MaxLog),
		"--work", "/sluice/work", "--state", "/sluice/state"}
	for _, at := range c.Insecure {
		args = append(args, "--insecure", at)
	}
	if c.Cache != "" {
		args = append(args, "--cache", c.Cache)
	}
	build := corev1.Container{
		Name: container, Image: c.Image, Command: []string{"sluice-build"},
		SecurityContext: p.security, Resources: c.Resources,
		ImagePullPolicy: corev1.PullIfNotPresent,
		VolumeMounts:    []corev1.VolumeMount{{Name: "sluice", MountPath: "/sluice"}},
	}
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, HostUsers: p.hostUsers,
		AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
		NodeSelector: c.NodeSelector, Tolerations: c.Tolerations,
		ActiveDeadlineSeconds:         seconds(c.StartDeadline + deadline + backstop),
		TerminationGracePeriodSeconds: ptr(grace),
		Volumes: []corev1.Volume{{Name: "sluice", VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}
	for _, s := range c.PullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: s})
	}
	mount := func(name, at string, source corev1.VolumeSource) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		build.VolumeMounts = append(build.VolumeMounts, corev1.VolumeMount{Name: name,
			MountPath: at, ReadOnly: true})
	}
	if c.PushSecret != "" {
		mount("registry", "/sluice/registry", corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: c.PushSecret,
				Items: []corev1.KeyToPath{{Key: corev1.DockerConfigJsonKey,
					Path: "config.json"}}}})
		build.Env = append(build.Env, corev1.EnvVar{Name: "DOCKER_CONFIG",
			Value: "/sluice/registry"})
	}
	if len(c.BuildSecrets) > 0 {
		var sources []corev1.VolumeProjection
		for _, s := range c.BuildSecrets {
			sources = append(sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: s}}})
		}
		mount("secrets", "/sluice/secrets", corev1.VolumeSource{
			Projected: &corev1.ProjectedVolumeSource{Sources: sources}})
		args = append(args, "--secrets", "/sluice/secrets")
	}
	if c.ToolImage != "" {
		build.Command = []string{"/sluice/sluice-build"}
		spec.InitContainers = []corev1.Container{{Name: "tool", Image: c.ToolImage,
			ImagePullPolicy: corev1.PullIfNotPresent,
			Command:         []string{"sluice-build", "install", "/sluice/sluice-build"},
			VolumeMounts:    []corev1.VolumeMount{{Name: "sluice", MountPath: "/sluice"}}}}
	}
	build.Args = append(args, order)
	spec.Containers = []corev1.Container{build}
	j := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: nameOf(id), Namespace: c.Namespace, Labels: labels,
			Annotations: map[string]string{idAnnotation: id, orderAnnotation: digest}},
		Spec: batchv1.JobSpec{
			BackoffLimit:            ptr(int32(0)), // another try is the caller's
			PodReplacementPolicy:    ptr(batchv1.Failed),
			TTLSecondsAfterFinished: ptr(int32(c.Keep / time.Second)),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: spec},
		},
	}
	if r.ID != "" {
		j.Finalizers = []string{logFinalizer}
	}
	return j
}

func ptr[T any](v T) *T { return &v }

func seconds(d time.Duration) *int64 { return ptr(int64((d + time.Second - 1) / time.Second)) }
