// Package registry runs a real OCI registry inside the example server: the distribution project's own, with images on
// disk, so that docker, crane and skopeo can push to it and pull from it. It has no authentication and is meant for the
// loopback interface of one machine.
package registry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the storage driver that New names
	"github.com/sirupsen/logrus"
)

// Registry is the HTTP handler of the registry API, rooted at /v2/.
type Registry struct {
	app *handlers.App
	log *os.File
}

// Config configures a Registry.
type Config struct {
	// Dir holds the images and registry.log. Open makes it if it is missing. It is required.
	Dir string
}

// Open opens the registry whose images lie in cfg.Dir. Its log goes to registry.log there; the logger is the process-wide
// one of logrus, which the distribution library leaves no way around. Close it after use.
func Open(ctx context.Context, cfg Config) (*Registry, error) {
	dir := cfg.Dir
	if dir == "" {
		return nil, errors.New("registry: Config.Dir: want the path of a directory: invalid")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("registry: Config.Dir: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "registry.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	logrus.SetOutput(log)
	logrus.SetLevel(logrus.WarnLevel)
	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem":  configuration.Parameters{"rootdirectory": filepath.Join(dir, "images")},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		},
	}
	config.Log.AccessLog.Disabled = true
	config.HTTP.Secret = newSecret() // signs upload sessions, which do not outlive the process
	return &Registry{app: handlers.NewApp(ctx, config), log: log}, nil
}

// ServeHTTP answers one request of the OCI distribution API.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) { r.app.ServeHTTP(w, req) }

// Close ends what runs in the background and closes the log.
func (r *Registry) Close() error {
	err := r.app.Shutdown()
	logrus.SetOutput(os.Stderr)
	if closeErr := r.log.Close(); err == nil {
		err = closeErr
	}
	return err
}

func newSecret() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never returns an error (crypto/rand)
	return hex.EncodeToString(secret)
}
