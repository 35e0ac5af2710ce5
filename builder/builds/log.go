package builds

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-deploy/sluice/builder/internal/redact"
)

// maxLine is the number of bytes after which a line without an end is written all the same.
const maxLine = 64 << 10

// logWriter writes the log of a build line by line, without the values of secrets. It takes every
// byte, and counts the bytes that it cannot keep.
type logWriter struct {
	ctx   context.Context
	logs  Logs
	name  string
	max   int64
	masks redact.Masks

	mu     sync.Mutex
	held   []byte // of the line that has not ended
	offset int64
	state  LogState
	opened bool
}

// open finds the end of the log of earlier attempts.
func (w *logWriter) open() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, size, err := w.logs.ReadLog(w.ctx, w.name, 0, 0)
	if err != nil {
		return err
	}
	w.offset, w.opened = size, true
	return nil
}

// mask keeps a value, and its usual encodings, out of the log from now on.
func (w *logWriter) mask(value string) { w.masks.Add(value) }

// masked returns text without the values of secrets.
func (w *logWriter) masked(text string) string { return w.masks.String(text) }

func (w *logWriter) line(text string) { w.Write([]byte(strings.TrimRight(text, "\n") + "\n")) }

// Write implements io.Writer.
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = append(w.held, p...)
	end := bytes.LastIndexByte(w.held, '\n') + 1
	if end == 0 && len(w.held) > maxLine {
		ready, rest := w.masks.Cut(w.held)
		w.held, end = slices.Concat(ready, rest), len(ready)
	}
	if end > 0 {
		w.store(slices.Clone(w.held[:end]))
		w.held = append([]byte(nil), w.held[end:]...)
	}
	return len(p), nil
}

// store appends whole lines to the log.
func (w *logWriter) store(text []byte) {
	text = w.masks.Clean(text)
	switch room := w.max - w.offset; {
	case w.state.Verdict != "":
		w.state.Lost += int64(len(text))
		return
	case room < int64(len(text)):
		w.state.Verdict = Truncated
		w.state.Lost += int64(len(text)) - max(0, room)
		text = text[:max(0, room)]
	}
	if len(text) == 0 {
		return
	}
	if err := w.append(text); err != nil {
		w.state.Verdict = Gap
		w.state.Lost += int64(len(text))
	}
}

// append adds text, and once more when that failed. A first try may have come through although it
// failed: then the log has the length that it was to have.
func (w *logWriter) append(text []byte) error {
	if !w.opened {
		return fmt.Errorf("log %s: was not opened: %w", w.name, ErrConflict)
	}
	err := w.logs.AppendLog(w.ctx, w.name, w.offset, text)
	if err != nil && !errors.Is(err, ErrConflict) {
		_, size, readErr := w.logs.ReadLog(w.ctx, w.name, w.offset, 0)
		switch {
		case readErr == nil && size == w.offset+int64(len(text)):
			err = nil
		case readErr == nil && size == w.offset:
			err = w.logs.AppendLog(w.ctx, w.name, w.offset, text)
		}
	}
	if err == nil {
		w.offset += int64(len(text))
	}
	return err
}

// close writes the line that has not ended and returns the verdict.
func (w *logWriter) close() LogState {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) > 0 {
		w.store(append(w.held, '\n'))
		w.held = nil
	}
	w.state.Bytes = w.offset
	if w.state.Verdict == "" {
		w.state.Verdict = Complete
	}
	return w.state
}
