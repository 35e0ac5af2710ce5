package assemble

import (
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/sluice-deploy/sluice/builder"
)

// typed returns err, as a [builder.Failure] where a registry or the network to it is the cause.
func typed(err error) error {
	f := builder.Failure{Message: err.Error(), Err: err}
	var at *builder.DockerfileError // the line of a FROM, of a base image
	if errors.As(err, &at) {
		f.Line, f.Instruction = at.Line, at.Instruction
	}
	var answer *transport.Error
	var away *net.OpError
	switch {
	case errors.As(err, &answer):
		f.Evidence = []string{fmt.Sprintf("the registry answered with status %d",
			answer.StatusCode)}
		f.Reason, f.Hint, f.Retryable = ofStatus(answer.StatusCode)
	case errors.As(err, &away):
		f.Reason, f.Retryable = builder.ReasonRegistryAway, true
		f.Hint = "look whether the registry runs and can be reached"
	default:
		return err
	}
	return &f
}

func ofStatus(status int) (reason builder.Reason, hint string, retryable bool) {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return builder.ReasonRegistryDenied, "look at the credentials and their right to push",
			false
	case status == http.StatusNotFound:
		return builder.ReasonRegistryNotFound, "look at the name of the image", false
	case status == http.StatusTooManyRequests:
		return builder.ReasonRegistryLimit, "try again later", true
	case status >= http.StatusInternalServerError || status == http.StatusRequestTimeout:
		return builder.ReasonRegistryAway, "try again; look at the log of the registry", true
	}
	return builder.ReasonRegistryRefused, "look at the rules of the registry", false
}
