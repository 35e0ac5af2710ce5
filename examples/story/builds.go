package story

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

type build struct {
	ID, State, Error, Digest string
	Size, Uploaded           int64
	Started, Ended           time.Time
}

// directory is where the sample service keeps the configuration of a cluster.
var directory = map[string]string{"hello_web": "web", "greet_api": "api"}

// build compiles the service, uploads it as a source and has the server make an image of it. The
// binary is that of the version linked; without names environments whose configuration is left out.
func (t *teller) build(ctx context.Context, cluster, version, linked string,
	without ...string) (build, error) {
	binary, err := Compile(ctx, t.Examples, linked, t.work)
	if err != nil {
		return build{}, err
	}
	archive, err := Pack(binary, filepath.Join(t.Examples, "hello", directory[cluster], "envs"),
		without...)
	if err != nil {
		return build{}, err
	}
	source := cluster + "-" + version
	if err := t.api.send(ctx, "PUT", "/sources/"+source, archive, nil); err != nil {
		return build{}, err
	}
	var b build
	err = t.api.call(ctx, "POST", "/builds", map[string]any{
		"cluster": cluster, "version": version, "template": "go-static", "source": source,
		"actor": "ann",
	}, &b)
	for err == nil && b.State != "succeeded" && b.State != "failed" {
		select {
		case <-ctx.Done():
			return b, context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
		err = t.api.call(ctx, "GET", "/builds/"+b.ID, nil, &b)
	}
	return b, err
}

// mustBuild is a build that has to succeed for the story to go on.
func (t *teller) mustBuild(ctx context.Context, cluster, version string, without ...string) error {
	b, err := t.build(ctx, cluster, version, version, without...)
	took := b.Ended.Sub(b.Started)
	note := ""
	if len(without) > 0 {
		note = fmt.Sprintf(" (its source lacks the configuration of %s)", without[0])
	}
	t.step(fmt.Sprintf("build %s %s from the template go-static%s", cluster, version, note),
		fmt.Sprintf("%s in %d ms, %d of %d kB uploaded", b.Digest, took.Milliseconds(),
			b.Uploaded/1024, b.Size/1024), err,
		want{"state", b.State + b.Error, "succeeded"})
	if err != nil || b.State != "succeeded" {
		return fmt.Errorf("build of %s %s: %s %w", cluster, version, b.Error, err)
	}
	t.digests[cluster+" "+version] = b.Digest
	return nil
}
