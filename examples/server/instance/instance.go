package instance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-deploy/sluice/internal/atomicfile"
	"github.com/sluice-deploy/sluice/internal/names"
)

// ErrNotFound is returned by Stop and End for an id that is not there.
var ErrNotFound = errors.New("no such instance")

// Spec describes an instance to run.
type Spec struct {
	// ID names the instance and its directory: see names.Instance.
	ID string `json:"id"`
	// Image is a reference by digest, "host/repository@sha256:…".
	Image string `json:"image"`
	// Env is added to the image's own environment, NAME=value. PORT is added by the Runtime.
	Env []string `json:"env,omitempty"`
	// Labels are the embedder's own words about the instance; the Runtime only keeps them.
	Labels map[string]string `json:"labels,omitempty"`
}

// Instance is a Spec that runs, or is about to run again.
type Instance struct {
	Spec
	// where it listens
	Addr netip.AddrPort `json:"addr"`
	// of its first process, as this machine sees it
	PID int `json:"pid"`
	// the start time of PID in clock ticks after boot: pids are used again
	Ticks uint64 `json:"ticks"`
	// of the process
	Started time.Time `json:"started"`
	// how often it was started again after it had ended while a Runtime watched it
	Restarts int `json:"restarts"`
}

func (s Spec) validate() error {
	if err := names.Instance(s.ID); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	return nil
}

const recordFile = "instance.json"

func (i Instance) save(dir string) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, recordFile), append(data, '\n'), 0o644)
}

func load(dir string) (Instance, error) {
	var i Instance
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return i, err
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return i, fmt.Errorf("%s: %w", filepath.Join(dir, recordFile), err)
	}
	return i, nil
}
