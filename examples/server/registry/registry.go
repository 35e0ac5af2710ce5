// Package registry runs a real OCI registry inside the example server: the distribution project's
// own, with images on disk, so that docker, crane and skopeo can push to it, pull from it, list it
// and delete. It has no authentication and is meant for the loopback interface of one machine.
//
// A manifest is deleted by its digest (DELETE /v2/NAME/manifests/DIGEST), unless Config.Used has a
// reason to keep it. The next Open removes blobs without a manifest: no client can push before it
// returns.
package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"
)

// Registry is the HTTP handler of the registry API, rooted at /v2/.
type Registry struct {
	app  *handlers.App
	log  *logFile
	used func(ctx context.Context, repository, digest string) (string, error)
}

// Config configures a Registry. Dir is required.
type Config struct {
	// Dir holds the images and registry.log. Open makes it if it is missing.
	Dir string
	// Used, if set, is asked before a manifest is deleted by digest: a reason not to, or "". It is
	// called concurrently. The default lets everything be deleted.
	Used func(ctx context.Context, repository, digest string) (reason string, err error)
}

// settings differ from the library's defaults, which its parser adds.
const settings = `
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {}
  delete: {enabled: true}
http: {}
`

// Open opens the registry whose images lie in cfg.Dir, and removes interrupted uploads, whose
// sessions ended with the last process, and blobs without a manifest. Its log goes to registry.log
// there, up to 10 MiB and as much again in registry.log.1; the logger is the process-wide one of
// logrus, which the distribution library leaves no way around. Close it after use.
func Open(ctx context.Context, cfg Config) (*Registry, error) {
	dir := cfg.Dir
	if dir == "" {
		return nil, errors.New("registry: Config.Dir: want the path of a directory: invalid")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("registry: Config.Dir: %w", err)
	}
	config, err := configuration.Parse(strings.NewReader(settings))
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	images := filepath.Join(dir, "images")
	config.Storage["filesystem"]["rootdirectory"] = images
	config.HTTP.Secret = newSecret() // signs upload sessions, which do not outlive the process
	log, err := openLog(filepath.Join(dir, "registry.log"))
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	logrus.SetOutput(log)
	logrus.SetLevel(logrus.WarnLevel) // the library leaves this to its own main
	if err := clean(ctx, images); err != nil {
		logrus.SetOutput(os.Stderr)
		return nil, errors.Join(fmt.Errorf("registry: clean %s: %w", images, err), log.Close())
	}
	return &Registry{app: handlers.NewApp(ctx, config), log: log, used: cfg.Used}, nil
}

// clean removes interrupted uploads and unused blobs. No client may push meanwhile.
func clean(ctx context.Context, images string) error {
	_, err := os.Stat(filepath.Join(images, "docker/registry/v2/repositories"))
	if errors.Is(err, fs.ErrNotExist) { // nothing has been pushed yet
		return nil
	}
	if err != nil {
		return err
	}
	disk := filesystem.New(filesystem.DriverParameters{RootDirectory: images, MaxThreads: 100})
	_, errs := storage.PurgeUploads(ctx, disk, time.Now(), true)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("uploads: %w", err)
	}
	namespace, err := storage.NewRegistry(ctx, disk, storage.EnableDelete)
	if err != nil {
		return err
	}
	// A manifest without a tag stays: a version may be bound to it.
	if err := storage.MarkAndSweep(ctx, disk, namespace, storage.GCOpts{Quiet: true}); err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	return nil
}

var manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/(sha256:[0-9a-f]{64})$`)

// ServeHTTP answers one request of the OCI distribution API. Blobs are not deleted by themselves:
// an image would lose a layer.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodDelete && r.used != nil {
		if strings.Contains(req.URL.Path, "/blobs/sha256:") {
			refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "delete the manifest: blobs "+
				"that nothing refers to go by themselves")
			return
		}
		if parts := manifestPath.FindStringSubmatch(req.URL.Path); parts != nil {
			switch reason, err := r.used(req.Context(), parts[1], parts[2]); {
			case err != nil:
				refuse(w, http.StatusServiceUnavailable, "UNKNOWN", "whether it is used is not "+
					"known: "+err.Error())
				return
			case reason != "":
				refuse(w, http.StatusForbidden, "DENIED", reason)
				return
			}
		}
	}
	r.app.ServeHTTP(w, req)
}

// refuse answers as the OCI distribution specification wants it ("Error Codes").
func refuse(w http.ResponseWriter, status int, code, message string) {
	type fault struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// fails when the client is gone
	_ = json.NewEncoder(w).Encode(map[string][]fault{"errors": {{code, message}}})
}

// Close ends the background work and closes the log.
func (r *Registry) Close() error {
	err := r.app.Shutdown()
	logrus.SetOutput(os.Stderr)
	return errors.Join(err, r.log.Close())
}

func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never returns an error (crypto/rand)
	return hex.EncodeToString(secret)
}
