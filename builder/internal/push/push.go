// Package push holds the rules that all engines share about writing to a registry: the conditions
// for a tag, and the meaning of a status.
package push

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sluice-deploy/sluice/builder"
)

// Tags writes tags, one write of a tag at a time. NewTags makes one. It is safe for concurrent use.
type Tags struct {
	slots [16]chan struct{} // held while a tag is looked up and written; by hash of the tag
}

// NewTags returns a Tags.
func NewTags() *Tags {
	t := &Tags{}
	for i := range t.slots {
		t.slots[i] = make(chan struct{}, 1) // one holder
	}
	return t
}

// Write makes a tag name an image. Registries have no conditional write: other callers wait, and
// against other processes the look is as close to the write as it can be; a write between look and
// write is found by reading the tag back. A tag that names another image is a
// [*builder.TagExistsError], unless replace is set.
func (t *Tags) Write(ctx context.Context, tag name.Tag, img remote.Taggable, digest v1.Hash,
	replace bool, options ...remote.Option) error {
	h := fnv.New32a()
	h.Write([]byte(tag.String()))
	slot := t.slots[h.Sum32()%uint32(len(t.slots))]
	select {
	case slot <- struct{}{}:
		defer func() { <-slot }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	there, err := Tagged(tag, digest, replace, options...)
	if err != nil || there {
		return err // a registry with immutable tags may refuse even the same image
	}
	if err := remote.Tag(tag, img, options...); err != nil {
		return fmt.Errorf("tag %s: %w", tag, err)
	}
	return nil
}

// Tagged reports whether the tag names the image already. That it names another is a
// [*builder.TagExistsError] unless replace is set.
func Tagged(tag name.Tag, built v1.Hash, replace bool, options ...remote.Option) (bool, error) {
	existing, err := remote.Head(tag, options...)
	switch {
	case Answered(err, http.StatusNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up tag %s: %w", tag, err)
	case existing.Digest != built && !replace:
		return false, &builder.TagExistsError{Reference: tag.String(),
			Existing: existing.Digest.String(), Built: built.String()}
	}
	return existing.Digest == built, nil
}

// Answered reports whether a registry has answered with the status.
func Answered(err error, status int) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == status
}

// Typed returns err, as a [*builder.Failure] where a registry or the network to it is the cause.
func Typed(err error) error {
	f := builder.Failure{Message: err.Error(), Err: err}
	var at *builder.DockerfileError // the line of a FROM, of a base image
	if errors.As(err, &at) {
		f.Line, f.Instruction = at.Line, at.Instruction
	}
	var answer *transport.Error
	var away *net.OpError
	switch {
	case errors.As(err, &answer):
		OfStatus(&f, answer.StatusCode)
	case errors.As(err, &away):
		Away(&f)
	default:
		return err
	}
	return &f
}

// OfStatus fills in the meaning of a registry's status for a failure.
func OfStatus(f *builder.Failure, status int) {
	f.Evidence = append(f.Evidence, fmt.Sprintf("the registry answered with status %d", status))
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		f.Reason, f.Hint = builder.ReasonRegistryDenied,
			"look at the credentials and their right to push"
	case status == http.StatusNotFound:
		f.Reason, f.Hint = builder.ReasonRegistryNotFound, "look at the name of the image"
	case status == http.StatusTooManyRequests:
		f.Reason, f.Hint, f.Retryable = builder.ReasonRegistryLimit, "try again later", true
	case status >= http.StatusInternalServerError || status == http.StatusRequestTimeout:
		f.Reason, f.Retryable = builder.ReasonRegistryAway, true
		f.Hint = "try again; look at the log of the registry"
	default:
		f.Reason, f.Hint = builder.ReasonRegistryRefused, "look at the rules of the registry"
	}
}

// Away fills in a failure of a registry that cannot be reached.
func Away(f *builder.Failure) {
	f.Reason, f.Retryable = builder.ReasonRegistryAway, true
	f.Hint = "look whether the registry runs and can be reached"
}
