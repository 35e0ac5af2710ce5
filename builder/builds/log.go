package builds

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

const (
	maxLine = 64 << 10 // bytes after which a line without an end is written all the same
	mask    = "***"
)

// logWriter writes the log of a build line by line, without the values of secrets. It takes every
// byte, and counts the bytes that it cannot keep.
type logWriter struct {
	ctx   context.Context
	logs  Logs
	build string
	max   int64

	mu     sync.Mutex
	masks  []string // longest first
	held   []byte   // of the line that has not ended
	offset int64
	state  LogState
	opened bool
}

// open finds the end of the log of earlier attempts.
func (w *logWriter) open() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, size, err := w.logs.ReadLog(w.ctx, w.build, 0, 0)
	if err != nil {
		return err
	}
	w.offset, w.opened = size, true
	return nil
}

// mask keeps a value, and its usual encodings, out of the log from now on. A value of a few bytes
// would make any text unreadable: values of fewer than 4 bytes stay.
func (w *logWriter) mask(value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range append([]string{value, strings.TrimSpace(value)},
		strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' })...) {
		if len(v) < 4 {
			continue
		}
		w.masks = append(w.masks, v, url.QueryEscape(v), url.PathEscape(v),
			hex.EncodeToString([]byte(v)))
		// base64 of the value at each of the three places it can have in a longer text, without
		// the characters that depend on its neighbours
		for lead := range 3 {
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				text := e.EncodeToString(append(make([]byte, lead), v...))
				first, last := []int{0, 2, 3}[lead], (lead+len(v))/3*4
				if last-first >= 4 {
					w.masks = append(w.masks, text[first:min(last, len(text))])
				}
			}
		}
	}
	slices.SortFunc(w.masks, func(a, b string) int { return len(b) - len(a) })
	w.masks = slices.Compact(w.masks)
}

// masked returns text without the values of secrets.
func (w *logWriter) masked(text string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.clean([]byte(text)))
}

func (w *logWriter) clean(text []byte) []byte {
	for _, m := range w.masks {
		text = bytes.ReplaceAll(text, []byte(m), []byte(mask))
	}
	return text
}

func (w *logWriter) line(text string) { w.Write([]byte(strings.TrimRight(text, "\n") + "\n")) }

// Write implements io.Writer.
func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = append(w.held, p...)
	end := bytes.LastIndexByte(w.held, '\n') + 1
	if end == 0 && len(w.held) > maxLine {
		end = len(w.held) - w.longest() // a value may have begun that has not ended
	}
	if end > 0 {
		w.store(slices.Clone(w.held[:end]))
		w.held = append([]byte(nil), w.held[end:]...)
	}
	return len(p), nil
}

// longest is the length of the longest value that is masked.
func (w *logWriter) longest() int {
	if len(w.masks) == 0 {
		return 0
	}
	return min(len(w.masks[0]), maxLine)
}

// store appends whole lines to the log.
func (w *logWriter) store(text []byte) {
	text = w.clean(text)
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
		return fmt.Errorf("log of build %s: was not opened: %w", w.build, ErrConflict)
	}
	err := w.logs.AppendLog(w.ctx, w.build, w.offset, text)
	if err != nil && !errors.Is(err, ErrConflict) {
		_, size, readErr := w.logs.ReadLog(w.ctx, w.build, w.offset, 0)
		switch {
		case readErr == nil && size == w.offset+int64(len(text)):
			err = nil
		case readErr == nil && size == w.offset:
			err = w.logs.AppendLog(w.ctx, w.build, w.offset, text)
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
