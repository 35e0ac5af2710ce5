package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"
)

// Host is the production host name that the testers use.
const Host = "bj.city.example"

// Config is the configuration of Run.
type Config struct {
	// Server is the base URL of the example server, such as http://127.0.0.1:8800.
	Server string
	// Examples is the directory of the examples module: the sample service is built from it.
	Examples string
	// Out receives the story.
	Out io.Writer
	// Between, if set, is called after each part but the last, with its number from 1. The
	// end-to-end test kills the server there.
	Between func(part int) error
}

// Result counts.
type Result struct {
	Steps, Failed int
}

// teller is the state that the parts of the story share.
type teller struct {
	Config
	report
	api     client
	work    string // compiled binaries
	plain   netip.AddrPort
	digests map[string]string // by "cluster version"
	vips    map[string]netip.AddrPort
}

// Run runs the whole story. Its error means that the story could not go on; a step with an
// unexpected result is counted in Result.Failed.
func Run(ctx context.Context, config Config) (Result, error) {
	work, err := os.MkdirTemp("", "sluice-story-*")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(work)
	t := &teller{
		Config: config, report: report{out: config.Out},
		api: client{base: config.Server + "/api/v1"}, work: work,
		digests: map[string]string{}, vips: map[string]netip.AddrPort{},
	}
	parts := []struct {
		title string
		tell  func(context.Context) error
	}{
		{"The baseline: v1 of both clusters, by way of every environment", t.baseline},
		{"Two versions of hello_web side by side, each on a VIP of its own", t.sideBySide},
		{"An instance moves to another port: no reload", t.restart},
		{"One digest through all four environments", t.promotion},
		{"What is refused", t.refusals},
		{"The end of a task", t.finish},
	}
	for n, part := range parts {
		t.part(part.title)
		if err = part.tell(ctx); err != nil {
			break
		}
		if t.Between != nil && n < len(parts)-1 {
			if err = t.Between(n + 1); err != nil {
				break
			}
		}
	}
	if err != nil {
		t.failed++
		fmt.Fprintf(t.out, "\nthe story cannot go on: %v\n", err)
	}
	fmt.Fprintf(t.out, "\ndemo: %d steps, %d failed\n", t.steps, t.failed)
	return Result{t.steps, t.failed}, err
}

// WaitReady waits until the server works.
func WaitReady(ctx context.Context, server string) error {
	api := client{base: server + "/api/v1"}
	for {
		var health struct{ Ready bool }
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := api.call(asking, "GET", "/health", nil, &health)
		cancel()
		if err == nil && health.Ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the server at %s is not ready: %w", server,
				context.Cause(ctx)), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
