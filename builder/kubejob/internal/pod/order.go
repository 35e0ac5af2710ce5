// Package pod has the formats that a build's pod and its controller share, and the work of the pod:
// it fetches an order and its context from the registry, builds by BuildKit, pushes by digest,
// numbers the lines of its log, and leaves a verdict.
package pod

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/builder"
)

// Media types of an order in a registry: its configuration is the [Order], its layers are tar files
// that make the build context.
const (
	OrderType = "application/vnd.sluice.build.order.v1+json"
	LogType   = "application/vnd.sluice.build.log.v1"
)

// Order has everything that decides on the content of an image besides the files of its context.
type Order struct {
	Repository string            `json:"repository"`
	Dockerfile string            `json:"dockerfile"`
	Args       map[string]string `json:"args,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
}

// Exit codes of the pod.
const (
	ExitUser           = 42 // the request is at fault
	ExitInfrastructure = 75 // another try may help; EX_TEMPFAIL of sysexits.h
)

// Verdict is how a build ended, as the pod knows it. It stands in the last line of the log and in
// the termination message.
type Verdict struct {
	// Digest is the image's; "" when there is none.
	Digest string `json:"digest,omitempty"`
	// Base is the base image by digest; "" for scratch.
	Base string `json:"base,omitempty"`
	// BaseLayers is the number of the base's layers; negative where the registry did not say.
	BaseLayers int              `json:"baseLayers,omitempty"`
	Failure    *builder.Failure `json:"failure,omitempty"`
	Log        Trailer          `json:"log"`
}

// Trailer is the end of a log.
type Trailer struct {
	// Lines and Bytes were written, SHA256 is their sum in hexadecimal digits: of the text of each
	// line without its number, with its line feed.
	Lines  int64  `json:"lines"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// Lost are bytes that were not written because the log was full.
	Lost int64 `json:"lost,omitempty"`
	// Artifact is the log in the registry, repository@digest; "" where it could not be pushed.
	Artifact string `json:"artifact,omitempty"`
}

// maxMessage is how many bytes a termination message may have.
const maxMessage = 4096

// Message returns the verdict as JSON that fits into a termination message: texts are cut.
func (v Verdict) Message() []byte {
	for room := maxMessage; ; room /= 2 {
		if v.Failure != nil {
			f := *v.Failure
			f.Message, f.Instruction = cut(f.Message, room/2), cut(f.Instruction, room/4)
			if len(f.Evidence) > 4 {
				f.Evidence = f.Evidence[:4]
			}
			v.Failure = &f
		}
		data, err := json.Marshal(v)
		if err != nil {
			return nil
		}
		if len(data) <= maxMessage || room < 64 {
			return data
		}
	}
}

func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + " …"
}

const trailerMark = "end "

// Line is a line of a pod's output.
type Line struct {
	// Number is counted from 1; 0 for a line that has none.
	Number int64
	Text   string
	// End is set in the last line.
	End *Verdict
}

// ParseLine reads a line of a pod's output. A line that no build wrote has no number.
func ParseLine(text string) Line {
	if rest, ok := strings.CutPrefix(text, trailerMark); ok {
		var v Verdict
		if err := json.Unmarshal([]byte(rest), &v); err == nil {
			return Line{End: &v}
		}
		return Line{Text: text}
	}
	number, rest, found := strings.Cut(text, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if !found || err != nil || n < 1 {
		return Line{Text: text}
	}
	return Line{Number: n, Text: rest}
}

// ParseVerdict reads a termination message.
func ParseVerdict(message string) (*Verdict, error) {
	var v Verdict
	if err := json.Unmarshal([]byte(message), &v); err != nil {
		return nil, fmt.Errorf("termination message: %w", err)
	}
	return &v, nil
}
