package kubejob

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/builder/internal/push"
	"github.com/sluice-deploy/sluice/internal/ociref"
)

// Config configures an [Engine]. Client, Namespace and Image are required.
type Config struct {
	// Client speaks to the cluster as a service account with the rights of manifests/rbac.yaml. A
	// build costs it some ten requests: raise its limit (rest.Config.QPS, 5 by default) for many
	// builds at a time.
	Client kubernetes.Interface
	// Namespace has the Jobs. It must allow the pods of Profile.
	Namespace string
	// Image is the image that builds run in, repository@digest, with buildkitd, buildctl and runc
	// in PATH, and sluice-build unless ToolImage is set.
	Image string
	// ToolImage is an image, repository@digest, with sluice-build in PATH, from which an init
	// container copies it. The default is that Image has it.
	ToolImage string
	// Profile is how a pod may build. The default is Userns.
	Profile Profile
	// PushSecret names a Secret of type kubernetes.io/dockerconfigjson, with which pods pull base
	// images and contexts, and push. The default is no credentials.
	PushSecret string
	// PullSecrets name Secrets with which nodes pull Image and ToolImage. The default is none.
	PullSecrets []string
	// BuildSecrets name Secrets of Namespace. RUN --mount=type=secret,id=KEY mounts the value of
	// each key. The values are masked in logs and failures. The default is none.
	BuildSecrets []string
	// Resources are the requests and limits of the container that builds. The default is none.
	Resources corev1.ResourceRequirements
	// NodeSelector and Tolerations choose the nodes. The default is any node.
	NodeSelector map[string]string
	Tolerations  []corev1.Toleration
	// Cache is the image that keeps a cache of layers, repository:tag. A build that may write it
	// decides on the content of images: builds that do not trust each other have engines with
	// caches of their own. The default is none.
	Cache string
	// Deadline is how long a pod may build. The default is one hour. A context that ends earlier
	// counts, too.
	Deadline time.Duration
	// StartDeadline is how long a pod may take to begin: to find a node and to pull images. The
	// default is 10 minutes.
	StartDeadline time.Duration
	// Logs keeps the logs of builds that have an ID, each try's under the UID of its Job. The
	// default is none: the log goes to builder.Request.Log alone. It is not needed below package
	// builds, which keeps that log.
	Logs builds.Logs
	// LogPatience is how long a build waits for Logs that fail. The default is 5 minutes. After
	// that Build fails with a failure that is worth another try, and the Job stays: the next Build
	// of the request takes it up and keeps its log.
	LogPatience time.Duration
	// MaxLog is how many bytes of log a pod writes. The default is 64 MiB.
	MaxLog int64
	// Keep is how long a Job that has ended can be looked at. The default is one hour.
	Keep time.Duration
	// Transport carries the requests to registries. The default, for nil, is
	// go-containerregistry's, with its timeouts.
	Transport http.RoundTripper
	// Keychain finds credentials for reading and tagging images. The default, for nil, is the
	// Docker configuration file of the process's user, else none.
	Keychain authn.Keychain
	// Insecure lists registries, as host:port, that speak plain HTTP. The engine itself speaks it
	// to loopback and private addresses without mention; pods do not. The default is none.
	Insecure []string
	// Poll is how often a build looks at its Job, pod and events without news of them. The default
	// is 5 s.
	Poll time.Duration
	// Ended, when set, is called at the end of each pod's build once its log is kept, and at the
	// end of a build that was cancelled; again by a Build that takes up a Job whose end was not
	// told. It is called concurrently. The default is none.
	Ended func(Report)
	// Logger gets the engine's actions on Jobs. The default discards it.
	Logger *slog.Logger
	// Now is the clock of Observe and of StartDeadline. The default, for nil, is time.Now.
	Now func() time.Time
	// Observe, when set, is called at the end of each Build as "build", with how long it took and
	// its error. It is called concurrently. The default is none.
	Observe func(op string, took time.Duration, err error)
}

const (
	defaultDeadline      = time.Hour
	defaultStartDeadline = 10 * time.Minute
	defaultMaxLog        = 64 << 20
	defaultKeep          = time.Hour
	defaultPoll          = 5 * time.Second
	defaultLogPatience   = 5 * time.Minute
)

// validate returns every problem.
func (c Config) validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("kubejob: Config.%s: %s: %w", field,
			fmt.Sprintf(format, args...), builder.ErrInvalid))
	}
	if c.Client == nil {
		bad("Client", "is nil: want a client of the cluster")
	}
	if msgs := validation.IsDNS1123Label(c.Namespace); len(msgs) > 0 {
		bad("Namespace", "%q: want the name of a namespace", c.Namespace)
	}
	if _, err := name.NewDigest(c.Image); err != nil {
		bad("Image", "%q: want repository@sha256:…: a tag may move between two builds", c.Image)
	}
	if c.ToolImage != "" {
		if _, err := name.NewDigest(c.ToolImage); err != nil {
			bad("ToolImage", "%q: want repository@sha256:…", c.ToolImage)
		}
	}
	if _, ok := profiles[c.Profile]; !ok && c.Profile != "" {
		bad("Profile", "%q: want userns or privileged", string(c.Profile))
	}
	if c.Cache != "" {
		if _, err := name.NewTag(c.Cache, name.StrictValidation); err != nil {
			bad("Cache", "%q: want repository:tag", c.Cache)
		}
	}
	secret := func(field, text string) {
		if msgs := validation.IsDNS1123Subdomain(text); len(msgs) > 0 {
			bad(field, "%q: want the name of a Secret", text)
		}
	}
	if c.PushSecret != "" {
		secret("PushSecret", c.PushSecret)
	}
	for i, s := range c.PullSecrets {
		secret(fmt.Sprintf("PullSecrets[%d]", i), s)
	}
	for i, s := range c.BuildSecrets {
		secret(fmt.Sprintf("BuildSecrets[%d]", i), s)
	}
	for field, d := range map[string]time.Duration{"Deadline": c.Deadline,
		"StartDeadline": c.StartDeadline, "Keep": c.Keep, "Poll": c.Poll,
		"LogPatience": c.LogPatience} {
		if d < 0 {
			bad(field, "%s: want 0 (its default) or more", d)
		}
	}
	if c.MaxLog < 0 {
		bad("MaxLog", "%d: want 0 (default %d) or more", c.MaxLog, defaultMaxLog)
	}
	for _, err := range ociref.CheckInsecure("Config.Insecure", c.Insecure) {
		errs = append(errs, fmt.Errorf("kubejob: %w: %w", err, builder.ErrInvalid))
	}
	return errors.Join(errs...)
}

// New returns an engine, or every problem of cfg at once, each wrapping builder.ErrInvalid. It
// does no I/O. Doctor says whether the cluster lets the engine work.
func New(cfg Config) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	def := func(d *time.Duration, value time.Duration) {
		if *d == 0 {
			*d = value
		}
	}
	def(&cfg.Deadline, defaultDeadline)
	def(&cfg.StartDeadline, defaultStartDeadline)
	def(&cfg.Keep, defaultKeep)
	def(&cfg.Poll, defaultPoll)
	def(&cfg.LogPatience, defaultLogPatience)
	if cfg.MaxLog == 0 {
		cfg.MaxLog = defaultMaxLog
	}
	if cfg.Profile == "" {
		cfg.Profile = Userns
	}
	if cfg.Transport == nil {
		cfg.Transport = remote.DefaultTransport
	}
	if cfg.Keychain == nil {
		cfg.Keychain = authn.DefaultKeychain
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Engine{config: cfg, tags: push.NewTags()}
	e.news = &news{client: cfg.Client, namespace: cfg.Namespace, heard: map[string]chan struct{}{}}
	return e, nil
}

// Report is the end of a build in its pod.
type Report struct {
	// ID is that of the request; "" without one.
	ID string
	// Job and Pod are names in Config.Namespace; Pod is "" when there was none.
	Job, Pod string
	// Stored is the name of the log in Config.Logs; "" where it is not kept.
	Stored string
	// Lines is the number of the log's last line, Log how much of the log there is. Lines that are
	// missing are counted in Missing, bytes that are missing in Log.Lost as far as they are known.
	Lines, Missing int64
	Log            builds.LogState
	// SHA256 is the sum of the log in hexadecimal digits, as the pod told it; "" where it did not.
	SHA256 string
	// Failure is nil for a build that succeeded.
	Failure *builder.Failure
}

func (e *Engine) nameOptions(reference string) []name.Option {
	return ociref.NameOptions(e.config.Insecure, strings.TrimSpace(reference))
}
