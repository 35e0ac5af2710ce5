package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
)

const cookieName = "sluice_session"

// authenticate lets a request through that carries the token, or the cookie that stands for it.
func (w *web) authenticate(next http.Handler) http.Handler {
	if w.Token == "" {
		return next
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/login" || strings.HasPrefix(r.URL.Path, "/static/"):
			next.ServeHTTP(rw, r)
		case w.authorized(r):
			next.ServeHTTP(rw, r)
		case strings.HasPrefix(r.URL.Path, "/api/"):
			rw.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
			writeProblem(rw, httpproblem.Unauthenticated, "a token is required: send Authorization: Bearer TOKEN")
		case r.URL.Path == "/live" || strings.HasPrefix(r.URL.Path, "/sections/"): // the script says so
			writeProblem(rw, httpproblem.Unauthenticated, "sign in again")
		default:
			http.Redirect(rw, r, "/login", http.StatusSeeOther)
		}
	})
}

func (w *web) authorized(r *http.Request) bool {
	if token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found {
		return equal(token, w.Token)
	}
	cookie, err := r.Cookie(cookieName)
	return err == nil && equal(cookie.Value, w.session())
}

// session is what the cookie holds: it proves the token and does not tell it.
func (w *web) session() string {
	mac := hmac.New(sha256.New, []byte(w.Token))
	mac.Write([]byte(cookieName))
	return hex.EncodeToString(mac.Sum(nil))
}

func (w *web) login(rw http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(rw, r.Body, 4<<10) // anybody may ask
	if r.Method == http.MethodPost && equal(r.PostFormValue("token"), w.Token) {
		w.setCookie(rw, r, &http.Cookie{Name: cookieName, Value: w.session()})
		http.Redirect(rw, r, "/", http.StatusSeeOther)
		return
	}
	status := http.StatusOK
	if r.Method == http.MethodPost {
		status = http.StatusUnauthorized
	}
	w.render(rw, r, status, "login.html", map[string]any{"Wrong": r.Method == http.MethodPost})
}

func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// setCookie sets a cookie for this site alone.
func (w *web) setCookie(rw http.ResponseWriter, r *http.Request, cookie *http.Cookie) {
	cookie.Path, cookie.HttpOnly, cookie.Secure, cookie.SameSite = "/", true, r.TLS != nil, http.SameSiteStrictMode
	http.SetCookie(rw, cookie)
}
