package door

import (
	"encoding/json"
	"slices"
	"strings"
)

// PAC is a proxy auto-configuration file that sends the hosts to the proxy at host:port, and no
// other host. The hosts are names of server blocks, as route.Router.Hosts lists them; one of them
// that is a regular expression sends every host to the proxy, which refuses the others itself.
// A covered host never has DIRECT as a second choice: while the door is down the browser shows an
// error, not production. When a browser cannot fetch the file itself it goes direct for every host,
// as if it had no file.
func PAC(proxy string, hosts []string) string {
	exact, head, tail := map[string]bool{MagicHost: true}, []string{}, []string{}
	all := false
	for _, host := range hosts {
		switch {
		case strings.HasPrefix(host, "~"):
			all = true
		case strings.HasPrefix(host, "*."):
			head = append(head, host[1:])
		case strings.HasPrefix(host, "."):
			exact[host[1:]] = true
			head = append(head, host)
		case strings.HasSuffix(host, ".*"):
			tail = append(tail, strings.TrimSuffix(host, "*"))
		default:
			exact[host] = true
		}
	}
	slices.Sort(head)
	slices.Sort(tail)
	value := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // strings and booleans
		}
		return string(text)
	}
	return `// Sends production's host names to the door of a test task. Made by Sluice.
var proxy = ` + value("PROXY "+proxy) + `;
var exact = ` + value(exact) + `;
var head = ` + value(head) + `;
var tail = ` + value(tail) + `;
function covered(host) {
	if (` + value(all) + ` || exact.hasOwnProperty(host)) return true;
	for (var i = 0; i < head.length; i++) {
		if (host.length > head[i].length && host.slice(-head[i].length) === head[i]) return true;
	}
	for (var j = 0; j < tail.length; j++) {
		if (host.length > tail[j].length && host.slice(0, tail[j].length) === tail[j]) return true;
	}
	return false;
}
function FindProxyForURL(url, host) {
	return covered(host.toLowerCase().replace(/\.$/, "")) ? proxy : "DIRECT";
}
`
}
