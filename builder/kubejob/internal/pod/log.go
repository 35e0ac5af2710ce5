package pod

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/sluice-deploy/sluice/builder/internal/redact"
)

// maxLine is the number of bytes after which a line is broken: a container's runtime breaks longer
// ones itself.
const maxLine = 15 << 10

// Log numbers the lines of a build, masks secrets in them, and counts. It is safe for concurrent
// use.
type Log struct {
	Masks redact.Masks

	mu      sync.Mutex
	out     io.Writer
	copy    io.Writer // the lines without numbers
	max     int64
	sum     hash.Hash
	trailer Trailer
}

// NewLog returns a log that goes to out with numbers and to copied without. It has at most limit
// bytes.
func NewLog(out, copied io.Writer, limit int64) *Log {
	return &Log{out: out, copy: copied, max: limit, sum: sha256.New()}
}

// Line writes text, which may have several lines.
func (l *Log) Line(format string, args ...any) {
	l.text([]byte(fmt.Sprintf(format, args...)))
}

func (l *Log) text(text []byte) {
	text = bytes.TrimRight(l.Masks.Clean(text), "\r\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		for len(line) > maxLine {
			l.write(line[:maxLine])
			line = line[maxLine:]
		}
		l.write(line)
	}
}

// write writes one line. Errors of out are ignored: the sum in the trailer shows them.
func (l *Log) write(line []byte) {
	line = bytes.ReplaceAll(line, []byte("\r"), []byte(" "))
	n := int64(len(line)) + 1
	if l.trailer.Lost > 0 || l.trailer.Bytes+n > l.max {
		l.trailer.Lost += n
		return
	}
	l.trailer.Lines++
	l.trailer.Bytes += n
	whole := append(append(make([]byte, 0, n), line...), '\n')
	l.sum.Write(whole)
	l.copy.Write(whole)
	fmt.Fprintf(l.out, "%d %s", l.trailer.Lines, whole)
}

// Trailer is the end of the log if nothing more is written.
func (l *Log) Trailer() Trailer {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trailer
	t.SHA256 = hex.EncodeToString(l.sum.Sum(nil))
	return t
}

// End writes the last line.
func (l *Log) End(v Verdict) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = fmt.Fprintf(l.out, "%s%s\n", trailerMark, data)
	return err
}
