package start

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A program that changes the user does not hide the service behind it: the signal that is proposed
// is the service's.
func TestSignalBehindLaunchers(t *testing.T) {
	t.Parallel()
	for _, launcher := range [][]string{
		{"gosu", "www-data"}, {"su-exec", "www-data:www-data"},
		{"setpriv", "--reuid", "33", "--regid=33", "--clear-groups"},
		{"chpst", "-u", "www-data", "-o", "1024"}, {"chpst", "-uwww-data"},
		{"gosu", "www-data", "env", "A=b", "nice", "-n", "5"},
		{"runuser", "-u", "www-data", "--"}, {"tini", "--", "gosu", "www-data"},
	} {
		for want, service := range map[string][]string{
			"STOPSIGNAL SIGUSR1":  {"haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"},
			"STOPSIGNAL SIGWINCH": {"apache2", "-DFOREGROUND"},
			"STOPSIGNAL SIGQUIT":  {"nginx", "-g", "daemon off;"},
		} {
			command := append(append([]string{}, launcher...), service...)
			found := Entrypoint(Image{Command: command}, nil)
			require.Len(t, found, 1, "%q: %v", command, found)
			require.Contains(t, found[0].Message, want, command)
			wrapped := append([]string{"envconfig", "--"}, command...)
			require.Empty(t, Entrypoint(Image{Command: wrapped}, nil), wrapped)
		}
		java := append(append([]string{"envconfig", "--"}, launcher...), "java", "-jar", "a.jar")
		found := Entrypoint(Image{Command: java, StopSignal: "SIGQUIT"}, nil)
		require.Len(t, found, 1, java)
		require.Contains(t, found[0].Message, "prints its threads", java)
		require.Contains(t, found[0].Message, "STOPSIGNAL SIGTERM", java)
	}
}
