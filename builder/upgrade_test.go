package builder_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-deploy/sluice/builder"
)

// versions is a catalogue of three versions of web, the first one deprecated, and of one template
// more.
func versions(t *testing.T) *builder.Catalog {
	t.Helper()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	declare := func(deprecated string, params ...string) *fstest.MapFile {
		for i, p := range params {
			params[i] = fmt.Sprintf(`{"name": %q, "type": "word", "description": "d", `+
				`"default": "x"}`, p)
		}
		return file(`{"description": "d", "deprecated": "` + deprecated + `", "params": [` +
			strings.Join(params, ",") + `]}`)
	}
	c, err := builder.Load(fstest.MapFS{
		"web/Dockerfile":      file("FROM scratch\nCOPY {{A}} /a\nCOPY {{B}} /b\n"),
		"web/template.json":   declare("take web@2", "A", "B"),
		"web@2/Dockerfile":    file("FROM scratch\nCOPY {{A}} /a\n"),
		"web@2/template.json": declare("", "A"),
		"web@10/Dockerfile":   file("FROM scratch\nUSER 1000\nCOPY {{A}} /a\nCOPY {{C}} /c\n"),
		"web@10/template.json": file(`{"description": "d", "params": [
			{"name": "A", "type": "word", "pattern": "[a-y]*", "default": "b", "description": "d"},
			{"name": "C", "type": "word", "default": "c", "description": "d"}]}`),
		"job/Dockerfile":    file("FROM scratch\nCOPY {{A}} /a\n"),
		"job/template.json": declare("", "A"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVersions(t *testing.T) {
	t.Parallel()
	c := versions(t)
	ids := func(list []*builder.Template) (ids []string) {
		for _, t := range list {
			ids = append(ids, t.ID())
		}
		return ids
	}
	if diff := cmp.Diff([]string{"job@1", "web@1", "web@2", "web@10"},
		ids(c.Templates())); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"job@1", "web@10"}, ids(c.Newest())); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{"web": "web@10", "web@1": "web@1", "web@2": "web@2",
		"job": "job@1", "web@3": "", "web@02": "", "web@": "", "": "", "we": ""} {
		got, err := c.Template(name)
		switch {
		case want == "" && !errors.Is(err, builder.ErrNotFound):
			t.Errorf("template %q: %v, want ErrNotFound", name, err)
		case want != "" && (err != nil || got.ID() != want):
			t.Errorf("template %q: %v, %v, want %s", name, got, err, want)
		}
	}
	web, _ := c.Template("web@2")
	if got := web.Labels()[builder.LabelTemplate]; got != "web@2" {
		t.Errorf("label %s", got)
	}
	_, err := builder.Load(fstest.MapFS{
		"t/Dockerfile": {Data: []byte("FROM scratch\n")}, "t@1/Dockerfile": {Data: []byte("FROM scratch\n")},
		"t/template.json":   {Data: []byte(`{"description": "d"}`)},
		"t@1/template.json": {Data: []byte(`{"description": "d"}`)},
	})
	if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), "both hold it") {
		t.Errorf("one version twice: %v", err)
	}
	for _, dir := range []string{"t@0", "t@01", "t@x", "t@-1", "@1", "t@1@1"} {
		if _, err := builder.Load(fstest.MapFS{dir + "/Dockerfile": {}}); !errors.Is(err,
			builder.ErrInvalid) {
			t.Errorf("directory %s: %v, want ErrInvalid", dir, err)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	got := versions(t).Usage([]builder.Use{
		{Cluster: "b", Template: "web@1"}, {Cluster: "a", Template: "web@1"},
		{Cluster: "c", Template: "web"}, {Cluster: "d", Template: "gone@4"},
	})
	want := []builder.Usage{
		{Template: "gone@4", Missing: true, Clusters: []string{"d"}},
		{Template: "web@1", Deprecated: "take web@2", Clusters: []string{"a", "b"}},
		{Template: "web@10", Clusters: []string{"c"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPlanUpgrade(t *testing.T) {
	t.Parallel()
	c := versions(t)
	var uses []builder.Use
	for i := range 1000 {
		u := builder.Use{Cluster: fmt.Sprintf("c%03d", i), Template: "web@1",
			Values: map[string]string{"A": "a", "B": "b"}}
		switch i % 10 {
		case 1:
			u.Template, u.Values = "web", nil
		case 2:
			u.Template, u.Values = "job@1", nil
		case 3:
			u.Values["A"] = "z"
		}
		uses = append(uses, u)
	}
	slices.Reverse(uses)
	plan, err := c.PlanUpgrade("web", uses, 100)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	var clusters []string
	for _, batch := range plan.Batches {
		sizes = append(sizes, len(batch))
		for _, change := range batch {
			clusters = append(clusters, change.Cluster)
		}
	}
	if diff := cmp.Diff([]int{1, 2, 4, 8, 16, 32, 64, 100, 100, 100, 100, 100, 73},
		sizes); diff != "" {
		t.Error(diff)
	}
	if len(clusters) != 700 || !slices.IsSorted(clusters) || len(plan.Done) != 100 ||
		len(plan.Refused) != 100 {
		t.Errorf("%d changes, %d done, %d refused", len(clusters), len(plan.Done),
			len(plan.Refused))
	}
	want := builder.Change{Cluster: "c000", From: "web@1", Values: map[string]string{"A": "a"},
		Dropped: []string{"B"}, Diff: `diff web@1 web@10
--- web@1
+++ web@10
@@ -1,3 +1,4 @@
 FROM scratch
+USER 1000
 COPY a /a
-COPY b /b
+COPY c /c
`}
	if diff := cmp.Diff(want, plan.Batches[0][0]); diff != "" {
		t.Error(diff)
	}
	refused := plan.Refused[0]
	var param *builder.ParamError
	if refused.Cluster != "c003" || !errors.As(refused.Err, &param) || param.Param != "A" ||
		param.Template != "web@10" {
		t.Errorf("refused %+v", refused)
	}
	text, err := json.Marshal(refused)
	if err != nil || !strings.Contains(string(text), "a match of [a-y]*") {
		t.Errorf("%s, %v", text, err)
	}
	if again, err := c.PlanUpgrade("web", uses[500:], 100); err != nil || again.To != "web@10" {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestPlanUpgradeRefuses(t *testing.T) {
	t.Parallel()
	c := versions(t)
	one := []builder.Use{{Cluster: "a", Template: "web@1"}}
	for name, f := range map[string]func() (builder.Upgrade, error){
		"limit 0: want 1 or more": func() (builder.Upgrade, error) {
			return c.PlanUpgrade("web", one, 0)
		},
		"comes twice": func() (builder.Upgrade, error) {
			return c.PlanUpgrade("web", append(one, one...), 1)
		},
	} {
		if got, err := f(); !errors.Is(err, builder.ErrInvalid) ||
			!strings.Contains(err.Error(), name) || got.Batches != nil {
			t.Errorf("%+v, %v: want %s", got, err, name)
		}
	}
	if _, err := c.PlanUpgrade("gone", one, 1); !errors.Is(err, builder.ErrNotFound) {
		t.Errorf("%v: want ErrNotFound", err)
	}
}

// A cluster whose use is wrong holds no other one up.
func TestPlanUpgradeGoesOn(t *testing.T) {
	t.Parallel()
	c := versions(t)
	plan, err := c.PlanUpgrade("web", []builder.Use{
		{Cluster: "a", Template: "web@4"}, {Cluster: "b", Template: "web@1"},
		{Cluster: "c", Template: "web@1", Values: map[string]string{"D": "d"}}}, 9)
	if err != nil || len(plan.Batches) != 1 || plan.Batches[0][0].Cluster != "b" ||
		len(plan.Refused) != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}
	if r := plan.Refused[0]; r.From != "web@4" || !errors.Is(r.Err, builder.ErrNotFound) {
		t.Errorf("refused %+v", r)
	}
	if r := plan.Refused[1]; r.From != "web@1" || !errors.Is(r.Err, builder.ErrInvalid) {
		t.Errorf("refused %+v", r)
	}
	plan, err = c.PlanUpgrade("web", nil, 1)
	if text, _ := json.Marshal(plan); err != nil || string(text) != `{"to":"web@10","batches":[]}` {
		t.Errorf("an empty plan is %s, %v", text, err)
	}
	if text, err := json.Marshal(builder.Refusal{Cluster: "a"}); err != nil {
		t.Errorf("%s, %v", text, err)
	}
}
