package assemble

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/sbom"
)

// The manifest of attestations has the form of BuildKit's (docs/attestations/attestation-storage.md
// there): an image whose layers are in-toto statements, which an index names as the attestations of
// another of its images.

const (
	inToto        = types.MediaType("application/vnd.in-toto+json")
	predicateType = "in-toto.io/predicate-type" // an annotation of a layer
	slsa          = "https://slsa.dev/provenance/v1"
	// buildType is the first field of a provenance; docs/assemble.md describes the parameters.
	buildType = "https://github.com/sluice-deploy/sluice/blob/main/docs/assemble.md#provenance"
	builderID = "https://github.com/sluice-deploy/sluice/builder/assemble"
)

// statement is an in-toto statement (in-toto.io/Statement/v1).
type statement struct {
	Type          string    `json:"_type"`
	PredicateType string    `json:"predicateType"`
	Subject       []subject `json:"subject"`
	Predicate     any       `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// provenance is a SLSA provenance v1 (slsa.dev/spec/v1.0/provenance). It has no time and no values
// of build arguments: the same input gives the same one, and an argument may be a secret.
type provenance struct {
	BuildDefinition struct {
		BuildType          string         `json:"buildType"`
		ExternalParameters map[string]any `json:"externalParameters"`
		Dependencies       []dependency   `json:"resolvedDependencies,omitempty"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

type dependency struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// attest returns the manifest with the attestations of an image.
func (s *stage) attest(r builder.Request, to name.Repository, img v1.Image) (v1.Image, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	about := []subject{{Name: purl(to.Name(), s.platform),
		Digest: map[string]string{digest.Algorithm: digest.Hex}}}
	var add []mutate.Addendum
	put := func(kind string, predicate any) error {
		text, err := json.Marshal(statement{"https://in-toto.io/Statement/v1", kind, about,
			predicate})
		if err != nil {
			return err
		}
		add = append(add, mutate.Addendum{Layer: static.NewLayer(text, inToto), MediaType: inToto,
			Annotations: map[string]string{predicateType: kind}})
		return nil
	}
	if s.engine.config.SBOM {
		packages, unread, err := s.packages()
		if err != nil {
			return nil, fmt.Errorf("SBOM: %w", err)
		}
		s.log.note("SBOM: %s", plural(len(packages), "package"))
		if err := put(sbom.PredicateType, sbom.Describe(sbom.Image{Name: to.Name(),
			Digest: digest.String(), Created: s.plan.epoch, Unread: unread},
			packages)); err != nil {
			return nil, err
		}
	}
	if s.engine.config.Provenance {
		if err := put(slsa, s.provenance(r)); err != nil {
			return nil, err
		}
	}
	manifest, err := mutate.Append(mutate.ConfigMediaType(mutate.MediaType(empty.Image,
		types.OCIManifestSchema1), types.OCIConfigJSON), add...)
	if err != nil {
		return nil, err
	}
	config, err := manifest.ConfigFile()
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(manifest, &v1.ConfigFile{OS: "unknown", Architecture: "unknown",
		RootFS: config.RootFS})
}

// purl is the package URL of an image for a platform.
func purl(repository string, p v1.Platform) string {
	return "pkg:docker/" + strings.ReplaceAll(url.PathEscape(repository), "%2F", "/") +
		"?platform=" + url.QueryEscape(p.String())
}

func (s *stage) provenance(r builder.Request) provenance {
	var p provenance
	sum := sha256.Sum256(r.Dockerfile)
	request := map[string]any{"frontend": "dockerfile.v0", "platform": s.platform.String()}
	if id := r.Labels[builder.LabelTemplate]; id != "" {
		request["template"] = id
	}
	p.BuildDefinition.BuildType = buildType
	p.BuildDefinition.ExternalParameters = map[string]any{
		"configSource": map[string]any{"path": "Dockerfile",
			"digest": map[string]string{"sha256": hex.EncodeToString(sum[:])}},
		"request": request,
	}
	for _, image := range slices.Sorted(maps.Keys(s.used)) {
		h := s.used[image]
		p.BuildDefinition.Dependencies = append(p.BuildDefinition.Dependencies, dependency{
			URI: purl(image, s.platform), Digest: map[string]string{h.Algorithm: h.Hex}})
	}
	p.RunDetails.Builder.ID = builderID
	return p
}

// maxScanned bounds a file that cannot be read at any place and is read whole for the SBOM, in
// bytes.
const maxScanned = 64 << 20

// packages returns the packages in the image, and the files with packages that were not read.
func (s *stage) packages() (found []sbom.Package, unread []string, err error) {
	var distribution string
	for _, file := range []string{sbom.OSRelease, "usr/lib/os-release"} {
		text, err := s.readFile(file)
		if err != nil {
			return nil, nil, err
		}
		if distribution = sbom.Distribution(text); distribution != "" {
			break
		}
	}
	known := s.engine.baseScan(s.baseName)
	if known == nil {
		known = map[string]scanned{}
	}
	for _, file := range slices.Sorted(maps.Keys(s.tree)) {
		n := s.tree[file]
		if s.ctx.Err() != nil {
			return nil, nil, context.Cause(s.ctx)
		}
		if n.kind != isFile || n.device {
			continue
		}
		if n.size > 0 && sbom.Unread(file) {
			unread = append(unread, file)
			continue
		}
		if !sbom.Wanted(file, n.mode&0o111 != 0) {
			continue
		}
		scan, ok := known[file]
		if n.made != nil || !ok {
			if scan.packages, scan.failed, err = s.scan(file, distribution, n); err != nil {
				return nil, nil, err
			}
			if n.made == nil {
				known[file] = scan
			}
		}
		found = append(found, scan.packages...)
		if scan.failed != nil {
			s.log.note("SBOM: %v", scan.failed)
			unread = append(unread, file)
		}
	}
	s.engine.keepScan(s.baseName, known)
	return sbom.Sort(found), unread, nil
}

// scanned are the packages that a file of a base image names, or why they cannot be read.
type scanned struct {
	packages []sbom.Package
	failed   error
}

// scan reads one file. failed is a fault of its content.
func (s *stage) scan(file, distribution string, n node) (found []sbom.Package, failed, err error) {
	r, err := s.open(n)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	at, ok := r.(io.ReaderAt)
	if !ok {
		if n.size > maxScanned {
			return nil, fmt.Errorf("/%s has %d bytes, %d at most are read", file, n.size,
				maxScanned), nil
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, nil, err
		}
		at = bytes.NewReader(content)
	}
	found, failed = sbom.Read(file, distribution, at, n.size)
	if errors.Is(failed, io.ErrUnexpectedEOF) && len(found) == 0 && n.size == 0 {
		return nil, nil, nil // an empty file names nothing
	}
	return found, failed, nil
}

// baseScan returns a copy of the known files of a base image, by path.
func (e *Engine) baseScan(base string) map[string]scanned {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.scans[base])
}

// keepScan remembers the packages that the files of a base image name.
func (e *Engine) keepScan(base string, files map[string]scanned) {
	if base == "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.scans) >= maxBases {
		clear(e.scans)
	}
	if e.scans == nil {
		e.scans = map[string]map[string]scanned{}
	}
	e.scans[base] = files
}
