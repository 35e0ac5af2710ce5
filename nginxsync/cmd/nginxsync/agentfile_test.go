package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// All problems of a file come at once, each with its line.
func TestAgentFileProblems(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"keys and types": {"lisen: x\nlag: 10\nlag: 3s\nnginx: {}\nsources:\n  - consul: {wait: " +
			"soon,\n" +
			"      services: []}\n", []string{
			`a.yaml:1: unknown key "lisen"`,
			"a.yaml:2: want a duration, such as 10s, found a number without a unit",
			`a.yaml:3: key "lag" comes twice, first in line 2`,
			"a.yaml:4: want a list, found a section",
			"a.yaml:6: want a duration, such as 10s, found text",
			"a.yaml:7: want a section, found a list",
		}},
		"values": {"listen: 0.0.0.0:80\npublic: nowhere\ndrainFile: x\nlog:\n  level: " +
			"loud\nguard:\n" +
			"  share: 2\nnginx:\n  - socket: a.sock\n    stateFile: b\n    tree: c\nsources:\n" +
			"  - consul: {}\n  - file: {path: x}\n  - name: none\n", []string{
			`a.yaml:1: listen: "0.0.0.0:80": want unix:/path/of/a.sock or a loopback address`,
			`a.yaml:2: public: "nowhere": want an address with a port`,
			`a.yaml:3: drainFile: "x": want an absolute path`,
			`a.yaml:4: log: level "loud": want debug, info, warn or error`,
			`a.yaml:10: nginx[0].stateFile: "b": want an absolute path`,
			`a.yaml:9: nginx[0]: tree: "c": want the absolute path of the main file`,
			"a.yaml:13: sources[0].consul: consulsource: Config.Services or Config.Tag: is required",
			"a.yaml:14: sources[1].file: filesource: Config.Path: \"x\": want an absolute path",
			"a.yaml:15: sources[2]: want consul, file, relay or vip, one of them",
		}},
		"leases": {"sources:\n  - vip:\n      url: deploy.example\n      tokenFile: x\n" +
			"      tls: {cert: /a}\n      branches: [a b]\n      silence: -1s\n" +
			"  - {file: {path: /x}, vip: {url: 'http://a'}}\n", []string{
			`a.yaml:2: sources[0].vip: tls.cert, tls.key: `,
			`a.yaml:2: sources[0].vip: tokenFile "x": want an absolute path`,
			`a.yaml:2: sources[0].vip: branches: task "a b": byte 2`,
			"a.yaml:2: sources[0].vip: vipsource: Config.URL: want http or https",
			"a.yaml:2: sources[0].vip: vipsource: Config.Silence: -1s",
			"a.yaml:8: sources[1]: want consul, file, relay or vip, one of them",
		}},
		"relay": {"relay: {listen: here, tokenFile: /missing, cert: /a}\nsources:\n  - relay:\n" +
			"      urls: [a]\n      tokenFile: x\n      silence: -1s\n      fallbackAfter: -1s\n" +
			"      tls: {ca: /missing}\n      fallback:\n        - consul: {}\n        - {}\n" +
			"  - relay: {urls: [], fallback: []}\n", []string{
			`a.yaml:1: relay.listen: "here": want an address with a port`,
			"a.yaml:1: relay.tokenFile: open /missing",
			"a.yaml:1: relay: want cert and key, or none of them",
			"a.yaml:3: sources[0].relay: tls.ca: open /missing",
			`a.yaml:3: sources[0].relay: tokenFile "x": want an absolute path`,
			"a.yaml:3: sources[0].relay: relay: Config.URLs: 0: want http or https",
			"a.yaml:3: sources[0].relay: relay: Config.Silence: -1s",
			"a.yaml:3: sources[0].relay: relay: Config.FallbackAfter: -1s",
			"a.yaml:10: sources[0].relay.fallback[0].consul: consulsource: Config.Services or",
			"a.yaml:11: sources[0].relay.fallback[1]: want consul, file, relay or vip, one of them",
			`a.yaml:12: sources[1]: another source has the name "relay"`,
			"a.yaml:12: sources[1].relay: relay: Config.URLs: is required",
			`a.yaml:12: sources[1].relay: tokenFile "": want an absolute path`,
		}},
		"several Nginx": {"nginx:\n  - {name: a, socket: /a, stateFile: /b}\n  - {name: a, " +
			"socket: /a}\n  - {name: c, socket: /c, stateFile: /d, cutAfter: -1s}\n" +
			"sources:\n  - file: {path: /x}\n  - file: {path: /y}\n", []string{
			`a.yaml:3: nginx[1].name: "a": nginx[0] has it`,
			`a.yaml:3: nginx[1].socket: "/a": nginx[0] has it`,
			"a.yaml:3: nginx[1].stateFile: is required where there are several Nginx",
			"a.yaml:4: nginx[2].cutAfter: cutoff: Config.After: -1s: want 0 (default 10m0s)",
			`a.yaml:7: sources[1]: another source has the name "file": give each a name`,
		}},
		"guard": {"guard:\n  share: 2\nsources: [{file: {path: /x}}]\n", []string{
			"a.yaml:1: guard: agent: Config.Guard: "}},
		"health": {"health:\n  quorum: 0.2\n  checks:\n    - {}\n    - {tcp: {}, grpc: {}}\n" +
			"    - http: {path: x}\n    - {tcp: {}, http: {tls: {ca: /missing}}}\n" +
			"    - grpc: {tls: {cert: /missing}}\n    - {tcp: {}, every: soon}\n" +
			"sources: [{file: {path: /x}}]\n", []string{"a.yaml:9: want a duration"}},
		"checks": {"health:\n  quorum: 0.2\n  checks:\n    - {}\n    - {tcp: {}, grpc: {}}\n" +
			"    - http: {path: x}\n    - http: {tls: {ca: /missing}}\n" +
			"    - grpc: {tls: {cert: /missing}}\nsources: [{file: {path: /x}}]\n", []string{
			"a.yaml:2: health.quorum: 0.2: want at least guard.share, which is 0.5",
			"a.yaml:4: health.checks[0]: want http, tcp or grpc, one of them",
			"a.yaml:5: health.checks[1]: want http, tcp or grpc, one of them",
			`a.yaml:6: health.checks[2]: healthcheck: Config.Path: "x"`,
			"a.yaml:7: health.checks[3]: tls.ca: open /missing",
			"a.yaml:8: health.checks[4]: tls.cert, tls.key: open /missing",
		}},
		"checks of a cluster": {"health:\n  quorum: 2\n  checks:\n    - {tcp: {}, rise: -1}\n" +
			"    - {tcp: {}}\nsources: [{file: {path: /x}}]\n", []string{
			"a.yaml:3: health.checks: healthcheck: Config.Checks: 0: every 0s",
			"a.yaml:3: health.checks: healthcheck: Config.Checks: 1: want clusters",
			"a.yaml:2: health.quorum: healthcheck: Config.Quorum: 2: want a share",
		}},
		"lag": {"lag: -1s\nsources: [{file: {path: /x}}]\n", []string{
			"a.yaml:1: lag: agenthttp: Config.Lag: -1s: want 0 (default 10s) or more"}},
		"no source":     {"lag: 1s\n", []string{"a.yaml: sources: want at least one"}},
		"empty":         {"# nothing\n", []string{"a.yaml: the file is empty"}},
		"two documents": {"lag: 1s\n---\nlag: 2s\n", []string{"a.yaml: want one YAML document"}},
		"syntax":        {"sources:\n  - file: [\n", []string{"a.yaml:"}},
		"a token": {"sources: [{consul: {tokenFile: [s3cret]}}]",
			[]string{"want text, found a list"}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "a.yaml")
			require.NoError(t, os.WriteFile(file, []byte(tc.text), 0o600))
			f, err := readAgentFile(file)
			if err == nil {
				_, err = assemble(t.Context(), f, io.Discard)
			}
			require.Error(t, err)
			text := strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", "")
			for _, want := range tc.want {
				require.Contains(t, text, want)
			}
			require.Len(t, strings.Split(text, "\n"), len(tc.want), text)
			require.NotContains(t, text, "s3cret")
		})
	}
}

func TestAgentFileDefaults(t *testing.T) {
	t.Parallel()
	f, err := parseAgentFile("a.yaml", []byte("sources:\n  - consul: {tag: sluice}\n"))
	require.NoError(t, err)
	require.Equal(t, []nginxEntry{{Name: "nginx", Socket: defaultSocket,
		StateFile: defaultState}}, f.Nginx)
	require.Equal(t, defaultListen, f.Listen)
	require.Equal(t, "consul", f.Sources[0].Name)
	_, err = assemble(t.Context(), f, io.Discard)
	require.NoError(t, err)
}
