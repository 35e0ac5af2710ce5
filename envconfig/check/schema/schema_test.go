package schema

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/check"
	"github.com/sluice-deploy/sluice/internal/depcheck"
)

// judge checks one environment against envconfig-check.json and returns the findings, one a line.
func judge(t *testing.T, config string, files map[string]string) (string, error) {
	t.Helper()
	image := fstest.MapFS{}
	for name, content := range files {
		image[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	c, err := check.ParseConfig([]byte(config))
	require.NoError(t, err)
	m, err := envconfig.Scan(image)
	require.NoError(t, err)
	set, err := check.Load(image, m)
	require.NoError(t, err)
	more, err := Check(image, set, c.Schemas)
	var lines []string
	for _, f := range set.Check(c, time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC), more).Findings {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n"), err
}

// Violations of a schema are found in each format, with the line where the parser reports it, and
// without any value.
func TestSchema(t *testing.T) {
	t.Parallel()
	const app = `{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["db"], "additionalProperties": false,
		"properties": {
			"db": {"type": "object", "required": ["url"], "properties": {
				"url": {"type": "string", "pattern": "^jdbc:"}, "pool": {"type": "integer", "minimum": 1}, "mode": {"enum": ["ro", "rw"]}}},
			"hosts": {"type": "array", "items": {"$ref": "common/host.json#/$defs/host"}},
			"since": {"type": "string"}, "ratio": {"type": "number"},
			"cache": {"anyOf": [{"type": "boolean"}, {"type": "object"}]}}}`
	const host = `{"$defs": {"host": {"type": "object", "required": ["name"], "not": {"required": ["ip"]}}}}`
	for name, c := range map[string]struct{ file, content, want string }{
		"all is well in YAML": {"app.yaml", "db: {url: 'jdbc:a', pool: 3, mode: rw}\nhosts: " +
			"[{name: a}]\nsince: 2026-01-02\nratio: .5\ncache: true\n", ""},
		"all is well in TOML": {"app.toml", "since = 2026-01-02\nratio = inf\n[db]\nurl = " +
			"'jdbc:a'\npool = 3\n[[hosts]]\nname = 'a'\n",
			"envs/test/app.toml:2: schema: test: ratio: has the type string and must have number"},
		"all is well in JSON": {"app.json",
			`{"db": {"url": "jdbc:a", "pool": 12345678901234567890}}`, ""},
		"types": {"app.yaml", "db:\n  url: jdbc:a\n  pool: many\ncache: canary\n",
			"envs/test/app.yaml:4: schema: test: cache: does not satisfy " +
				"\"anyOf\"\nenvs/test/app.yaml:3: schema: test: db.pool: has the type string and " +
				"must have integer"},
		"values": {"app.yaml", "db:\n  url: canary\n  pool: 0\n  mode: canary\n",
			"envs/test/app.yaml:4: schema: test: db.mode: is none of the allowed values\n" +
				"envs/test/app.yaml:3: schema: test: db.pool: does not satisfy \"minimum\"\n" +
				"envs/test/app.yaml:2: schema: test: db.url: does not match the declared pattern"},
		"keys": {"app.json", "{\"db\": {}, \"extra\": 1,\n\"hosts\": [{\"name\": \"a\"}, {}, " +
			"{\"name\": \"b\", \"ip\": \"canary\"}]}",
			"envs/test/app.json: schema: test: db.url: the required key is missing\n" +
				"envs/test/app.json:1: schema: test: extra: the schema has no such key\n" +
				"envs/test/app.json: schema: test: hosts[1].name: the required key is missing\n" +
				"envs/test/app.json: schema: test: hosts[2]: is what the schema forbids"},
		"second document": {"app.yaml", "db: {url: 'jdbc:a'}\n---\n{}\n",
			"envs/test/app.yaml: schema: test: document2.db: the required key is missing"},
		"reference": {"app.yaml", "db: {url: '${DB_URL}', pool: '${DB_POOL}'}\n", ""},
		"syntax is said once": {"app.json", "{", "envs/test/app.json:1: syntax: test: is not " +
			"valid JSON"},
		"format without types": {"app.properties", "a=b\n", "envs/test/app.properties: " +
			"schema: test: a JSON Schema is for YAML, JSON and TOML: say in keys what this file " +
			"must have"},
		"keys that are no string": {"app.yaml", "1: a\n", "envs/test/app.yaml:1: schema: test: " +
			"1: the schema has no such key\nenvs/test/app.yaml: schema: test: db: the required " +
			"key is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := judge(t, `{"schemas": [{"path": "app.*", "schema": "schemas/app.json"}]}`,
				map[string]string{
					"schemas/app.json": app, "schemas/common/host.json": host, "envs/test/" +
						c.file: c.content})
			require.NoError(t, err)
			require.ElementsMatch(t, strings.Split(c.want, "\n"), strings.Split(got, "\n"))
			require.NotContains(t, got, "canary")
		})
	}
}

// A rule is about some environments, its findings may be accepted, and one that is about nothing is
// a finding.
func TestRulesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	files := map[string]string{"s.json": `{"required": ["a"]}`, "envs/test/x.json": "{}",
		"envs/production/x.json": "{}"}
	got, err := judge(t,
		`{"schemas": [{"path": "x.json", "schema": "s.json", "environments": ["production"]}, {"path": "gone/*", "schema": "s.json"}]}`, files)
	require.NoError(t, err)
	require.Equal(t, "envconfig-check.json: schema: schemas[1]: no file matches "+
		"\"gone/*\"\nenvs/production/x.json: schema: production: a: the required key is missing",
		got)

	got, err = judge(t, `{"schemas": [{"path": "x.json", "schema": "s.json", "environments": ["production"]}],
		"allow": [{"rule": "schema", "key": "a", "reason": "later", "until": "2027-12-31"}]}`, files)
	require.NoError(t, err)
	require.Empty(t, got)
}

// A schema that cannot be used is not taken for one that nothing breaks, and nothing is fetched.
func TestSchemasThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ schema, want string }{
		"not JSON":     {"{", "s.json"},
		"not a schema": {`{"type": "strin"}`, "s.json"},
		"from elsewhere": {`{"$ref": "https://example.com/other.json"}`,
			"only schemas of the source directory are read"},
		"outside of the directory": {`{"$ref": "../../etc/passwd"}`, "file does not exist"},
		"of another machine": {`{"$ref": "file://host/other.json"}`, "only schemas of the " +
			"source directory are read"},
		"wrong pattern": {`{"pattern": "("}`, "s.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := judge(t, `{"schemas": [{"path": "x.json", "schema": "s.json"}]}`,
				map[string]string{"s.json": c.schema, "envs/test/x.json": "{}"})
			require.ErrorContains(t, err, "schemas[0]: s.json: ")
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := judge(t, `{"schemas": [{"path": "x.json", "schema": "gone.json"}]}`,
		map[string]string{"envs/test/x.json": "{}"})
	require.ErrorContains(t, err, "gone.json")
	_, err = check.ParseConfig(
		[]byte(`{"schemas": [{"path": "x.json", "schema": "../s.json"}, {"schema": "s.json"}]}`))
	require.ErrorContains(t, err, "schemas[0]")
	require.ErrorContains(t, err, "schemas[1]")
}

func TestTheValidatorIsTheOnlyOtherForeignImport(t *testing.T) {
	t.Parallel()
	depcheck.Allow(t, "github.com/sluice-deploy/sluice/envconfig/check/schema",
		[]string{"github.com/santhosh-tekuri/jsonschema/v6", "golang.org/x/text",
			"go.yaml.in/yaml/v3", "github.com/BurntSushi/toml"}, "net/http", "crypto/tls")
}
