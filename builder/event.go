package builder

import (
	"fmt"
	"io"
)

// EventKind is the kind of an event of a build.
type EventKind string

// The kinds of events, in the order in which a build has them.
const (
	// an instruction begins; Step, Steps, Line and Text are set, Text is the instruction
	EventStep EventKind = "step"
	// something to know about the step before it
	EventDetail EventKind = "detail"
	// the step before it made a layer; Bytes is its uncompressed content
	EventLayer EventKind = "layer"
	// the image is in the registry; Bytes were sent
	EventPush EventKind = "push"
	// the tag names the image
	EventTag EventKind = "tag"
	// Text has the digest
	EventDone EventKind = "done"
)

// Event is one thing that happened in a build.
type Event struct {
	Kind EventKind `json:"kind"`
	// Step of Steps, counted from 1.
	Step  int `json:"step,omitempty"`
	Steps int `json:"steps,omitempty"`
	// Line is the instruction's line in the Dockerfile, and so in the template.
	Line int `json:"line,omitempty"`
	// Text is for a person, one line. It never holds the value of a build argument.
	Text  string `json:"text"`
	Bytes int64  `json:"bytes,omitempty"`
}

// String is the event's line in a log.
func (e Event) String() string {
	switch e.Kind {
	case EventStep:
		return fmt.Sprintf("[%d/%d] %s", e.Step, e.Steps, e.Text)
	case EventDetail, EventLayer:
		return "      " + e.Text
	}
	return e.Text
}

// Emit gives e to Request.Events and its line to Request.Log. It is for engines.
func (r *Request) Emit(e Event) {
	if r.Events != nil {
		r.Events(e)
	}
	if r.Log != nil {
		io.WriteString(r.Log, e.String()+"\n")
	}
}
