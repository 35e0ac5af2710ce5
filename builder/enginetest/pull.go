package enginetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
)

// image is an image as the registry has it.
type image struct {
	config struct {
		OS      string `json:"os"`
		Created string `json:"created"`
		Config  struct {
			Env          []string
			Labels       map[string]string
			WorkingDir   string
			User         string
			StopSignal   string
			ExposedPorts map[string]struct{}
			Volumes      map[string]struct{}
			Entrypoint   []string
			Cmd          []string
		} `json:"config"`
	}
	files map[string]entry // by name without a leading slash
}

type entry struct {
	kind     string // file, dir or link
	mode     int64
	uid, gid int
	content  string // of a file, or where a link leads
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Platform  struct {
		OS string `json:"os"`
	} `json:"platform"`
}

const accept = "application/vnd.oci.image.index.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.v2+json"

// get reads one object of the repository, which starts with host:port.
func get(ctx context.Context, repository, kind, reference string) ([]byte, error) {
	host, name, _ := strings.Cut(repository, "/")
	r, err := http.NewRequestWithContext(ctx, http.MethodGet,
		fmt.Sprintf("http://%s/v2/%s/%s/%s", host, name, kind, reference), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", accept)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", r.URL, res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<30))
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(reference, "sha256:") && digestOf(body) != reference {
		return nil, fmt.Errorf("%s: content has digest %s", r.URL, digestOf(body))
	}
	return body, nil
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// resolve returns the digest that a tag names.
func resolve(ctx context.Context, repository, tag string) (string, error) {
	body, err := get(ctx, repository, "manifests", tag)
	if err != nil {
		return "", err
	}
	return digestOf(body), nil
}

func pull(ctx context.Context, repository, digest string) (*image, error) {
	body, err := get(ctx, repository, "manifests", digest)
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Manifests []descriptor `json:"manifests"`
		Config    descriptor   `json:"config"`
		Layers    []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(body, &manifest); err != nil {
		return nil, err
	}
	for _, m := range manifest.Manifests {
		if m.Platform.OS != "unknown" { // what attestations carry
			return pull(ctx, repository, m.Digest)
		}
	}
	img := &image{files: map[string]entry{}}
	config, err := get(ctx, repository, "blobs", manifest.Config.Digest)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(config, &img.config); err != nil {
		return nil, err
	}
	for _, l := range manifest.Layers {
		blob, err := get(ctx, repository, "blobs", l.Digest)
		if err != nil {
			return nil, err
		}
		if err := img.apply(blob); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}
	return img, nil
}

// apply puts a layer over the files. The suite's images delete nothing.
func (img *image) apply(blob []byte) error {
	zr, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return err
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e := entry{kind: "file", mode: h.Mode, uid: h.Uid, gid: h.Gid}
		switch h.Typeflag {
		case tar.TypeDir:
			e.kind = "dir"
		case tar.TypeSymlink:
			e.kind, e.content = "link", h.Linkname
		default:
			content, err := io.ReadAll(tr)
			if err != nil {
				return err
			}
			e.content = string(content)
		}
		img.files[path.Clean("/" + h.Name)[1:]] = e
	}
}
