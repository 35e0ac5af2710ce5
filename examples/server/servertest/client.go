package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/story"
)

// Do sends a request below /api/v1 and returns the answer, whose body is read and closed by then.
func (s *Server) Do(t testing.TB, method, path string, body io.Reader) (*http.Response, []byte) {
	t.Helper()
	return s.DoWith(t, http.Header{}, method, path, body)
}

// DoWith is Do with a header.
func (s *Server) DoWith(t testing.TB, header http.Header, method, path string,
	body io.Reader) (*http.Response, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/api/v1"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header = header.Clone()
	if s.Token != "" {
		request.Header.Set("Authorization", "Bearer "+s.Token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response, data
}

// Call sends in as JSON unless it is nil, and decodes the answer into out unless that is nil. Any
// status but 2xx ends the test.
func (s *Server) Call(t testing.TB, method, path string, in, out any) {
	t.Helper()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(data)
	}
	response, data := s.Do(t, method, path, body)
	if response.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s", method, path, response.Status, data)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(data, out); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, data)
	}
}

// directory is where the sample service keeps the configuration of a cluster.
var directory = map[string]string{"hello_web": "web", "greet_api": "api"}

// Upload uploads the files that a build of the sample service as this version needs, under the name
// CLUSTER-VERSION, which it returns. The cluster is hello_web or greet_api. The environments in
// without get no configuration.
func (s *Server) Upload(t testing.TB, cluster, version string, without ...string) (source string) {
	t.Helper()
	archive, err := story.Pack(compiled(t, version), filepath.Join(Examples(), "hello",
		directory[cluster], "envs"), without...)
	if err != nil {
		t.Fatal(err)
	}
	source = cluster + "-" + version
	if response, data := s.Do(t, http.MethodPut, "/sources/"+source,
		archive); response.StatusCode != http.StatusOK {
		t.Fatalf("upload %s: %s: %s", source, response.Status, data)
	}
	return source
}

// MustBuild uploads as Upload does, builds, and waits for the image.
func (s *Server) MustBuild(t testing.TB, cluster, version string,
	without ...string) platform.Build {
	t.Helper()
	build, err := s.Platform.SubmitBuild(t.Context(), platform.BuildRequest{
		Cluster: cluster, Version: version, Template: "go-static", Source: s.Upload(t, cluster,
			version, without...), Actor: "ann",
	})
	if err == nil {
		build, err = s.Ended(t.Context(), build.ID)
	}
	if err == nil && build.State != platform.BuildSucceeded {
		err = fmt.Errorf("%s: %s", build.State, build.Error)
	}
	if err != nil {
		t.Fatalf("build %s %s: %v", cluster, version, err)
	}
	return build
}

// Ended waits for the end of a build.
func (s *Server) Ended(ctx context.Context, id string) (platform.Build, error) {
	for seen := uint64(0); ; {
		build, err := s.Platform.Build(ctx, id)
		if err != nil || build.State.Ended() {
			return build, err
		}
		if seen, err = s.Platform.Events.Wait(ctx, seen); err != nil {
			return build, err
		}
	}
}

// MustPromote deploys the version to the environments, in the order given.
func (s *Server) MustPromote(t testing.TB, cluster, version string, environments ...string) {
	t.Helper()
	for _, environment := range environments {
		_, err := s.Platform.Promote(t.Context(), platform.PromotionRequest{Cluster: cluster,
			Version: version, Environment: environment, Expect: "any", Actor: "ann"})
		if err != nil {
			t.Fatalf("promote %s %s to %s: %v", cluster, version, environment, err)
		}
	}
}
