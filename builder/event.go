package builder

import (
	"fmt"
	"io"
)

// EventKind says what happened in a build.
type EventKind string

// The kinds of events, in the order in which a build has them.
const (
	EventStep   EventKind = "step"   // an instruction begins; Step, Steps, Line and Text are set, Text is the instruction
	EventDetail EventKind = "detail" // something to know about the step before it
	EventLayer  EventKind = "layer"  // the step before it made a layer; Bytes is its uncompressed content
	EventPush   EventKind = "push"   // the image is in the registry; Bytes were sent
	EventTag    EventKind = "tag"    // the tag names the image
	EventDone   EventKind = "done"   // Text has the digest
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
