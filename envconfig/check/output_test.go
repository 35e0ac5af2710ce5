package check_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/check"
)

// reportOn checks an image.
func reportOn(t *testing.T, files map[string]string) check.Report {
	t.Helper()
	image := fstest.MapFS{}
	for name, text := range files {
		image[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	manifest, err := envconfig.Scan(image)
	require.NoError(t, err)
	report, err := check.Run(image, manifest, check.Config{}, time.Now())
	require.NoError(t, err)
	return report
}

// A log is valid by the schema of SARIF 2.1.0, with findings of every shape and with none.
func TestSARIF(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/sarif-schema-2.1.0.json")
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	require.NoError(t, err)
	compiler := jsonschema.NewCompiler()
	require.NoError(t, compiler.AddResource("sarif.json", document))
	schema, err := compiler.Compile("sarif.json")
	require.NoError(t, err)

	all := reportOn(t, map[string]string{"envs/test/a b.yaml": "a: 1\na: 2\npassword: hunter2\n",
		"envs/production/a b.yaml": "url: http://localhost/\n",
		"envs/production/key.pem":  "-----BEGIN PRIVATE KEY-----\nMIIE\n"})
	require.NotEmpty(t, all.Findings)
	all.Findings = append(all.Findings, check.Finding{Rule: check.RuleCommand, Source: "ENTRYPOINT",
		Message: "x"}, check.Finding{Rule: check.RuleSource, Message: "y"})
	for _, report := range []check.Report{all, {}} {
		var out bytes.Buffer
		require.NoError(t, report.WriteSARIF(&out, "build/etc"))
		log, err := jsonschema.UnmarshalJSON(bytes.NewReader(out.Bytes()))
		require.NoError(t, err)
		require.NoError(t, schema.Validate(log))
	}
	var out bytes.Buffer
	require.NoError(t, all.WriteSARIF(&out, "build/etc"))
	require.Contains(t, out.String(), `"uri": "build/etc/envs/test/a%20b.yaml"`)
	require.NotContains(t, out.String(), "hunter2")
	require.Error(t, schema.Validate(map[string]any{"version": "2.1.0"}),
		"the schema refuses what is no log")
}

// A baseline takes the findings of an existing tree out, also when lines move, and no other.
func TestBaseline(t *testing.T) {
	t.Parallel()
	before := reportOn(t,
		map[string]string{"envs/test/a.properties": "db.password=x\nport=1\nport=2\n",
			"envs/production/a.properties": "db.password=y\nport=1\n",
			"envs/test/k.txt":              "ghp_aB3xZ9qLw7aB3xZ9qLw7aB3xZ9qLw7aB3xZ9\n",
			"envs/production/k.txt":        ""})
	var file bytes.Buffer
	require.NoError(t, check.NewBaseline(before).Write(&file))
	require.NotContains(t, file.String(), "ghp_")
	baseline, err := check.ParseBaseline(file.Bytes())
	require.NoError(t, err)

	same := baseline.Apply(before)
	require.Empty(t, same.Findings)
	require.Equal(t, len(before.Findings), same.Baselined)
	require.Zero(t, same.Mended)

	after := baseline.Apply(reportOn(t, map[string]string{
		"envs/test/a.properties":       "# moved\n\n\napi.token=z\n\ndb.password=changed\nport=1\nport=2\n",
		"envs/production/a.properties": "\n\ndb.password=y\nport=1\n", "envs/test/k.txt": "",
		"envs/production/k.txt": ""}))
	var rest []string
	for _, f := range after.Findings {
		rest = append(rest, f.Rule+" "+f.Environment+" "+f.Key)
	}
	require.Equal(t, "key production api.token, secret test api.token", strings.Join(rest, ", "))
	require.Equal(t, 1, after.Mended)
	var text bytes.Buffer
	require.NoError(t, after.WriteText(&text))
	require.Contains(t, text.String(), "2 findings, 0 allowed, 3 in the baseline, 1 of it mended")
	require.Contains(t, text.String(), "fix secret: take the value out")

	for _, bad := range []string{"", "{", `{"version":2,"findings":[]}`,
		`{"version":1,"findings":[{"fingerprint":"x"}]}`, `{"version":1,"findings":[]} x`,
		`{"version":1,"other":1}`} {
		_, err := check.ParseBaseline([]byte(bad))
		require.ErrorIs(t, err, check.ErrInvalid, bad)
	}
}

// JSON has the advice and the fingerprint beside each finding.
func TestJSONSaysWhatToDo(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, reportOn(t, map[string]string{"envs/test/a.ini": "password=x"}).WriteJSON(
		&out))
	var back struct {
		Findings []struct{ Rule, Fix, Fingerprint string }
		Files    int
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &back))
	require.Len(t, back.Findings, 1)
	require.Equal(t, 1, back.Files)
	require.Len(t, back.Findings[0].Fingerprint, 24)
	require.Contains(t, back.Findings[0].Fix, "${file:")
}
