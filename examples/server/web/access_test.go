package web_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/examples/server/web"
)

const token = "the token of this test"

// site is the web side without a platform: access is decided before one is needed.
func site(t *testing.T, listen, token string) http.Handler {
	t.Helper()
	handler, err := web.New(web.Config{Platform: &platform.Platform{}, Listen: listen,
		Token: token})
	require.NoError(t, err)
	return handler
}

func TestATokenIsRequiredWhereOthersCanReach(t *testing.T) {
	t.Parallel()
	for listen, loopback := range map[string]bool{
		"127.0.0.1:8800": true, "127.9.9.9:1": true, "[::1]:8800": true, "localhost:8800": true,
		"0.0.0.0:8800": false, "[::]:8800": false, ":8800": false, "10.1.2.3:8800": false,
		"localhost.example:8800": false,
	} {
		_, err := web.New(web.Config{Platform: &platform.Platform{}, Listen: listen})
		if loopback {
			require.NoError(t, err, listen)
		} else {
			require.ErrorIs(t, err, web.ErrTokenRequired, listen)
		}
	}
}

func TestBadConfigIsNamed(t *testing.T) {
	t.Parallel()
	good := web.Config{Platform: &platform.Platform{}, Listen: "127.0.0.1:8800"}
	for field, change := range map[string]func(*web.Config){
		"Platform":                    func(cfg *web.Config) { cfg.Platform = nil },
		`Listen: address ""`:          func(cfg *web.Config) { cfg.Listen = "" },
		`Listen: address "127.0.0.1"`: func(cfg *web.Config) { cfg.Listen = "127.0.0.1" },
		`Listen: address "127.0.0.1:99999"`: func(cfg *web.Config) {
			cfg.Listen = "127.0.0.1:99999"
		},
		`Listen: address "127.0.0.1:http"`: func(cfg *web.Config) {
			cfg.Listen = "127.0.0.1:http"
		},
	} {
		cfg := good
		change(&cfg)
		_, err := web.New(cfg)
		require.ErrorIs(t, err, web.ErrInvalid, field)
		require.ErrorContains(t, err, "web: Config."+field)
	}
	_, err := web.New(web.Config{Listen: "0.0.0.0:80"})
	require.ErrorIs(t, err, web.ErrInvalid, "all problems at once")
	require.ErrorIs(t, err, web.ErrTokenRequired, "all problems at once")
}

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	open, closed := site(t, "127.0.0.1:8800", ""), site(t, "0.0.0.0:8800", token)
	const document = "/api/v1/openapi.json"
	for _, tc := range []struct {
		name, method, target string
		handler              http.Handler
		header               [2]string
		status               int
	}{
		{"loopback", "GET", "http://127.0.0.1:8800" + document, open, [2]string{}, 200},
		{"loopback by name", "GET", "http://localhost" + document, open, [2]string{}, 200},
		{"loopback of IPv6", "GET", "http://[::1]" + document, open, [2]string{}, 200},
		{"loopback of IPv6 with a port", "GET", "http://[::1]:8800" + document, open, [2]string{},
			200},
		{"a foreign name", "GET", "http://rebound.example:8800" + document, open, [2]string{}, 421},
		{"a foreign address", "GET", "http://10.0.0.1" + document, open, [2]string{}, 421},
		{"another site's form", "POST", "http://127.0.0.1:8800/do/finish", open,
			[2]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another site's form, older browser", "POST", "http://127.0.0.1:8800/api/v1/builds", open,
			[2]string{"Origin", "http://evil.example"}, 403},
		{"another port of this machine", "POST", "http://127.0.0.1:8800/api/v1/builds", open,
			[2]string{"Origin", "http://127.0.0.1:9000"}, 403},
		{"no token", "GET", "http://deploy.example" + document, closed, [2]string{}, 401},
		{"no token, the page", "GET", "http://deploy.example/", closed, [2]string{}, 303},
		{"the sign-in page", "GET", "http://deploy.example/login", closed, [2]string{}, 200},
		{"what the sign-in page needs", "GET", "http://deploy.example/static/app.css", closed,
			[2]string{}, 200},
		{"token", "GET", "http://deploy.example" + document, closed, [2]string{"Authorization",
			"Bearer " + token}, 200},
		{"token, the scheme in another case", "GET", "http://deploy.example" + document, closed,
			[2]string{"Authorization", "bEARER " + token}, 200},
		{"another scheme", "GET", "http://deploy.example" + document, closed,
			[2]string{"Authorization", "Basic " + token}, 401},
		{"wrong token", "GET", "http://deploy.example" + document, closed,
			[2]string{"Authorization", "Bearer " + token + "!"}, 401},
		{"empty token", "GET", "http://deploy.example" + document, closed,
			[2]string{"Authorization", "Bearer "}, 401},
		{"the token as a cookie", "GET", "http://deploy.example" + document, closed,
			[2]string{"Cookie", "sluice_session=" + url.QueryEscape(token)}, 401},
		{"token from another site", "POST", "http://deploy.example/api/v1/builds", closed,
			[2]string{"Sec-Fetch-Site", "cross-site"}, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(tc.method, tc.target, nil)
			if tc.header[0] != "" {
				r.Header.Set(tc.header[0], tc.header[1])
			}
			rw := httptest.NewRecorder()
			tc.handler.ServeHTTP(rw, r)
			require.Equal(t, tc.status, rw.Code, rw.Body.String())
			require.NotContains(t, rw.Body.String(), token)
			if tc.status < 400 {
				return
			}
			require.Equal(t, "application/problem+json", rw.Header().Get("Content-Type"))
			var problem web.Problem
			require.NoError(t, json.Unmarshal(rw.Body.Bytes(), &problem))
			require.Equal(t, tc.status, problem.Status)
			require.Equal(t, http.StatusText(tc.status), problem.Title)
			require.NotEmpty(t, problem.Detail)
			if tc.status == http.StatusUnauthorized {
				require.Contains(t, rw.Header().Get("WWW-Authenticate"), "Bearer")
			}
		})
	}
}

func TestSigningInGivesACookieThatIsNotTheToken(t *testing.T) {
	t.Parallel()
	handler := site(t, "0.0.0.0:8800", token)
	signIn := func(token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "http://deploy.example/login",
			strings.NewReader(url.Values{"token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rw := httptest.NewRecorder()
		handler.ServeHTTP(rw, r)
		return rw
	}
	wrong := signIn("a guess")
	require.Equal(t, http.StatusUnauthorized, wrong.Code)
	require.Contains(t, wrong.Body.String(), "not the token")
	require.Empty(t, wrong.Result().Cookies())

	right := signIn(token)
	require.Equal(t, http.StatusSeeOther, right.Code)
	require.Len(t, right.Result().Cookies(), 1)
	cookie := right.Result().Cookies()[0]
	require.True(t, cookie.HttpOnly)
	require.Equal(t, http.SameSiteStrictMode, cookie.SameSite)
	require.NotContains(t, cookie.Value, token)

	r := httptest.NewRequest("GET", "http://deploy.example/api/v1/openapi.json", nil)
	r.AddCookie(cookie)
	rw := httptest.NewRecorder()
	handler.ServeHTTP(rw, r)
	require.Equal(t, http.StatusOK, rw.Code)
}

func TestUnknownPathsAndMethodsAreProblemsToo(t *testing.T) {
	t.Parallel()
	handler := site(t, "127.0.0.1:8800", "")
	for _, tc := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/api/v1/nothing", 404, ""}, {"GET", "/api/", 404, ""}, {"DELETE", "/api/v1/builds",
			405, "GET, POST"}, {"POST", "/api/v1/health", 405, "GET"},
	} {
		rw := httptest.NewRecorder()
		handler.ServeHTTP(rw, httptest.NewRequest(tc.method, "http://localhost"+tc.path, nil))
		require.Equal(t, tc.status, rw.Code, tc.path)
		require.Equal(t, tc.allow, rw.Header().Get("Allow"), tc.path)
		require.Equal(t, "application/problem+json", rw.Header().Get("Content-Type"), tc.path)
	}
}

func TestPagesThatAreNotThere(t *testing.T) {
	t.Parallel()
	handler := site(t, "127.0.0.1:8800", "")
	for _, path := range []string{"/nowhere", "/static/", "/static", "/static/nothing.css",
		"/builds/", "/static/../web.go"} {
		rw := httptest.NewRecorder()
		handler.ServeHTTP(rw, httptest.NewRequest("GET", "http://localhost"+path, nil))
		if rw.Code == http.StatusTemporaryRedirect || rw.Code == http.StatusMovedPermanently {
			continue // to the cleaned path
		}
		require.Equal(t, http.StatusNotFound, rw.Code, path)
		require.Contains(t, rw.Body.String(), "<h1>Not Found</h1>", path)
		require.NotContains(t, rw.Body.String(), "app.js</a>", path)
	}
	rw := httptest.NewRecorder()
	handler.ServeHTTP(rw, httptest.NewRequest("GET", "http://localhost/static/app.css", nil))
	require.Equal(t, http.StatusOK, rw.Code)
	require.Equal(t, "text/css; charset=utf-8", rw.Header().Get("Content-Type"))
	require.NotEmpty(t, rw.Header().Get("ETag"))
}
