//go:build linux

package entry

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	// clockGrain is how far the time of a file may lie before that of the clock, which is finer.
	clockGrain = 20 * time.Millisecond
	// firstPause and longestPause are the times between two looks for a PID file that is not there
	// yet; they double.
	firstPause, longestPause = 20 * time.Millisecond, time.Second
	// maxPIDFile is as much of a PID file as is looked at.
	maxPIDFile = 64
)

// readPID returns the number in the first line of a file that has been written since a time, or 0.
// PostgreSQL has more lines in its file, and HAProxy may have a process in each. A pipe is not
// waited for. A file from before, as on a volume, names a process of an earlier container, whose
// number may be another process's by now.
func readPID(name string, since time.Time) int {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.ModTime().Before(since.Add(-clockGrain)) {
		return 0
	}
	text := make([]byte, maxPIDFile)
	n, _ := f.Read(text)
	line, _, _ := bytes.Cut(bytes.TrimSpace(text[:n]), []byte("\n"))
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
	if err != nil || pid <= 1 || pid == os.Getpid() {
		return 0
	}
	return pid
}

// named returns the process that the PID file names, or 0.
func (r *running) named() int { return readPID(r.PIDFile, r.begun) }

// awaitsPIDFile reports whether the service is the process of the PID file and is not known yet.
func (r *running) awaitsPIDFile() bool {
	return r.OnMainExit == Wait && r.PIDFile != "" && !r.adopted && !r.early
}

// adopt makes the process of the PID file the main one, once the file names a process that runs.
func (r *running) adopt() {
	r.pidFile = nil
	if pid := r.named(); pid != 0 && syscall.Kill(pid, 0) == nil {
		r.main, r.ended, r.waits, r.adopted, r.shell = pid, false, false, true, false
		return
	}
	r.pause = min(max(2*r.pause, firstPause), longestPause)
	r.pidFile = time.After(r.pause)
}

// follow makes another process the main one when the adopted one has ended and has left the PID
// file to it, as Nginx does when its binary is replaced. It reports whether there is one.
func (r *running) follow(ended int) bool {
	pid := r.named()
	if pid == 0 || pid == ended || syscall.Kill(pid, 0) != nil {
		return false
	}
	r.main = pid
	return true
}

// serviceEnded notes the end of the process of the PID file that has ended before it was adopted.
func (r *running) serviceEnded(e end) {
	r.report.Code, r.early, r.pidFile = exitCode(e.status), true, nil
	if r.ended {
		r.waits = false
		r.startGrace()
		r.outside = time.After(scanDelay)
	}
}
