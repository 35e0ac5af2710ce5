package builder

import (
	"context"
	"errors"
	"strings"
)

// Reason is the kind of a [Failure]. docs/builds.md lists the kinds, and for each the person who
// mends it.
type Reason string

// The reasons of failures.
const (
	// the Dockerfile, or the context at one of its instructions, is wrong
	ReasonDockerfile Reason = "dockerfile"
	// another part of the request is wrong
	ReasonRequest Reason = "request"
	// another engine may build it
	ReasonUnsupported Reason = "unsupported"
	// the tag names another image
	ReasonTagExists Reason = "tagExists"
	// a command of the Dockerfile ended with an error
	ReasonCommand Reason = "command"
	// a registry has no such base image or repository (404)
	ReasonRegistryNotFound Reason = "registryNotFound"
	// a registry refuses the credentials, or the right to push (401, 403)
	ReasonRegistryDenied Reason = "registryDenied"
	// a registry asks for fewer requests (429)
	ReasonRegistryLimit Reason = "registryLimit"
	// a registry refuses the content it was sent (another status of 4xx)
	ReasonRegistryRefused Reason = "registryRefused"
	// a registry cannot be reached, or has an error of its own (5xx)
	ReasonRegistryAway Reason = "registryAway"
	// the source has no such module, path, commit, file or artifact
	ReasonSourceNotFound Reason = "sourceNotFound"
	// the source refuses the credentials
	ReasonSourceDenied Reason = "sourceDenied"
	// the source cannot be reached, or has an error of its own
	ReasonSourceAway Reason = "sourceAway"
	// the source has other content than before, or changes while it is fetched
	ReasonSourceChanged Reason = "sourceChanged"
	// the source's content is refused: too large, another sum, a file that no build may have
	ReasonSourceRefused Reason = "sourceRefused"
	// the build took longer than it may
	ReasonDeadline Reason = "deadline"
	// the caller ended the build
	ReasonCancelled Reason = "cancelled"
	// the build needed more memory than it may have
	ReasonMemory Reason = "memory"
	// the build needed more disk than there is, or than it may have
	ReasonDisk Reason = "disk"
	// no machine has room for the build, or a quota is used up
	ReasonNoRoom Reason = "noRoom"
	// a policy of the cluster forbids the build
	ReasonForbidden Reason = "forbidden"
	// the image that the build runs in cannot be pulled
	ReasonBuilderImage Reason = "builderImage"
	// the place that the build runs in cannot be set up: a volume or a secret is missing
	ReasonSetup Reason = "setup"
	// the build had to make place on its machine for others
	ReasonEvicted Reason = "evicted"
	// the machine of the build is gone
	ReasonMachineLost Reason = "machineLost"
	// the build was deleted where it ran, not by its caller
	ReasonDeleted Reason = "deleted"
	// anything else: the machine, the disk
	ReasonInfrastructure Reason = "infrastructure"
)

// Failure says why a build failed, for a program and for a person. As an error it is what went
// wrong, Err, with its text.
type Failure struct {
	Reason Reason `json:"reason"`
	// Line is the instruction's line in the Dockerfile, and so in the template, counted from 1; 0
	// for none.
	Line int `json:"line,omitempty"`
	// Instruction is the instruction as the Dockerfile has it; "" where none is to blame.
	Instruction string `json:"instruction,omitempty"`
	// Params are the template's parameters whose values stand in the instruction: see
	// [Failure.Explained].
	Params []string `json:"params,omitempty"`
	// Message describes the failure; it never holds the value of a secret.
	Message string `json:"message"`
	// Hint says what to do; "" where nothing is known.
	Hint string `json:"hint,omitempty"`
	// Retryable says that the same request may succeed later.
	Retryable bool `json:"retryable,omitempty"`
	// Evidence are facts behind Reason, one a string: a registry's status, an exit code.
	Evidence []string `json:"evidence,omitempty"`
	// Err is the error; nil for a failure that was read from a record.
	Err error `json:"-"`
}

// Error implements error.
func (f *Failure) Error() string {
	if f.Err != nil {
		return f.Err.Error()
	}
	return f.Message
}

// Unwrap returns Err.
func (f *Failure) Unwrap() error { return f.Err }

// Explained returns f with the parameters of the template that stand at f.Line. The instructions
// are those of [Template.Explain] for the values of the build.
func (f Failure) Explained(instructions []Instruction) Failure {
	for _, in := range instructions {
		if f.Line < in.Line || f.Line > in.EndLine {
			continue
		}
		f.Params = nil
		for _, v := range in.Values {
			f.Params = append(f.Params, v.Param)
		}
		if f.Instruction == "" {
			f.Instruction = in.Rendered
		}
	}
	return f
}

// FailureOf returns the [Failure] in err, or one that is made from the errors of this package. An
// error that none of them describes is ReasonInfrastructure, which is worth another try. The
// failure of nil is nil.
func FailureOf(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Message: err.Error(), Err: err}
	var found *Failure
	var at *DockerfileError
	var lacks *UnsupportedError
	switch {
	case errors.As(err, &found):
		*f = *found
		f.Message, f.Err = err.Error(), err
	case errors.Is(err, context.DeadlineExceeded):
		f.Reason, f.Hint = ReasonDeadline, "allow more time, or make the build smaller"
	case errors.Is(err, context.Canceled):
		f.Reason = ReasonCancelled
	case errors.As(err, &at):
		f.Reason, f.Line, f.Instruction = ReasonDockerfile, at.Line, at.Instruction
		f.Hint = "correct the Dockerfile or the files that it names"
	case errors.As(err, &lacks):
		f.Reason, f.Line, f.Instruction, f.Hint = ReasonUnsupported, lacks.Line, lacks.What,
			lacks.Hint
	case errors.Is(err, ErrUnsupported):
		f.Reason, f.Hint = ReasonUnsupported, "use an engine that builds it"
	case errors.Is(err, ErrTagExists):
		f.Reason, f.Hint = ReasonTagExists, "choose another version: a tag is never moved unasked"
	case errors.Is(err, ErrInvalid):
		f.Reason, f.Hint = ReasonRequest, "correct the request"
	default:
		f.Reason, f.Retryable = ReasonInfrastructure, true
		f.Hint = "try again; if it fails again, look at the log of the build"
	}
	f.Message = strings.ToValidUTF8(f.Message, "\uFFFD")
	return f
}
