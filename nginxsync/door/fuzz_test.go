package door

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// Any bytes that are taken for a request lead to a plain host and a port, or nowhere.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{
		"GET http://bj.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"CONNECT bj.example:443 HTTP/1.1\r\nHost: bj.example:443\r\n\r\n",
		"GET http://bj.example:80//a?b HTTP/1.1\r\nHost: y\r\n\r\n",
		"GET http://BJ.example.:080/ HTTP/1.0\r\n\r\n",
		"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]\r\n\r\n",
		"GET http://u:p@bj.example/ HTTP/1.1\r\nHost: z\r\n\r\n",
		"POST http://bj.example HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil || r.Method != http.MethodConnect && !r.URL.IsAbs() {
			return
		}
		to, err := target(r)
		if err != nil {
			return
		}
		if to.port < 1 || to.port > 65535 || !plain(to.host) || strings.HasSuffix(to.host, ".") &&
			!strings.HasSuffix(r.Host, "..") && !strings.Contains(r.Host, "..:") {
			t.Fatalf("%q goes to %+v", data, to)
		}
		if raw := rawTarget(r); r.Method != http.MethodConnect && !strings.HasPrefix(raw, "/") {
			t.Fatalf("%q asks for %q", data, raw)
		}
	})
}
