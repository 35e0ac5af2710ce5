package platform_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
)

// TestFormat0 opens the data directory in testdata/formats/0/server: testdata/formats/README.md
// says how it was made.
func TestFormat0(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("../../../testdata/formats/0/server")))
	p, err := platform.Open(t.Context(), platform.Config{
		Dir: dir, Registry: "127.0.0.1:5801", Nginx: os.DirFS(filepath.Join("..", "nginx")),
		NginxPort: 8880, NginxTLSPort: 8843, Pool: "127.58.0.0/24", Envconfig: os.Args[0],
		CoolDown: 50 * 365 * 24 * time.Hour, // as when it was made
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })

	builds, err := p.Builds(t.Context())
	require.NoError(t, err)
	var got []string
	for _, b := range builds {
		got = append(got, fmt.Sprintf("%s %s %s of %s by %s: %s %.19s", b.ID, b.Cluster, b.Version,
			b.Source, b.Actor, b.State, b.Digest))
	}
	require.Equal(t, []string{
		"b000006 hello_web v2 of hello_web-v2 by ann: failed ",
		"b000005 hello_web v4 of hello_web-v4 by ann: succeeded sha256:a0c7bab4a028",
		"b000004 hello_web v3 of hello_web-v3 by ann: succeeded sha256:fe5ad6b948ef",
		"b000003 hello_web v2 of hello_web-v2 by ann: succeeded sha256:5a0adc879ce2",
		"b000002 greet_api v1 of greet_api-v1 by ann: succeeded sha256:7607f160281b",
		"b000001 hello_web v1 of hello_web-v1 by ann: succeeded sha256:5052a121f885",
	}, got)
	require.Contains(t, builds[0].Error, "choose another tag, a tag is never moved unasked")
	log, err := p.BuildLog(t.Context(), "b000006", 0)
	require.NoError(t, err)
	require.True(t, log.Ended)
	require.Contains(t, string(log.Data), "choose another tag, a tag is never moved unasked")

	reason, err := p.Used(t.Context(), "hello_web", builds[1].Digest)
	require.NoError(t, err)
	require.Equal(t, "version v4 of hello_web is current in test", reason,
		"whose registry has moved since")

	overview, err := p.Overview(t.Context())
	require.NoError(t, err)
	got = nil
	for _, c := range overview.Clusters {
		for _, environment := range overview.Environments {
			for _, d := range c.Deployments[environment] {
				got = append(got, fmt.Sprintf("%s %s %s %s %.19s", d.Cluster, environment, d.Task,
					d.Version, d.Digest))
			}
		}
	}
	require.Equal(t, []string{
		"greet_api test  v1 sha256:7607f160281b", "greet_api sandbox  v1 sha256:7607f160281b",
		"greet_api production  v1 sha256:7607f160281b", "greet_api stable  v1 sha256:7607f160281b",
		"hello_web test  v4 sha256:a0c7bab4a028", "hello_web test search-redesign v2 " +
			"sha256:5a0adc879ce2",
		"hello_web sandbox  v4 sha256:a0c7bab4a028", "hello_web production  v2 sha256:5a0adc879ce2",
		"hello_web stable  v2 sha256:5a0adc879ce2",
	}, got)

	tasks, err := p.Tasks(t.Context())
	require.NoError(t, err)
	require.Len(t, tasks, 2)
	first, second := tasks[0], tasks[1]
	require.Equal(t, "search-redesign 127.58.0.1 leased", fmt.Sprint(first.Task, " ", first.VIP,
		" ", first.State))
	require.Equal(t, "hello_web-test-search-redesign-g21-1r1", first.Instances[0].ID)
	require.Equal(t, "login-fix 127.58.0.2 cooling", fmt.Sprint(second.Task, " ", second.VIP, " ",
		second.State))
	require.Equal(t, 2076, second.CoolUntil.Year())

	journal, err := p.Journal(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, journal, 41)
	last := journal[40]
	require.Equal(t, "succeeded retire hello_web login-fix bob",
		strings.Join([]string{last.Kind, last.Op, last.Cluster, last.Task, last.Actor}, " "))
	got = nil
	for _, i := range p.Instances() {
		got = append(got, fmt.Sprintf("%s %s %s", i.ID, i.Addr, i.Labels["version"]))
	}
	require.Len(t, got, 11)
	require.Equal(t, "hello_web-stable-g33-2 127.0.0.1:33365 v2", got[8])
	require.Equal(t, "hello_web-test-search-redesign-g21-1r1 127.0.0.1:46415 v2", got[10])
}
