//go:build linux

package entry

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A script asks with kill, in another way, or not at all.
func TestAskingOf(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]asking{
		"trap 'exit 0' TERM\nserver & wait":                                              never,
		"trap 'echo stop now; exit 0' TERM QUIT\nserver &\nwait $!":                      never,
		"stop() { echo 'bye'; exit 0; }\ntrap stop SIGTERM SIGQUIT; server & wait":       never,
		"trap \"printf 'drain\\n'; exit 143\" INT TERM; server & wait":                   never,
		"trap : TERM; server & wait $!; wait $!":                                         never,
		"trap 'kill $p; exit 0' TERM; server & p=$!; wait":                               bySignal,
		"trap 'kill -QUIT $(cat /run/pid)' TERM; server & wait":                          bySignal,
		"quit() {\n  pkill -f server\n}\ntrap quit TERM\nserver &\nwait":                 bySignal,
		"trap 'jobs -p | xargs kill; exit' TERM; server & wait":                          bySignal,
		"trap 'nginx -s quit' TERM; nginx & wait":                                        otherwise,
		"trap '/opt/web/bin/catalina.sh stop; exit 0' TERM; catalina.sh run & wait":      otherwise,
		"trap 'curl -X POST localhost:8080/actuator/shutdown' TERM; java & wait":         otherwise,
		"trap 'rabbitmqctl shutdown' TERM; rabbitmq-server & wait":                       otherwise,
		"trap 'apachectl -k graceful-stop' TERM; apachectl start; sleep infinity & wait": otherwise,
		"trap 'mysqladmin -u root shutdown' TERM; mysqld & wait":                         otherwise,
		"trap 'redis-cli shutdown' TERM; redis-server & wait":                            otherwise,
		". /usr/lib/functions\ntrap cleanup TERM; server & wait":                         otherwise,
		"trap 'kill $p; curl -s localhost/quitquitquit' TERM; server & wait":             otherwise,
	} {
		require.Equal(t, want, askingOf(script), script)
	}
}
