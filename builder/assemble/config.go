package assemble

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The type of a health check that go-containerregistry has lacks StartInterval, a field of the
// Docker image specification 1.3.1 (HealthcheckConfig). It is read and written beside that type.

// startInterval returns the start interval of an image's health check, 0 for none.
func startInterval(img v1.Image) (time.Duration, error) {
	raw, err := img.RawConfigFile()
	if err != nil {
		return 0, err
	}
	var config struct {
		Config struct {
			Healthcheck struct{ StartInterval time.Duration }
		} `json:"config"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return 0, fmt.Errorf("configuration of the base image: %w", err)
	}
	return config.Config.Healthcheck.StartInterval, nil
}

// marshalConfig writes the configuration of an image. A start interval of 0 is left out.
func marshalConfig(c *v1.ConfigFile, startInterval time.Duration) ([]byte, error) {
	raw, err := json.Marshal(c)
	if err != nil || startInterval == 0 || c.Config.Healthcheck == nil {
		return raw, err
	}
	document := map[string]json.RawMessage{}
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &document); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(document["config"], &config); err != nil {
		return nil, err
	}
	config["Healthcheck"], err = json.Marshal(struct {
		*v1.HealthConfig
		StartInterval time.Duration
	}{c.Config.Healthcheck, startInterval})
	if err != nil {
		return nil, err
	}
	if document["config"], err = json.Marshal(config); err != nil {
		return nil, err
	}
	return json.Marshal(document)
}

// configured is an image with another configuration, as JSON text.
type configured struct {
	v1.Image      // for its layers
	config        []byte
	name          v1.Hash // digest of config
	manifest      *v1.Manifest
	manifestBytes []byte
}

// withConfig returns the image with the configuration.
func withConfig(img v1.Image, config []byte) (v1.Image, error) {
	name, size, err := v1.SHA256(bytes.NewReader(config))
	if err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	manifest = manifest.DeepCopy()
	manifest.Config.Digest, manifest.Config.Size = name, size
	raw, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	return &configured{Image: img, config: config, name: name, manifest: manifest,
		manifestBytes: raw}, nil
}

func (c *configured) RawConfigFile() ([]byte, error)      { return c.config, nil }
func (c *configured) ConfigFile() (*v1.ConfigFile, error) { return partial.ConfigFile(c) }
func (c *configured) ConfigName() (v1.Hash, error)        { return c.name, nil }
func (c *configured) Manifest() (*v1.Manifest, error)     { return c.manifest, nil }
func (c *configured) RawManifest() ([]byte, error)        { return c.manifestBytes, nil }
func (c *configured) Digest() (v1.Hash, error)            { return partial.Digest(c) }
func (c *configured) Size() (int64, error)                { return partial.Size(c) }
func (c *configured) MediaType() (types.MediaType, error) { return c.manifest.MediaType, nil }

// LayerByDigest implements v1.Image, whose configuration counts as a layer here.
func (c *configured) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	if h == c.name {
		return partial.ConfigLayer(c)
	}
	return c.Image.LayerByDigest(h)
}
