package door

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// MagicHost is the host that the door answers itself, on port 80: http://sluice.test/ says which
// task it leads to.
const MagicHost = "sluice.test"

// answer answers with a text for people, and the reason for programs. Nothing of it may be stored.
func answer(rw http.ResponseWriter, r *http.Request, status int, reason, text string) {
	h := rw.Header()
	if r.ContentLength != 0 || unclear(r) { // net/http would wait for the body before it answers
		h.Set("Connection", "close")
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Sluice-Reason", reason)
	rw.WriteHeader(status)
	_, _ = fmt.Fprintln(rw, text) // a client that is gone needs none
}

// ended is the text of a 410.
func ended(t Task) string { return endText(t.Name, t.Ended, strings.Join(versions(t), ", ")) }

func endText(name string, at time.Time, versions string) string {
	text := fmt.Sprintf("The test task %s ended at %s. ", name, at.UTC().Format(time.RFC3339))
	if versions != "" {
		text += "Its last version was " + versions + ". "
	}
	return text + "Nothing answers for it any more."
}

// last is the text of a 410 for a task that Config.Task does not know any more, while it has its
// port.
func (d *Door) last(name string) (text string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.table.of(name)
	if at < 0 {
		return "", false
	}
	a := d.table.Ports[at]
	if a.Ended.IsZero() { // it is written down within a minute
		a.Ended = d.cfg.Now()
	}
	return endText(name, a.Ended, a.Versions), true
}

// versions are "cluster version" in the order of the clusters.
func versions(t Task) []string {
	list := []string{}
	for _, cluster := range slices.Sorted(maps.Keys(t.Versions)) {
		list = append(list, cluster+" "+t.Versions[cluster])
	}
	return list
}

var magic = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sluice: {{.Name}}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}
dt{font-weight:600}dd{margin:0 0 .5rem}@media(prefers-color-scheme:dark){body{background:#111;
color:#eee}a{color:#9cf}}</style></head><body><h1>{{.Name}}</h1>
<p>{{if .Ended}}This test task has ended: nothing answers for it any more.{{else}}This browser
reaches the version under test of this task.{{end}}</p><dl>
<dt>Versions</dt><dd>{{range .Versions}}{{.}}<br>{{else}}none{{end}}</dd>
{{if .Ended}}<dt>Ended</dt><dd>{{.Ended}}</dd>{{else}}<dt>VIP</dt><dd>{{.VIP}}</dd>
<dt>Time left</dt><dd>{{or .Left "no end"}}</dd>{{end}}</dl>
{{if .CA}}<p><a href="/ca.pem">The certificate authority</a> of the test environment, for https:
import it into the browser or the phone.</p>{{end}}</body></html>
`))

// status is the content of the page, also as JSON at /status.json.
type status struct {
	Name     string   `json:"task"`
	Versions []string `json:"versions"`
	VIP      string   `json:"vip,omitempty"`
	Expires  string   `json:"expires,omitempty"`
	Left     string   `json:"timeLeft,omitempty"`
	Ended    string   `json:"ended,omitempty"`
	CA       bool     `json:"ca"`
}

func (d *Door) status(t Task) status {
	s := status{Name: t.Name, Versions: versions(t), CA: d.cfg.CA != nil}
	switch {
	case !t.Ended.IsZero():
		s.Ended = t.Ended.UTC().Format(time.RFC3339)
		return s
	case !t.Expires.IsZero():
		s.Expires = t.Expires.UTC().Format(time.RFC3339)
		s.Left = max(0, t.Expires.Sub(d.cfg.Now())).Round(time.Second).String()
	}
	s.VIP = t.VIP.String()
	return s
}

// page answers for MagicHost.
func (d *Door) page(rw http.ResponseWriter, r *http.Request, name string) {
	rw.Header().Set("Cache-Control", "no-store")
	if unclear(r) {
		rw.Header().Set("Connection", "close")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		rw.Header().Set("Allow", "GET, HEAD")
		answer(rw, r, http.StatusMethodNotAllowed, "method", "This page takes GET.")
		return
	}
	switch block, _ := pem.Decode(d.cfg.CA); {
	case r.URL.Path == "/ca.pem" && block != nil:
		rw.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = rw.Write(pem.EncodeToMemory(block)) // as in answer
		return
	case r.URL.Path == "/ca.crt" && block != nil: // phones take this form
		rw.Header().Set("Content-Type", "application/x-x509-ca-cert")
		_, _ = rw.Write(block.Bytes)
		return
	case r.URL.Path != "/" && r.URL.Path != "/status.json":
		answer(rw, r, http.StatusNotFound, "page", "There are /, /status.json and, with https, "+
			"/ca.pem and /ca.crt.")
		return
	}
	task, err := d.cfg.Task(r.Context(), name)
	if err != nil {
		d.find(rw, r, name)
		return
	}
	code, s := http.StatusOK, d.status(task)
	if s.Ended != "" {
		code = http.StatusGone
	}
	if r.URL.Path == "/status.json" {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(code)
		_ = json.NewEncoder(rw).Encode(s) // as in answer
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; "+
		"frame-ancestors 'none'")
	rw.WriteHeader(code)
	_ = magic.Execute(rw, s) // as in answer
}
