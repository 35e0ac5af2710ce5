package assemble_test

import (
	"encoding/json"
	"testing"
	"testing/fstest"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// inTotoStatement has the fields of an attestation that the tests read.
type inTotoStatement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	Predicate json.RawMessage `json:"predicate"`
}

// attestations reads the statements about an image of an index, by the type of their predicates, as
// BuildKit's description of the form says.
func attestations(t *testing.T, index v1.ImageIndex, of v1.Hash) map[string]inTotoStatement {
	t.Helper()
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	found := map[string]inTotoStatement{}
	for _, d := range manifest.Manifests {
		if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" ||
			d.Annotations["vnd.docker.reference.digest"] != of.String() {
			continue
		}
		require.Equal(t, "unknown/unknown", d.Platform.String())
		require.Equal(t, types.OCIManifestSchema1, d.MediaType)
		img, err := index.Image(d.Digest)
		require.NoError(t, err)
		statements, err := img.Manifest()
		require.NoError(t, err)
		layers, err := img.Layers()
		require.NoError(t, err)
		config, err := img.ConfigFile()
		require.NoError(t, err)
		require.Len(t, config.RootFS.DiffIDs, len(layers))
		for i, l := range statements.Layers {
			require.EqualValues(t, "application/vnd.in-toto+json", l.MediaType)
			r, err := layers[i].Compressed()
			require.NoError(t, err)
			var s inTotoStatement
			require.NoError(t, json.NewDecoder(r).Decode(&s))
			require.NoError(t, r.Close())
			require.Equal(t, s.PredicateType, l.Annotations["in-toto.io/predicate-type"])
			require.Equal(t, map[string]string{"sha256": of.Hex}, s.Subject[0].Digest)
			found[s.PredicateType] = s
		}
	}
	return found
}

const dpkgStatus = `Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10

Package: gone
Status: deinstall ok config-files
Version: 1
`

// An image with attestations is an index: the packages of the base and of the application, and the
// images that it was built of.
func TestAttestations(t *testing.T) {
	t.Parallel()
	host := serve(t)
	made, err := newEngine(t, assemble.Config{}).Build(t.Context(), builder.Request{
		Dockerfile: []byte("FROM scratch\nCOPY . /\n"), Repository: host + "/base",
		Context: fstest.MapFS{"etc/os-release": {Data: []byte("NAME=x\nID=debian\n")},
			"var/lib/dpkg/status":      {Data: []byte(dpkgStatus)},
			"var/lib/rpm/rpmdb.sqlite": {Data: []byte("x")}}})
	require.NoError(t, err)
	base := made.Reference
	request := builder.Request{
		Dockerfile: []byte("FROM " + base + "\nARG TOKEN\nCOPY app /app\n"), Tag: "v1",
		Repository: host + "/app", Args: map[string]string{"TOKEN": "s3cret"},
		Labels: map[string]string{builder.LabelTemplate: "node@1"},
		Context: fstest.MapFS{
			"app/package-lock.json": {Data: []byte(`{"packages": {"": {},
				"node_modules/@scope/a": {"version": "1.2.3", "license": "MIT"},
				"node_modules/only-dev": {"version": "1.0.0", "dev": true}}}`)},
			"app/bad/package-lock.json": {Data: []byte("{")},
		},
	}
	engine := newEngine(t, assemble.Config{SBOM: true, Provenance: true})
	result, err := engine.Build(t.Context(), request)
	require.NoError(t, err)
	index, manifest := pullIndex(t, host+"/app:v1")
	digest, err := index.Digest()
	require.NoError(t, err)
	require.Equal(t, digest.String(), result.Digest)
	require.Len(t, manifest.Manifests, 2)
	require.Equal(t, manifest.Manifests[0].Digest.String(), result.Images[0].Digest)
	require.Equal(t, manifest.Manifests[1].Digest.String(), result.Images[0].Attestation)

	found := attestations(t, index, manifest.Manifests[0].Digest)
	require.Len(t, found, 2)
	var spdx struct {
		SPDXVersion string
		Comment     string
		Packages    []struct {
			Name, VersionInfo, LicenseDeclared string
			ExternalRefs                       []struct{ ReferenceLocator string }
		}
	}
	require.NoError(t, json.Unmarshal(found["https://spdx.dev/Document"].Predicate, &spdx))
	require.Equal(t, "SPDX-2.3", spdx.SPDXVersion)
	require.Contains(t, spdx.Comment, "/var/lib/rpm/rpmdb.sqlite")
	require.Contains(t, spdx.Comment, "/app/bad/package-lock.json")
	var purls []string
	for _, p := range spdx.Packages[1:] {
		purls = append(purls, p.ExternalRefs[0].ReferenceLocator)
	}
	require.Equal(t, []string{"pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64",
		"pkg:npm/%40scope/a@1.2.3"}, purls)
	require.Equal(t, "MIT", spdx.Packages[2].LicenseDeclared)

	var provenance struct {
		BuildDefinition struct {
			ExternalParameters   map[string]map[string]any
			ResolvedDependencies []struct{ Digest map[string]string }
		}
	}
	raw := found["https://slsa.dev/provenance/v1"].Predicate
	require.NoError(t, json.Unmarshal(raw, &provenance))
	require.NotContains(t, string(raw), "s3cret")
	require.Equal(t, "node@1", provenance.BuildDefinition.ExternalParameters["request"]["template"])
	require.Equal(t, base[len(base)-64:],
		provenance.BuildDefinition.ResolvedDependencies[0].Digest["sha256"])

	// the engine remembers the packages of the base
	again, err := engine.Build(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, result.Digest, again.Digest)
	fresh, err := newEngine(t, assemble.Config{SBOM: true, Provenance: true,
		TempDir: t.TempDir()}).Build(t.Context(), request)
	require.NoError(t, err)
	require.Equal(t, result.Digest, fresh.Digest)
}
