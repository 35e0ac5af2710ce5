package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/server/web"
	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/nginxsync/door"
)

func startTask(t *testing.T, s *servertest.Server, name, version string) web.Reach {
	t.Helper()
	s.Call(t, "POST", "/tasks", platform.TaskRequest{Task: name, Cluster: "hello_web",
		Version: version, Actor: "bob"}, nil)
	var reach web.Reach
	s.Call(t, "GET", "/tasks/"+name+"/reach", nil, &reach)
	require.Equal(t, "bj.city.example", reach.Host)
	require.NotEmpty(t, reach.Door, reach.Why)
	return reach
}

// TestDoor has testers reach two tasks side by side, in each way that the page offers. The pool has
// two addresses, so that a third task gets one of them again.
func TestDoor(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Door: servertest.Doors, CoolDown: 1,
		Pool: "127.60.77.1-127.60.77.2"})
	for _, version := range []string{"v1", "v2", "v3"} {
		s.MustBuild(t, "hello_web", version)
	}
	one := startTask(t, s, fmt.Sprint("lines-", os.Getpid()), "v1")
	two := startTask(t, s, "two", "v2")
	for _, line := range one.Lines {
		t.Run(strings.ReplaceAll(line.Tool, " ", "_"), func(t *testing.T) {
			require.Contains(t, runLine(t, line, one), `"version":"v1"`)
		})
	}
	t.Run("the_browser", func(t *testing.T) { inBrowser(t, s, one, two) })
	t.Run("PAC", func(t *testing.T) { pacLeads(t, s) })
}

// runLine runs a line as it is on the page, and returns its output.
func runLine(t *testing.T, line web.Line, reach web.Reach) string {
	t.Helper()
	text, url := line.Text, "http://"+reach.Host+"/"
	switch tool, _, _ := strings.Cut(line.Tool, ","); {
	case tool == "curl":
		testbed.NeedProgram(t, "curl", "curl")
	case tool == "Python":
		testbed.NeedProgram(t, "python3", "python3")
	case tool == "programs that read the environment":
		testbed.NeedProgram(t, "curl", "curl")
		text += "\ncurl " + url
	case tool == "Java":
		testbed.NeedProgram(t, "javac", "default-jdk-headless")
		name := filepath.Join(t.TempDir(), "Fetch.java")
		require.NoError(t, os.WriteFile(name, []byte(`public class Fetch {
	public static void main(String[] args) throws Exception {
		System.out.write(new java.net.URL(args[0]).openStream().readAllBytes());
		System.out.flush();
	}
}
`), 0o600))
		text += " " + name + " " + url
	case tool == "chromedp":
		proxy := strings.TrimSuffix(strings.TrimPrefix(text, `chromedp.ProxyServer("`), `")`)
		b := startBrowser(t, chromedp.ProxyServer(proxy))
		return b.text(url)
	case tool == "Chromium":
		dir := "/tmp/sluice-" + reach.Task.Task
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		require.Contains(t, text, "--user-data-dir="+dir+" ")
		chromium := lookPath("chromium", "chromium-browser", "google-chrome")
		text = strings.Replace(text, "chromium ", chromium+" --headless --no-sandbox "+
			"--disable-gpu --disable-dev-shm-usage --dump-dom ", 1)
	default: // a line of /etc/hosts, in a mount namespace of its own
		require.True(t, strings.HasPrefix(tool, "/etc/hosts"), tool)
		testbed.NeedProgram(t, "curl", "curl")
		name := filepath.Join(t.TempDir(), "hosts")
		require.NoError(t, os.WriteFile(name, []byte(text+"\n"), 0o644))
		url := strings.TrimPrefix(line.Tool, "/etc/hosts, then ")
		text = fmt.Sprintf("unshare -rm sh -c 'mount --bind %s /etc/hosts && curl %s'", name, url)
	}
	var out, problems strings.Builder
	for range 3 { // of a browser that ends before it begins: see startBrowser
		cmd := exec.CommandContext(t.Context(), "sh", "-c", text)
		out.Reset()
		cmd.Stdout, cmd.Stderr = &out, &problems
		if err := cmd.Run(); err == nil && out.Len() > 0 {
			return out.String()
		}
	}
	t.Fatalf("%s\nprints %s\n%s", text, out.String(), problems.String())
	return ""
}

// text is the text of the page at the URL.
func (b *tab) text(url string) string {
	b.Helper()
	b.do(chromedp.Navigate(url))
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	require.NoError(b, err)
	return text
}

// through is a tab of the browser in a context of its own, whose proxy is the door.
func (b *tab) through(door string) *tab {
	b.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(
		func(p *target.CreateBrowserContextParams) { p.ProxyServer = "http://" + door }))
	b.Cleanup(cancel)
	return &tab{b.T, ctx, ""}
}

func inBrowser(t *testing.T, s *servertest.Server, one, two web.Reach) {
	const url = "http://bj.city.example/"
	b := startBrowser(t, chromedp.Flag("ignore-certificate-errors-spki-list", one.Pin))
	overTLS(t, b, one, two)
	first, second := b.through(one.Door), b.through(two.Door)
	require.Contains(t, first.text(url), `"version":"v1"`)
	require.Contains(t, second.text(url), `"version":"v2"`)
	first.see("a cookie", `(document.cookie = "mine=1; path=/", document.cookie == "mine=1")`)
	second.see("no cookie of the other task", `document.cookie == ""`)
	require.Contains(t, second.text("http://sluice.test/"), "hello_web v2")
	require.Contains(t, second.text("http://example.org/"), "serves no host example.org")
	conn, err := net.Dial("tcp", two.Door)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n"+
		"Connection: close\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(answer), "HTTP/1.1 403 ")

	require.Contains(t, first.text(url), `"version":"v1"`)
	s.Call(t, "DELETE", "/tasks/"+one.Task.Task+"?actor=bob", nil, nil)
	// the service lets a browser keep a page for a minute: another page is asked for
	require.Contains(t, first.text(url+"?after"), "ended at")
	var third web.Reach
	testbed.Poll(t, "the VIP is leased again", func() error { // once it has cooled down
		response, body := s.Do(t, "POST", "/tasks", strings.NewReader(
			`{"task":"three","cluster":"hello_web","version":"v3","actor":"bob"}`))
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", response.Status, body)
		}
		s.Call(t, "GET", "/tasks/three/reach", nil, &third)
		return nil
	})
	require.Equal(t, one.Task.VIP, third.Task.VIP)
	require.NotEqual(t, one.Door, third.Door)
	require.Contains(t, first.text(url+"?later"), "ended at")
	require.Contains(t, b.through(third.Door).text(url), `"version":"v3"`)
	err = chromedp.Do(first.ctx, chromedp.Navigate("https://bj.city.example/?later"))
	require.ErrorContains(t, err, "ERR_TUNNEL_CONNECTION_FAILED")
}

// overTLS reaches two tasks by https in contexts of their own: over HTTP/2, with certificates of the
// server's authority, and by http again after production's Strict-Transport-Security was seen.
func overTLS(t *testing.T, b *tab, one, two web.Reach) {
	const url = "https://bj.city.example/"
	first, second := b.through(one.Door), b.through(two.Door)
	require.Contains(t, first.text(url), `"version":"v1"`)
	require.Contains(t, second.text(url), `"version":"v2"`)
	first.see("HTTP/2", `performance.getEntriesByType("navigation")[0].nextHopProtocol == "h2"`)
	first.see("a cookie", `(document.cookie = "mine=1; path=/", document.cookie == "mine=1")`)
	second.see("no cookie of the other task", `document.cookie == ""`)
	require.Contains(t, first.text("http://bj.city.example/?strict"), `"version":"v1"`)
	first.see("the browser asks for https by itself", `location.protocol == "https:"`)
	err := chromedp.Do(second.ctx, chromedp.Navigate("https://example.org/"))
	require.ErrorContains(t, err, "ERR_TUNNEL_CONNECTION_FAILED")
}

// pacLeads opens a browser with the PAC file of a task.
func pacLeads(t *testing.T, s *servertest.Server) {
	var reach web.Reach
	s.Call(t, "GET", "/tasks/two/reach", nil, &reach)
	other := textServer(t, "not of the tree")
	b := startBrowser(t, chromedp.Flag("proxy-pac-url", s.URL+reach.PAC),
		chromedp.Flag("host-resolver-rules", "MAP uncovered.test "+other))
	require.Contains(t, b.text("http://bj.city.example/"), `"version":"v2"`)
	require.Contains(t, b.text("http://any.city.example/"), `"version":"v2"`)
	require.Contains(t, b.text("http://uncovered.test/"), "not of the tree")
}

// textServer answers every request with the text, at the address.
func textServer(t *testing.T, text string) (addr string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, text)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestPACNeverDirect takes the door away from a browser that has a PAC file. If the browser went
// direct, "production" would answer it.
func TestPACNeverDirect(t *testing.T) {
	t.Parallel()
	production := textServer(t, "production")
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "the door")
	}))
	defer proxy.Close()
	pac := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
		_, _ = io.WriteString(w, door.PAC(proxy.Listener.Addr().String(),
			[]string{"bj.city.example"}))
	}))
	defer pac.Close()
	b := startBrowser(t, chromedp.Flag("proxy-pac-url", pac.URL+"/a.pac"),
		chromedp.Flag("host-resolver-rules", "MAP *.example "+production))
	require.Contains(t, b.text("http://bj.city.example/"), "the door")
	require.Contains(t, b.text("http://uncovered.example/"), "production")
	proxy.Close() // the file stays: a browser fetches it again whenever the network changes
	for n := range 3 {
		err := chromedp.Do(b.ctx, chromedp.Navigate(fmt.Sprint("http://bj.city.example/?", n)))
		require.ErrorContains(t, err, "ERR_PROXY_CONNECTION_FAILED")
	}
	require.Contains(t, b.text("http://uncovered.example/?later"), "production")
}

func TestPACAddress(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Door: servertest.Doors, Token: "secret"})
	for _, path := range []string{"/pac/two/x.pac", "/pac/two/.pac", "/pac/two/"} {
		response, err := http.Get(s.URL + path)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, 404, response.StatusCode, path)
	}
	response, _ := s.Do(t, "GET", "/tasks/two/reach", nil)
	require.Equal(t, 404, response.StatusCode)
	require.Contains(t, s.Platform.PAC("two"), `"PROXY 127.0.0.1:1"`)
}

// TestSessionStaysAtHome signs a browser in and visits programs at other ports of the same
// addresses, as a page under test is.
func TestSessionStaysAtHome(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{Token: "secret"})
	var mu sync.Mutex
	var seen []string
	instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprint(r.Host, " ", r.Header.Get("Cookie")))
		_, _ = fmt.Fprintln(w, "an instance")
	}))
	defer instance.Close()
	addr := netip.MustParseAddrPort(instance.Listener.Addr().String())
	b := startBrowser(t)
	b.do(chromedp.Navigate(s.URL))
	b.see("the page's own host", `location.hostname == "sluice.localhost"`)
	b.set("[name=token]", "secret")
	b.press("main form button")
	b.see("the page", `document.querySelector("#vips")`)
	for _, host := range []string{"127.0.0.1", "localhost", "other.localhost"} {
		require.Contains(t, b.text(fmt.Sprintf("http://%s:%d/", host, addr.Port())), "an instance")
	}
	mu.Lock()
	defer mu.Unlock()
	require.NotEmpty(t, seen)
	for _, request := range seen {
		require.NotContains(t, request, "sluice_session")
	}
	b.do(chromedp.Navigate(strings.Replace(s.URL, "127.0.0.1", "localhost", 1)))
	b.see("the session is still there", `document.querySelector("#vips")`)
}

func TestLinesOfOtherTrees(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reach platform.Reach
		want  int
	}{
		{platform.Reach{}, 0},
		{platform.Reach{Host: "x.example", NginxPort: 80}, 3},
	} {
		lines := web.Lines(c.reach)
		require.Len(t, lines, c.want)
		data, err := json.Marshal(lines)
		require.NoError(t, err)
		require.NotEqual(t, "null", string(data))
	}
}
