package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// No command, form of output or error shows a value, for all formats and all kinds of mistakes in a
// file.
func TestValuesAreShownNowhere(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry"
	whole := map[string]string{
		"a.properties": "db.password=" + canary, "b.yaml": "token: " + canary + "\nurl: http://" +
			canary + ".prod.example.com", "c.json": `{"secret":"` + canary + `"}`,
		"d.toml": "api_key = '" + canary + "'", "e.xml": `<a password="` + canary + `">` +
			canary + `</a>`, "f.ini": "[s]\npassword=" + canary, ".env": "TOKEN=" + canary,
		"g.txt": canary,
		"h.conf": "a {\n  password " + canary + ";\n  token = \"" + canary + "\"\n}\n" +
			canary + "\n",
		"i.sh": "PASSWORD=" + canary + "\ncurl -u x:" + canary + " http://h\n",
		"j.js": "const secret = '" + canary + "'",
	}
	broken := map[string]string{
		"a.properties": "x=" + canary + "\nx=" + canary + "\ny=\\u12" + canary, "b.yaml": "a: [" +
			canary, "c.json": `{"a":"` + canary + `",}`, "d.toml": "a = " + canary,
		"e.xml": "<a>" + canary + "</b>", "f.ini": canary, ".env": "A='" + canary,
	}
	source := t.TempDir()
	lay := func(dir string, files map[string]string) {
		for name, content := range files {
			name = filepath.Join(source, dir, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
			require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
		}
	}
	lay("good/envs/test/etc", whole)
	lay("good/envs/production/etc", whole)
	lay("good/envs/sandbox", nil)
	lay("good",
		map[string]string{"envconfig-check.json": `{"owned":{"production":["*.prod.example.com"]},"keys":[{"path":"etc/a.properties","key":"db.password","type":"number","enum":["x"],"pattern":"[0-9]+"}],` +
			`"schemas":[{"path":"etc/*.yaml","schema":"s.json"},{"path":"etc/*.json","schema":"s.json"},{"path":"etc/*.toml","schema":"s.json"}]}`,
			"s.json": `{"properties":{"token":{"pattern":"^[0-9]$"},"url":{"maxLength":3},"secret":{"const":"x"},"api_key":{"anyOf":[{"type":"null"},{"enum":[1]}]}}}`})
	lay("bad/envs/test/etc", broken)
	lay("bad/envs/production/etc", whole)
	lay("worse/envs/test", whole)
	lay("worse", map[string]string{"envconfig-check.json": `{"allow":"` + canary + `"}`,
		"envconfig.json": `{"paths":` + canary + `}`})
	lay("", map[string]string{"Dockerfile": "FROM scratch\nENV PASSWORD=" +
		canary + "\nENTRYPOINT [\"sh\", \"/start.sh\", \"--token=" + canary + "\"]\n",
		"image/start.sh": "PASSWORD=" + canary + " java -jar x &\n"})
	ended := map[int]int{}
	for _, dir := range []string{"good", "bad", "worse", "absent"} {
		for _, args := range [][]string{
			{"check"}, {"check", "--format", "json"}, {"check", "--format", "junit"},
			{"check", "--matrix"}, {"check", "--dockerfile", source + "/Dockerfile", "--image-root",
				source + "/image"},
			{"diff", "test", "production"}, {"diff", "--format", "json", "test", "production"},
			{"explain", "db.password"}, {"explain", "--format", "json", "TOKEN"},
			{"explain", "none"}, {"manifest"}, {"help"}, {"none"},
		} {
			var stdout, stderr bytes.Buffer
			code := run(append([]string{args[0], "--source", filepath.Join(source, dir)},
				args[1:]...), []string{"TOKEN=" + canary}, &stdout, &stderr)
			ended[code]++
			require.NotContains(t, stdout.String(), canary, "%s %v", dir, args)
			require.NotContains(t, stderr.String(), canary, "%s %v", dir, args)
			require.NotContains(t, stderr.String(), "goroutine", "%s %v", dir, args)
		}
		manifest, _ := os.ReadFile(filepath.Join(source, dir, "manifest.json"))
		require.NotContains(t, string(manifest), canary)
	}
	require.Len(t, ended, 3, "all exit codes: %v", ended)
	var stdout, stderr bytes.Buffer
	require.Equal(t, 2, run([]string{"check"}, []string{"ENVCONFIG_MATRIX=" + canary}, &stdout,
		&stderr))
	require.Contains(t, stderr.String(), "ENVCONFIG_MATRIX: not a value for --matrix")
	require.NotContains(t, stderr.String(), canary)
}
