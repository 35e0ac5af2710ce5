package check

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/envconfig"
)

var today = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// found checks a source directory and returns the findings, one a line.
func found(t *testing.T, config string, files map[string]string) string {
	t.Helper()
	image := fstest.MapFS{}
	for name, content := range files {
		mode := fs.FileMode(0o644)
		name, octal, ok := strings.Cut(name, " ")
		if ok {
			_, err := fmt.Sscanf(octal, "%o", &mode)
			require.NoError(t, err)
		}
		image[name] = &fstest.MapFile{Data: []byte(content), Mode: mode}
	}
	m, err := envconfig.Scan(image)
	require.NoError(t, err)
	var c Config
	if config != "" {
		c, err = ParseConfig([]byte(config))
		require.NoError(t, err)
	}
	report, err := Run(image, m, c, today)
	require.NoError(t, err)
	var lines []string
	for _, f := range report.Findings {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// Each rule finds its mistakes, and passes over correct settings that look similar.
func TestRules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config string
		files  map[string]string
		want   string // lines; empty means clean
	}{
		"file set": {"", map[string]string{"envs/test/a": "", "envs/test/b": "",
			"envs/production/a": ""},
			"b: file: production: the file is missing"},
		"file set that was declared": {"", map[string]string{"envconfig.json": `{"required":["a"]}`,
			"envs/test/a": "", "envs/test/b": "", "envs/production/a": ""}, ""},
		"file and directory": {"", map[string]string{"envconfig.json": `{"required":["z"]}`,
			"envs/test/a/b": "", "envs/test/a/c/d": "", "envs/production/a": "",
			"envs/_base/z": ""},
			"envs/production/a: file: production: is a directory in another environment: where the " +
				"one has been put in place, the other cannot be"},
		"environment without files": {"", map[string]string{"envconfig.json": `{"required":["a"]}`,
			"envs/test/a": "", "envs/production/b": ""},
			"a: file: production: the file is missing"},

		"syntax, properties": {"", map[string]string{"envs/test/a.properties": "a=1\na=2"},
			`envs/test/a.properties:2: syntax: test: key "a" stands in line 1 already`},
		"syntax, yaml": {"", map[string]string{"envs/test/a.yml": "a: [1"},
			"envs/test/a.yml:1: syntax: test: is not valid YAML"},
		"syntax, json": {"", map[string]string{"envs/test/a.json": "{\n\"a\":}"},
			"envs/test/a.json:2: syntax: test: is not valid JSON"},
		"syntax, toml": {"", map[string]string{"envs/test/a.toml": "a = 1\nb = \n"},
			"envs/test/a.toml:2: syntax: test: is not valid TOML"},
		"syntax, xml": {"", map[string]string{"envs/test/a.xml": "<a>\n<b></a>"},
			"envs/test/a.xml:2: syntax: test: is not well-formed XML"},
		"syntax, xml in Latin-1": {"", map[string]string{"envs/test/a.xml": "<?xml version='1.0' " +
			"encoding='ISO-8859-1'?>\n<a b='f\xfcr'/>", "envs/test/b.xml": "<a b='f\xfcr'/>"},
			"envs/test/b.xml: syntax: test: is not UTF-8"},
		"syntax, ini": {"", map[string]string{"envs/test/a.ini": "[a\n"},
			"envs/test/a.ini:1: syntax: test: a section is [name]"},
		"syntax, dotenv": {"", map[string]string{"envs/test/.env": "A='x"},
			"envs/test/.env:1: syntax: test: the quotation mark is never closed"},
		"syntax, other": {"", map[string]string{"envs/test/a.conf": "{{{"}, ""},

		"key, nested": {"", map[string]string{"envs/test/a.yaml": "db: {url: x, pool: 1}",
			"envs/production/a.yaml": "db: {url: y}"},
			"envs/production/a.yaml: key: production: db.pool: the key is missing; it is in test"},
		"key, length of a list": {"", map[string]string{"envs/test/a.json": `{"l":[1]}`,
			"envs/production/a.json": `{"l":[1,2]}`}, ""},
		"type": {"", map[string]string{"envs/test/a.toml": "p = 1",
			"envs/production/a.toml": "p = '1'"},
			"a.toml: type: p: types differ: number in test; string in production"},
		"type, reference": {"", map[string]string{"envs/test/a.ini": "p=80",
			"envs/production/a.ini": "p=${PORT}"}, ""},

		"placeholder": {"",
			map[string]string{"envs/production/a.properties": "a=ChangeMe\nb=http://127.0.0.1:80/\nc=TODO\nd=todolist"},
			"envs/production/a.properties:1: placeholder: production: a: the value is a " +
				"placeholder that was never filled in\n" +
				"envs/production/a.properties:2: placeholder: production: b: the value names the " +
				"container itself as the host\n" +
				"envs/production/a.properties:3: placeholder: production: c: the value is a " +
				"placeholder that was never filled in"},
		"placeholder in test": {"",
			map[string]string{"envs/test/a.properties": "a=changeme\nb=localhost"}, ""},

		"leak into test": {"", map[string]string{"envs/test/a.ini": "h=db.production.example.com",
			"envs/production/a.ini": "h=db.production.example.com"},
			"envs/test/a.ini:1: leak: test: h: a host's name says that it belongs to production"},
		"leak into production": {"", map[string]string{"envs/test/a.ini": "h=db.test.example.com",
			"envs/production/a.ini": "h=db.test.example.com"},
			"envs/production/a.ini:1: leak: production: h: a host's name says that it belongs to " +
				"test"},
		"leak, borrowed": {"", map[string]string{"envs/test/a.ini": "h=10.0.0.1",
			"envs/sandbox/a.ini": "h=10.0.0.2", "envs/production/a.ini": "h=10.0.0.1"},
			"envs/test/a.ini:1: leak: test: h: the host is the same as in production, while " +
				"other environments have their own"},
		"leak, declared": {`{"owned":{"production":["orders-live"],"test":["orders-dev"]}}`,
			map[string]string{"envs/test/a.ini": "t=topic/orders-live",
				"envs/production/a.ini": "t=topic/orders-dev"},
			"envs/production/a.ini:1: leak: production: t: the value belongs to " +
				"test\nenvs/test/a.ini:1: leak: test: t: the value belongs to production"},
		"leak, shared": {"", map[string]string{"envs/_base/a.ini": "h=db.production.example.com",
			"envs/test/b": "", "envs/production/b": ""},
			"envs/_base/a.ini:1: leak: test: h: a host's name says that it belongs to production"},

		"secret": {"",
			map[string]string{"envs/test/a.properties": "db.password=x\nurl=https://u:p@h.example.com/\nAPI_KEY=y\n" +
				"password=${file:/run/secrets/x}\npassword.file=/run/secrets/x\ntokens.enabled=true"},
			"envs/test/a.properties:1: secret: test: db.password: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/a.properties:2: secret: test: url: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/a.properties:3: secret: test: API_KEY: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render"},
		"secret by the name beside it": {"", map[string]string{"envs/test/context.xml": `<C><Parameter name="db.password" value="x"/><Environment name="apiKey" value="x"/>
			<Parameter name="db.user" value="x"/><property name="secret">x</property><property name="a@b">x</property><entry key="pwd">${PWD}</entry><Connector keystorePass="x"/></C>`,
			"envs/test/k.yaml": "env: [{name: DB_PASSWORD, value: x}, {name: DB_USER, value: x}, " +
				"{name: API_TOKEN, valueFrom: x}]\ntokens: [a]\n"},
			"envs/test/context.xml:1: secret: test: C.Environment[apiKey]@value: a secret stands " +
				"there in plain text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/context.xml:1: secret: test: C.Parameter[db.password]@value: a secret " +
				"stands there in plain text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/context.xml:2: secret: test: C.Connector@keystorePass: a secret " +
				"stands there in plain text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/context.xml:2: secret: test: C.property[secret]: a secret stands " +
				"there in plain text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/k.yaml:1: secret: test: env[0].value: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render"},
		"secret by the name in an element beside it": {"", map[string]string{
			"envs/test/a.xml": `<a><p><param-name>db.password</param-name><param-value>x</param-value></p><p><param-name>db.user</param-name><param-value>x</param-value></p>
			<p><name>pwd</name><value>x</value></p><p name="secret"><value>x</value></p><p><display-name>token</display-name><value>x</value></p>
			<password>${A}</password><password>x</password></a>`,
			"envs/test/b.json": "[{\"Name\": \"DB_PASSWORD\", \"Value\": " +
				"\"x\"},\n{\"ParameterKey\": \"DbPassword\", \"ParameterValue\": \"x\"}]"},
			"envs/test/a.xml:1: secret: test: a.p.param-value: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/a.xml:2: secret: test: a.p#3.value: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/a.xml:2: secret: test: a.p[secret].value: a secret stands there in " +
				"plain text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/a.xml:3: secret: test: a.password#2: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/b.json:1: secret: test: [0].Value: a secret stands there in plain " +
				"text: use ${file:/run/secrets/…} with the action render\n" +
				"envs/test/b.json:2: secret: test: [1].ParameterValue: a secret stands there in " +
				"plain text: use ${file:/run/secrets/…} with the action render"},
		"secret in a file of no known format": {"",
			map[string]string{"envs/test/key.pem": "-----BEGIN PRIVATE KEY-----\n"},
			"envs/test/key.pem:1: secret: test: holds a private key: everyone who can pull the " +
				"image can read it"},

		"mode": {"", map[string]string{"envs/test/a 666": "", "envs/production/a 640": ""},
			"a: mode: modes differ: 0640 in production; 0666 in test\nenvs/test/a: mode: test: " +
				"mode 0666 lets everyone write"},

		"schema": {`{"keys":[{"path":"a.yaml","key":"p","type":"number","required":true},{"path":"a.yaml","key":"e","enum":["x","y"]},
			{"path":"a.yaml","key":"m","pattern":"[a-z]+"},{"path":"a.yaml","key":"q","required":true,"environments":["production"]},{"path":"none","key":"k"}]}`,
			map[string]string{"envs/test/a.yaml": "p: '1'\ne: z\nm: A\n"},
			"envconfig-check.json: schema: k: keys[4]: no file matches " +
				"\"none\"\nenvconfig-check.json: schema: q: keys[3]: no file matches \"a.yaml\"\n" +
				"envs/test/a.yaml:1: schema: test: p: is a string and must be a " +
				"number\nenvs/test/a.yaml:2: schema: test: e: is none of the allowed values\n" +
				"envs/test/a.yaml:3: schema: test: m: does not match the declared pattern"},
		"schema, required": {`{"keys":[{"path":"conf/*.yaml","key":"db.url","required":true}]}`,
			map[string]string{"envs/test/conf/a.yaml": "db: {}"},
			"envs/test/conf/a.yaml: schema: test: db.url: the required key is missing"},
		"schema, satisfied": {`{"keys":[{"path":"a.ini","key":"p","type":"number","required":true,"enum":["80"],"pattern":"8."}]}`, map[string]string{"envs/test/a.ini": "p=80"}, ""},

		"allowed": {`{"allow":[{"rule":"placeholder","path":"a.ini","key":"h","environments":["production"],"reason":"a side-car","until":"2027-03-01"}]}`,
			map[string]string{"envs/production/a.ini": "h=localhost"}, ""},
		"allowed, expired": {`{"allow":[{"rule":"placeholder","reason":"a side-car","until":"2027-02-28"}]}`, map[string]string{"envs/production/a.ini": "h=localhost"},
			"envconfig-check.json: allow: allow[0] for placeholder expired after 2027-02-28 (a " +
				"side-car)\n" +
				"envs/production/a.ini:1: placeholder: production: h: the value names the " +
				"container itself as the host"},
		"allowed, nothing": {`{"allow":[{"rule":"leak","reason":"x","until":"2027-03-02"}]}`,
			map[string]string{"envs/production/a.ini": "h=x"},
			"envconfig-check.json: allow: allow[0] for leak accepts nothing: remove it"},
	} {
		require.Equal(t, c.want, found(t, c.config, c.files), name)
	}
}

func TestConfigIsRefused(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		`{`:           "unexpected EOF",
		`{"alow":[]}`: `unknown field "alow"`,
		`{} {}`:       "data after the end",
		`{"allow":[{"rule":"key","until":"2027-01-01"}]}`: "allow[0] has no reason",
		`{"allow":[{"rule":"key","reason":"x"}]}`: "allow[0]: until must be " +
			"a day",
		`{"allow":[{"rule":"kee","reason":"x","until":"2027-01-01"}]}`: `rule "kee" is none of`,
		`{"keys":[{"key":"a"}]}`: "keys[0] needs a well-formed path and " +
			"a key",
		`{"keys":[{"path":"a","key":"a","type":"int"}]}`:  `type "int" is none of`,
		`{"keys":[{"path":"a","key":"a","pattern":"["}]}`: "keys[0]: pattern",
		`{"owned":{"test":[]}}`:                           "owned.test needs well-formed patterns",
	} {
		_, err := ParseConfig([]byte(config))
		require.ErrorIs(t, err, ErrInvalid, config)
		require.ErrorContains(t, err, want)
	}
}

func TestConfigFields(t *testing.T) {
	t.Parallel()
	allow := Allow{Rule: RuleLeak, Reason: "x", Until: "2027-01-31"}
	with := func(change func(a *Allow)) []Allow { a := allow; change(&a); return []Allow{a} }
	require.NoError(t, (&Config{Allow: []Allow{allow},
		Keys: []KeyRule{{Path: "a", Key: "k"}}}).Validate())
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"Allow.Rule": {Config{Allow: with(func(a *Allow) {
			a.Rule = "x"
		})}, `allow[0]: rule "x"`},
		"Allow.Path": {Config{Allow: with(func(a *Allow) {
			a.Path = "["
		})}, "allow[0]: malformed pattern"},
		"Allow.Key": {Config{Allow: with(func(a *Allow) {
			a.Key = "["
		})}, "allow[0]: malformed pattern"},
		"Allow.Reason": {Config{Allow: with(func(a *Allow) {
			a.Reason = ""
		})}, "allow[0] has no reason"},
		"Allow.Until": {Config{Allow: with(func(a *Allow) {
			a.Until = "soon"
		})}, "allow[0]: until"},
		"KeyRule.Path": {Config{Keys: []KeyRule{{Path: "[", Key: "k"}}}, "keys[0] needs"},
		"KeyRule.Key":  {Config{Keys: []KeyRule{{Path: "a"}}}, "keys[0] needs"},
		"KeyRule.Type": {Config{Keys: []KeyRule{{Path: "a", Key: "k", Type: "x"}}},
			`keys[0]: type "x"`},
		"KeyRule.Patt.": {Config{Keys: []KeyRule{{Path: "a", Key: "k", Pattern: "("}}},
			"keys[0]: pattern"},
		"Schema.Path": {Config{Schemas: []SchemaRule{{Schema: "s.json"}}}, "schemas[0] needs"},
		"Schema.Schema": {Config{Schemas: []SchemaRule{{Path: "a", Schema: "../s"}}},
			"schemas[0] needs"},
		"Owned patterns": {Config{Owned: map[string][]string{"test": {"["}}}, "owned.test needs"},
	} {
		err := c.config.Validate()
		require.ErrorIs(t, err, ErrInvalid, name)
		require.ErrorContains(t, err, c.want, name)
	}
	all := Config{Keys: []KeyRule{{Path: "a"}}, Owned: map[string][]string{"test": nil}}
	require.ErrorContains(t, all.Validate(), "keys[0]")
	require.ErrorContains(t, all.Validate(), "owned.test")
}

// A rule that ParseConfig has not read holds values to its pattern, too.
func TestPatternOfALiteral(t *testing.T) {
	t.Parallel()
	require.True(t, (&KeyRule{Pattern: "[a-z]+"}).admits("x"))
	require.False(t, (&KeyRule{Pattern: "[a-z]+"}).admits("X"))
	require.False(t, (&KeyRule{Pattern: "("}).admits("("))
	require.True(t, (&KeyRule{}).admits("("))

	c := Config{Keys: []KeyRule{{Path: "a", Key: "k", Pattern: "[a-z]+"}}}
	require.NoError(t, c.Validate())
	c.Keys[0].Pattern = "("
	require.ErrorIs(t, c.Validate(), ErrInvalid)
}

func TestOutputsAgree(t *testing.T) {
	t.Parallel()
	r := Report{Findings: []Finding{{Rule: RuleKey, Environment: "test", Path: "a<b",
		Source: "envs/test/a<b", Key: "k&\"", Message: "the key is missing"}}, Environments: 1,
		Files: 2, Keys: 3}
	var text, data, junit bytes.Buffer
	require.NoError(t, r.WriteText(&text))
	require.Equal(t, "envs/test/a<b: key: test: k&\": the key is missing\nfix key: "+fixes[RuleKey]+
		"\ncheck: 1 environments, 2 files, 3 keys: 1 findings, 0 allowed\n", text.String())
	require.NoError(t, r.WriteJSON(&data))
	var back Report
	require.NoError(t, json.Unmarshal(data.Bytes(), &back))
	require.Equal(t, r, back)
	require.NoError(t, r.WriteJUnit(&junit))
	var suites junitSuites
	require.NoError(t, xml.Unmarshal(junit.Bytes(), &suites))
	require.Equal(t, 1, suites.Suites[0].Failures)
	require.Len(t, suites.Suites[0].Cases, len(Rules()))
	data.Reset()
	require.NoError(t, Report{}.WriteJSON(&data))
	require.Contains(t, data.String(), `"findings": []`)
}

func TestChecksAtTheSameTime(t *testing.T) {
	t.Parallel()
	image := fstest.MapFS{"envs/test/a.ini": {Data: []byte("k=v"), Mode: 0o644},
		"envs/production/a.ini": {Data: []byte("h=localhost"), Mode: 0o644}}
	m, err := envconfig.Scan(image)
	require.NoError(t, err)
	set, err := Load(image, m)
	require.NoError(t, err)
	var wg sync.WaitGroup
	reports := make([]Report, 8)
	for i := range reports {
		wg.Go(func() { reports[i] = set.Check(Config{}, today, nil) })
	}
	wg.Wait()
	for _, r := range reports {
		require.Equal(t, reports[0], r)
		require.Len(t, r.Findings, 3)
	}
}
