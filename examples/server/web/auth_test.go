package web_test

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/server/web"
)

// guarded is a site with a token, behind a proxy or not, whose clock is now.
func guarded(t *testing.T, proxy bool, now *time.Time) http.Handler {
	t.Helper()
	handler, err := web.New(web.Config{
		Platform: &platform.Platform{}, Listen: "0.0.0.0:8800", Token: token, TLSProxy: proxy,
		Now: func() time.Time {
			return *now
		},
	})
	require.NoError(t, err)
	return handler
}

// ask sends a request from an address; a body is a form.
func ask(handler http.Handler, method, path, body, from string,
	header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://deploy.example"+path, strings.NewReader(body))
	r.RemoteAddr = from
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for n := 0; n < len(header); n += 2 {
		r.Header.Add(header[n], header[n+1])
	}
	rw := httptest.NewRecorder()
	handler.ServeHTTP(rw, r)
	return rw
}

func signInForm(token string) string { return url.Values{"token": {token}}.Encode() }

func TestWrongTokensAreThrottled(t *testing.T) {
	t.Parallel()
	now := time.Now()
	handler := guarded(t, false, &now)
	const one, other = "192.0.2.1:1", "192.0.2.2:1"
	session := ask(handler, "POST", "/login", signInForm(token), one).Result().Cookies()[0]
	for range 5 {
		require.Equal(t, http.StatusUnauthorized, ask(handler, "POST", "/login",
			signInForm("a guess"), one).Code)
	}
	refused := ask(handler, "POST", "/login", signInForm(token), one)
	require.Equal(t, http.StatusTooManyRequests, refused.Code, "the right one, too: else every "+
		"guess would count")
	require.Equal(t, "3", refused.Header().Get("Retry-After"))
	require.Contains(t, refused.Body.String(), "wait 3 s")
	const document = "/api/v1/openapi.json"
	require.Equal(t, http.StatusTooManyRequests, ask(handler, "GET", document, "", one,
		"Authorization", "Bearer "+token).Code)
	require.Equal(t, http.StatusOK, ask(handler, "GET", document, "", one, "Cookie",
		session.String()).Code, "who is signed in stays")
	require.Equal(t, http.StatusOK, ask(handler, "GET", document, "", other, "Authorization",
		"Bearer "+token).Code)
	now = now.Add(3 * time.Second)
	require.Equal(t, http.StatusUnauthorized, ask(handler, "GET", document, "", one,
		"Authorization", "Bearer a guess").Code)
	require.Equal(t, http.StatusTooManyRequests, ask(handler, "POST", "/login", signInForm(token),
		one).Code)
	now = now.Add(time.Minute)
	require.Equal(t, http.StatusSeeOther, ask(handler, "POST", "/login", signInForm(token),
		one).Code)

	for n := range 5 { // one place of IPv6 has many addresses
		ask(handler, "POST", "/login", signInForm("a guess"), fmt.Sprintf("[2001:db8::%x]:1", n+1))
	}
	require.Equal(t, http.StatusTooManyRequests, ask(handler, "POST", "/login", signInForm(token),
		"[2001:db8::ffff]:1").Code)
	require.Equal(t, http.StatusSeeOther, ask(handler, "POST", "/login", signInForm(token),
		"[2001:db8:0:1::1]:1").Code)
}

func TestBehindATLSProxy(t *testing.T) {
	t.Parallel()
	now := time.Now()
	handler := guarded(t, true, &now)
	const proxy = "127.0.0.1:9"
	for range 6 {
		ask(handler, "POST", "/login", signInForm("a guess"), proxy, "X-Forwarded-For",
			"198.51.100.7, 192.0.2.1")
	}
	require.Equal(t, http.StatusTooManyRequests, ask(handler, "POST", "/login", signInForm(token),
		proxy, "X-Forwarded-For", "198.51.100.8, 192.0.2.1").Code,
		"only the last address is the proxy's word")
	good := ask(handler, "POST", "/login", signInForm(token), proxy, "X-Forwarded-For",
		"192.0.2.1, 192.0.2.2")
	require.Equal(t, http.StatusSeeOther, good.Code)
	require.True(t, good.Result().Cookies()[0].Secure)
	require.False(t, ask(guarded(t, false, &now), "POST", "/login", signInForm(token),
		proxy).Result().Cookies()[0].Secure)

	_, err := web.New(web.Config{Platform: &platform.Platform{}, Listen: "127.0.0.1:8800",
		TLSProxy: true})
	require.ErrorIs(t, err, web.ErrTokenRequired)
	handler, err = web.New(web.Config{Platform: &platform.Platform{}, Listen: "127.0.0.1:8800",
		TLSProxy: true, Token: token})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, ask(handler, "GET", "/login", "", proxy).Code,
		"a proxy asks with the name that the browser knows")
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	now := time.Now()
	handler := guarded(t, false, &now)
	session := ask(handler, "POST", "/login", signInForm(token), "192.0.2.1:1").Result().Cookies()[0]
	out := ask(handler, "POST", "/logout", "", "192.0.2.1:1", "Cookie", session.String())
	require.Equal(t, "/login", out.Header().Get("Location"))
	require.Negative(t, out.Result().Cookies()[0].MaxAge)
	const document = "/api/v1/openapi.json"
	now = now.Add(12*time.Hour - time.Second)
	require.Equal(t, http.StatusOK, ask(handler, "GET", document, "", "192.0.2.1:1", "Cookie",
		session.String()).Code)
	now = now.Add(time.Second)
	require.Equal(t, http.StatusUnauthorized, ask(handler, "GET", document, "", "192.0.2.1:1",
		"Cookie", session.String()).Code)
	ends, proof, _ := strings.Cut(session.Value, ".")
	for _, forged := range []string{"9" + ends + "." + proof, proof, "." + proof, ends,
		ends + "."} {
		require.Equal(t, http.StatusUnauthorized, ask(handler, "GET", document, "", "192.0.2.1:1",
			"Cookie", session.Name+"="+forged).Code, forged)
	}
}

func TestAFormSurvivesTheSignIn(t *testing.T) {
	t.Parallel()
	now := time.Now()
	handler := guarded(t, false, &now)
	sent := url.Values{"task": {`<b>"redesign"`}, "image": {"hello_web v1"}, "seen.hello_web": {""},
		"token": {"a field of this name"}}
	asked := ask(handler, "POST", "/do/tasks", sent.Encode(), "192.0.2.1:1")
	require.Equal(t, http.StatusUnauthorized, asked.Code)
	require.Contains(t, asked.Body.String(), "What you typed is kept")
	carried := func(page string) url.Values {
		fields := url.Values{}
		for _, field := range hiddenField.FindAllStringSubmatch(page, -1) {
			fields.Add(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
		}
		return fields
	}
	form := carried(asked.Body.String())
	form.Set("token", "a guess")
	again := ask(handler, "POST", "/login", form.Encode(), "192.0.2.1:1")
	require.Equal(t, http.StatusUnauthorized, again.Code)
	form = carried(again.Body.String())
	form.Set("token", token)
	kept := ask(handler, "POST", "/login", form.Encode(), "192.0.2.1:1")
	require.Equal(t, http.StatusOK, kept.Code)
	require.Contains(t, kept.Body.String(), `action="/do/tasks"`)
	require.Equal(t, sent, carried(kept.Body.String()))

	large := ask(handler, "POST", "/do/tasks", "task="+strings.Repeat("x", 1<<20), "192.0.2.1:1")
	require.Equal(t, http.StatusUnauthorized, large.Code)
	require.Contains(t, large.Body.String(), "too large to be kept")
	for _, action := range []string{"//evil.example/do/tasks", "/logout", "/do/nothing",
		"https://evil.example"} {
		form.Set("action", action)
		require.Equal(t, "/", ask(handler, "POST", "/login", form.Encode(),
			"192.0.2.1:1").Header().Get("Location"), action)
	}
}

// TestTheTokenChangesUnderAnOpenPage puts a handler with another token in the place of the first.
func TestTheTokenChangesUnderAnOpenPage(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	s.MustBuild(t, "hello_web", "v1")
	var site atomic.Pointer[http.Handler]
	use := func(token string) {
		handler, err := web.New(web.Config{Platform: s.Platform, Listen: "127.0.0.1:8800",
			Token: token})
		require.NoError(t, err)
		site.Store(&handler)
	}
	use("the first token")
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		(*site.Load()).ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	s.URL = server.URL
	b := openBrowser(t, s)
	signIn := func(token string) {
		b.see("the sign-in page", `document.querySelector("[name=token]")`)
		b.set("[name=token]", token)
		b.press("button")
	}
	signIn("the first token")
	b.see("it follows the server", `document.getElementById("live").textContent == "live"`)
	b.fill("tasks", "task", "typed-before")
	b.fill("tasks", "actor", "ann")
	b.mark()

	use("the second token")
	server.CloseClientConnections()
	b.see("what is wrong", `document.getElementById("live").textContent.includes("signed out")`)
	b.see("what was typed",
		`window.sameDocument && document.querySelector("[name=task]").value == "typed-before"`)
	b.submit("tasks")
	signIn("the second token")
	b.see("what was typed", `document.querySelector("dl").textContent.includes("typed-before")`)
	b.press("button")
	b.see("the task", `document.querySelector("#vips").textContent.includes("typed-before")`)
}

func TestProbes(t *testing.T) {
	t.Parallel()
	var count counted
	s := servertest.Start(t, servertest.Config{Token: token, Listen: "0.0.0.0:1",
		Observe: count.observe})
	get := func(path string) int {
		response, err := http.Get(s.URL + path)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	require.Equal(t, http.StatusOK, get("/livez"))
	require.Eventually(t, func() bool {
		return get("/readyz") == http.StatusOK
	}, time.Minute, 10*time.Millisecond)
	require.EqualValues(t, 1, count.loads.Load(), "the first page finds its data loaded")
	nginx, err := s.Platform.NginxStatus(t.Context())
	require.NoError(t, err)
	signal := func(sig syscall.Signal) {
		for _, worker := range nginx.Workers {
			require.NoError(t, syscall.Kill(worker.PID, sig))
		}
	}
	signal(syscall.SIGSTOP) // it takes connections and answers none
	t.Cleanup(func() { signal(syscall.SIGCONT) })
	require.Eventually(t, func() bool {
		return get("/readyz") == http.StatusServiceUnavailable
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, http.StatusOK, get("/livez"))
	var health web.Health
	s.Call(t, "GET", "/health", nil, &health)
	require.False(t, health.Ready)
	require.Contains(t, health.Reason, "Nginx")
	signal(syscall.SIGCONT)
	require.Eventually(t, func() bool {
		return get("/readyz") == http.StatusOK
	}, time.Minute, 10*time.Millisecond)
}
