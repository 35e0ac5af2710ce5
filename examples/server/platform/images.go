package platform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/promote"
)

// ownRegistry stands in the journal for the registry that Config.Registry names, wherever that is
// today. The name never resolves (RFC 2606).
const ownRegistry = "registry.invalid"

// stored is the repository of a cluster as the journal keeps it.
func stored(cluster string) string { return ownRegistry + "/" + cluster }

// repository is where the images of a cluster are today.
func (p *Platform) repository(cluster string) string { return p.config.Registry + "/" + cluster }

// Registry is host:port of the registry, as clients on this machine reach it.
func (p *Platform) Registry() string { return p.config.Registry }

// located returns where a repository of the journal is today. Every image is in the registry of
// this platform: a host that the journal of an earlier version has is where that was then.
func (p *Platform) located(repository string) string {
	if _, rest, found := strings.Cut(repository, "/"); found {
		repository = rest
	}
	return p.repository(repository)
}

// configs reads the configuration of images where they are today.
type configs struct {
	promote.ConfigSource
	p *Platform
}

// Configuration implements promote.ConfigSource.
func (c configs) Configuration(ctx context.Context, repository string,
	d promote.Digest) (promote.Configuration, error) {
	return c.ConfigSource.Configuration(ctx, c.p.located(repository), d)
}

// Used returns why an image of the registry must stay, or "": it is in use (see Uses), or a version
// is bound to it, or to an index that it is in. It is registry.Config.Used. An error means that
// nothing may be removed.
func (p *Platform) Used(ctx context.Context, repository, digest string) (reason string, err error) {
	uses, err := p.promoter.InUse(ctx)
	if err != nil {
		return "", err
	}
	for _, u := range uses {
		if u.Digest.String() == digest && p.located(u.Repository) == p.repository(repository) {
			return u.String(), nil
		}
	}
	bindings, err := p.promoter.Bindings(ctx, "")
	if err != nil {
		return "", err
	}
	bindings = slices.DeleteFunc(bindings, func(b promote.Binding) bool {
		return p.located(b.Repository) != p.repository(repository)
	})
	for _, b := range bindings {
		if b.Digest.String() == digest {
			return fmt.Sprintf("version %s of %s is this image", b.Version, b.Cluster), nil
		}
	}
	seen := map[string]bool{}
	for _, b := range bindings {
		switch inside, err := p.inside(ctx, b.Digest.String(), digest, repository, seen); {
		case err != nil:
			return "", err
		case inside:
			return fmt.Sprintf("version %s of %s is an index with this image", b.Version,
				b.Cluster), nil
		}
	}
	return "", nil
}

// inside reports whether the manifest at digest is an index that leads to the wanted one. It looks
// at each of seen once; a manifest that is not there leads nowhere.
func (p *Platform) inside(ctx context.Context, digest, wanted, repository string,
	seen map[string]bool) (bool, error) {
	if seen[digest] {
		return false, nil
	}
	seen[digest] = true
	ref, err := name.NewDigest(p.repository(repository)+"@"+digest, name.Insecure)
	if err != nil {
		return false, err
	}
	found, err := remote.Get(ref, remote.WithContext(ctx))
	if answer, ok := errors.AsType[*transport.Error](err); ok &&
		answer.StatusCode == http.StatusNotFound {
		return false, nil
	}
	if err != nil || !found.MediaType.IsIndex() {
		return false, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(found.Manifest))
	if err != nil {
		return false, err
	}
	for _, child := range index.Manifests {
		if child.Digest.String() == wanted {
			return true, nil
		}
		if child.MediaType.IsIndex() {
			if deeper, err := p.inside(ctx, child.Digest.String(), wanted, repository,
				seen); deeper || err != nil {
				return deeper, err
			}
		}
	}
	return false, nil
}

// VersionRequest asks for a name of an image that a client has pushed to the repository of the
// cluster.
type VersionRequest struct {
	Cluster string `json:"cluster"`
	Version string `json:"version"`
	// of the image; empty for the one that the tag of the version's name has now
	Digest string `json:"digest,omitempty"`
	Actor  string `json:"actor"`
}

// BindVersion gives an image of the registry the name of a version, whichever client has pushed it.
// The image must be there, be for this machine's platform, and have an ENTRYPOINT or a CMD. The
// same request again changes nothing.
func (p *Platform) BindVersion(ctx context.Context, request VersionRequest) (Version, error) {
	err := checkNames(names.Cluster(request.Cluster), names.Version(request.Version),
		checkActor(request.Actor))
	if err != nil {
		return Version{}, err
	}
	if request.Digest != "" {
		if _, err := promote.ParseDigest(request.Digest); err != nil {
			return Version{}, invalid("%v", err)
		}
	}
	end, err := p.begin(ctx)
	if err != nil {
		return Version{}, err
	}
	defer end()
	digest, err := p.pushed(ctx, request)
	if err != nil {
		return Version{}, err
	}
	err = p.promoter.Bind(ctx, promote.Binding{
		Cluster: request.Cluster, Version: request.Version, Digest: digest,
		Repository: stored(request.Cluster), Actor: request.Actor,
	})
	if err != nil {
		return Version{}, err
	}
	versions, err := p.Versions(ctx, request.Cluster)
	for _, v := range versions {
		if v.Version == request.Version {
			return v, nil
		}
	}
	return Version{}, err
}

// pushed returns the digest of the image that the request is about when an instance can run it.
func (p *Platform) pushed(ctx context.Context, request VersionRequest) (promote.Digest, error) {
	at := p.repository(request.Cluster) + ":" + request.Version
	if request.Digest != "" {
		at = p.repository(request.Cluster) + "@" + request.Digest
	}
	ref, err := name.ParseReference(at, name.Insecure)
	if err != nil {
		return "", invalid("image: %v", err)
	}
	found, err := remote.Get(ref, remote.WithContext(ctx),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	if answer, ok := errors.AsType[*transport.Error](err); ok &&
		answer.StatusCode == http.StatusNotFound {
		return "", fmt.Errorf("image %s: push it first: %w", at, ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("image %s: %w", at, err)
	}
	image, err := found.Image()
	if err != nil {
		return "", invalid("image %s: want an image, or an index with one, for linux/%s: %v", at,
			runtime.GOARCH, err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		return "", invalid("image %s: %v", at, err)
	}
	switch {
	case config.OS != "linux" || config.Architecture != runtime.GOARCH:
		return "", invalid("image %s is for %s: want one for linux/%s", at,
			path.Join(config.OS, config.Architecture), runtime.GOARCH)
	case len(config.Config.Entrypoint)+len(config.Config.Cmd) == 0:
		return "", invalid("image %s has neither ENTRYPOINT nor CMD: nothing of it would run", at)
	}
	return promote.ParseDigest(found.Digest.String())
}

// untagged returns an error when the tag of the version's name, which is not bound, names another
// image than the one that was built.
func (p *Platform) untagged(ctx context.Context, build Build, digest promote.Digest) error {
	if bound, err := p.bound(ctx, build); err != nil || bound != "" {
		return err // the tag is a label beside the binding
	}
	tag, err := p.tag(build)
	if err != nil {
		return err
	}
	there, err := remote.Head(tag, remote.WithContext(ctx))
	if answer, ok := errors.AsType[*transport.Error](err); ok &&
		answer.StatusCode == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up tag %s: %w", tag, err)
	}
	if there.Digest.String() != digest.String() {
		return &builder.TagExistsError{Reference: tag.String(), Existing: there.Digest.String(),
			Built: digest.String()}
	}
	return nil
}

// bound is the digest that the version of the build has, or "".
func (p *Platform) bound(ctx context.Context, build Build) (promote.Digest, error) {
	bindings, err := p.promoter.Bindings(ctx, build.Cluster)
	for _, b := range bindings {
		if b.Version == build.Version {
			return b.Digest, nil
		}
	}
	return "", err
}

func (p *Platform) tag(build Build) (name.Tag, error) {
	return name.NewTag(p.repository(build.Cluster)+":"+build.Version, name.Insecure)
}

// setTag makes the tag of the version's name the image of a bound build: a label for readers of the
// registry.
func (p *Platform) setTag(ctx context.Context, build Build, digest promote.Digest) error {
	tag, err := p.tag(build)
	if err != nil {
		return err
	}
	options := remote.WithContext(ctx)
	found, err := remote.Get(tag.Context().Digest(digest.String()), options)
	if err == nil {
		err = remote.Tag(tag, found, options)
	}
	if err != nil {
		return fmt.Errorf("tag %s: %w", tag, err)
	}
	return nil
}
