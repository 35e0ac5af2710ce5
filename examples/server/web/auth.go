package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
)

const (
	cookieName  = "sluice_session"
	sessionLife = 12 * time.Hour
)

// openPath reports whether a path needs no token: the sign-in page, its assets, the probes, and the
// PAC files, whose addresses cannot be guessed.
func openPath(path string) bool {
	return path == "/login" || path == "/livez" || path == "/readyz" ||
		strings.HasPrefix(path, "/static/") || strings.HasPrefix(path, "/pac/")
}

// authenticate lets a request through that carries the token, or the cookie that stands for it.
func (w *web) authenticate(next http.Handler) http.Handler {
	if w.Token == "" {
		return next
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if openPath(r.URL.Path) || w.session(r) {
			next.ServeHTTP(rw, r)
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if strings.EqualFold(scheme, "Bearer") { // RFC 9110, section 11.1: in any case
			switch right, wait := w.guess(r, strings.TrimSpace(token)); {
			case wait > 0:
				tooMany(rw, wait)
				writeProblem(rw, httpproblem.Quota, "too many wrong tokens: "+waitText(wait))
				return
			case right:
				next.ServeHTTP(rw, r)
				return
			}
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/api/"):
			rw.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
			writeProblem(rw, httpproblem.Unauthenticated, "a token is required: send "+
				"Authorization: Bearer TOKEN")
		case r.URL.Path == "/live" || strings.HasPrefix(r.URL.Path, "/sections/"):
			// the script says so
			writeProblem(rw, httpproblem.Unauthenticated, "sign in again")
		case r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/do/"):
			w.keepForm(rw, r)
		default:
			http.Redirect(rw, r, "/login", http.StatusSeeOther)
		}
	})
}

// guess looks at a token, or returns how long the client waits before one of its tokens is looked
// at again.
func (w *web) guess(r *http.Request, token string) (right bool, wait time.Duration) {
	client := w.client(r)
	if wait = w.guesses.wait(client); wait > 0 {
		return false, wait
	}
	if right = equal(token, w.Token); !right {
		w.guesses.wrong(client)
	}
	return right, 0
}

func tooMany(rw http.ResponseWriter, wait time.Duration) {
	rw.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
}

func waitText(wait time.Duration) string {
	return fmt.Sprintf("wait %d s and try again", int(math.Ceil(wait.Seconds())))
}

// session reports whether the request has the cookie of a session that has not ended.
func (w *web) session(r *http.Request) bool {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return false
	}
	ends, proof, _ := strings.Cut(cookie.Value, ".")
	end, err := strconv.ParseInt(ends, 10, 64)
	return err == nil && equal(proof, w.proof(ends)) && w.now().Before(time.Unix(end, 0))
}

// newSession returns the cookie's value: it proves the token and does not reveal it.
func (w *web) newSession() string {
	ends := strconv.FormatInt(w.now().Add(sessionLife).Unix(), 10)
	return ends + "." + w.proof(ends)
}

func (w *web) proof(ends string) string {
	mac := hmac.New(sha256.New, []byte(w.Token))
	mac.Write([]byte(cookieName + " until " + ends))
	return hex.EncodeToString(mac.Sum(nil))
}

// signIn is the sign-in page: it keeps a form that was sent without a session, and hands it back
// after the sign-in.
type signIn struct {
	Problem string
	Action  string // of the kept form; empty without one
	Fields  []fact
}

// keptPrefix stands before the names of the fields of a kept form.
const keptPrefix = "kept."

// maxKept bounds the size of a kept form: a client without a token can send one, too.
const maxKept = 64 << 10

// keepForm asks for a sign-in, with the form that was sent in the page.
func (w *web) keepForm(rw http.ResponseWriter, r *http.Request) {
	page := signIn{Problem: "You are signed out: the token has changed, or the session has " +
		"ended. What you typed is kept.", Action: r.URL.Path}
	r.Body = http.MaxBytesReader(rw, r.Body, maxKept)
	if r.ParseForm() != nil {
		page = signIn{Problem: "You are signed out, and the form is too large to be kept."}
	}
	page.Fields = hidden(r.PostForm, func(string) bool { return true })
	for n := range page.Fields {
		page.Fields[n].Name = keptPrefix + page.Fields[n].Name
	}
	w.render(rw, r, http.StatusUnauthorized, "login.html", page)
}

func (w *web) login(rw http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.render(rw, r, http.StatusOK, "login.html", signIn{})
		return
	}
	r.Body = http.MaxBytesReader(rw, r.Body, 2*maxKept) // clients without a token may ask
	if err := r.ParseForm(); err != nil {
		w.render(rw, r, http.StatusBadRequest, "login.html",
			signIn{Problem: "The form is not complete."})
		return
	}
	page := signIn{Action: r.PostForm.Get("action"), Fields: hidden(r.PostForm,
		func(name string) bool {
			return strings.HasPrefix(name, keptPrefix)
		})}
	if !w.isForm(page.Action) {
		page = signIn{}
	}
	right, wait := w.guess(r, r.PostForm.Get("token"))
	switch {
	case wait > 0:
		tooMany(rw, wait)
		page.Problem = "Too many wrong tokens: " + waitText(wait) + "."
		w.render(rw, r, http.StatusTooManyRequests, "login.html", page)
	case !right:
		page.Problem = "That is not the token of this server."
		w.render(rw, r, http.StatusUnauthorized, "login.html", page)
	default:
		w.setCookie(rw, r, &http.Cookie{Name: cookieName, Value: w.newSession(),
			MaxAge: int(sessionLife.Seconds())})
		if page.Action == "" {
			http.Redirect(rw, r, "/", http.StatusSeeOther)
			return
		}
		for n := range page.Fields {
			page.Fields[n].Name = strings.TrimPrefix(page.Fields[n].Name, keptPrefix)
		}
		w.render(rw, r, http.StatusOK, "kept.html", page)
	}
}

// logout ends the session in this browser. Others end after sessionLife, or all at once with
// another token.
func (w *web) logout(rw http.ResponseWriter, r *http.Request) {
	w.setCookie(rw, r, &http.Cookie{Name: cookieName, MaxAge: -1})
	http.Redirect(rw, r, "/login", http.StatusSeeOther)
}

// isForm reports whether a form may be sent to the path.
func (w *web) isForm(path string) bool {
	for _, a := range w.acts() {
		if path == "/do/"+a.name {
			return true
		}
	}
	return false
}

func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// setCookie sets a cookie for this site alone.
func (w *web) setCookie(rw http.ResponseWriter, r *http.Request, cookie *http.Cookie) {
	cookie.Path, cookie.HttpOnly, cookie.SameSite = "/", true, http.SameSiteStrictMode
	cookie.Secure = r.TLS != nil || w.TLSProxy
	http.SetCookie(rw, cookie)
}

// Shown are the fields that a person has filled in.
func (s signIn) Shown() (shown []fact) {
	for _, field := range s.Fields {
		if !strings.HasPrefix(field.Name, "seen.") && field.Name != "expect" &&
			field.Name != "confirmed" && field.Value != "" {
			shown = append(shown, fact{Name: strings.TrimPrefix(field.Name, "param."),
				Value: field.Value})
		}
	}
	return shown
}
