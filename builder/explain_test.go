package builder_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-deploy/sluice/builder"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	tmpl, err := builder.Default().Template("tomcat@1")
	if err != nil {
		t.Fatal(err)
	}
	values := tmpl.Examples()
	delete(values, "PACKAGES")
	delete(values, "HOME_DIR")
	list, err := tmpl.Explain(values)
	if err != nil {
		t.Fatal(err)
	}
	var reruns []string
	for _, in := range list {
		if in.Reruns {
			reruns = append(reruns, in.Keyword)
		}
	}
	again := []string{"RUN", "COPY", "COPY", "USER", "HEALTHCHECK", "ENTRYPOINT"}
	if diff := cmp.Diff(again, reruns); diff != "" {
		t.Errorf("what a new CACHE runs again (-want +got):\n%s", diff)
	}
	want := builder.Instruction{
		Line: 14, EndLine: 14, Keyword: "RUN", Reruns: true,
		Source: "RUN rsync -ac {{BUILD_IP}}::root/root/output/ {{HOME_DIR}}/ && chown -R " +
			"work:work {{HOME_DIR}}",
		Rendered: "RUN rsync -ac 10.1.2.3::root/root/output/ /home/work/service/ && chown -R " +
			"work:work /home/work/service",
		Values: []builder.Origin{{Param: "BUILD_IP", Value: "10.1.2.3"},
			{Param: "HOME_DIR", Value: "/home/work/service", Default: true}},
	}
	for _, in := range list {
		if in.Line == want.Line {
			if diff := cmp.Diff(want, in); diff != "" {
				t.Errorf("line %d (-want +got):\n%s", want.Line, diff)
			}
		}
	}
	if _, err := tmpl.Explain(nil); err == nil {
		t.Error("explained without required values")
	}
}

// For each template: the instructions in a row are the output of Render, without comments and empty
// lines.
func TestExplainCoversTheDockerfile(t *testing.T) {
	t.Parallel()
	for _, tmpl := range builder.Default().Templates() {
		rendered, err := tmpl.Render(tmpl.Examples())
		if err != nil {
			t.Fatal(err)
		}
		list, err := tmpl.Explain(tmpl.Examples())
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for line := range bytes.Lines(rendered) {
			if s := strings.TrimSpace(string(line)); s != "" && s[0] != '#' {
				want = append(want, s)
			}
		}
		for _, in := range list {
			got = append(got, in.Rendered)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tmpl.Name, diff)
		}
	}
}
