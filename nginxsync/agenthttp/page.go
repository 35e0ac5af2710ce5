package agenthttp

import (
	"bytes"
	"html/template"
	"net/http"
)

// page shows the status to a person. It has no script, and all values are text.
func (h *Handler) page(w http.ResponseWriter, r *http.Request) error {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, h.current(r)); err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy",
		"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	_, _ = w.Write(b.Bytes()) // fails when the client is gone
	return nil
}

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"id": HeldID}).Parse(
	`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>nginxsync agent</title>
<style>
body { font: 15px/1.4 sans-serif; margin: 1.5em; max-width: 70em }
table { border-collapse: collapse; margin-bottom: 1em }
th, td { text-align: left; padding: .2em .8em .2em 0; vertical-align: top }
code { overflow-wrap: anywhere }
</style>
<h1>{{if .Health.OK}}May get requests{{else}}Must not get requests{{end}}</h1>
{{range .Health.Reasons}}<p>{{.}}</p>
{{end}}{{range .Nginx}}<h2>Nginx {{.Name}}</h2>
<table>
<tr><th scope="row">desired<td><code>{{.Agent.Desired}}</code>
<tr><th scope="row">served by every worker<td><code>{{.Agent.Verified}}</code>
<tr><th scope="row">in the state file<td><code>{{.Agent.Saved}}</code>
<tr><th scope="row">revision<td>{{.Agent.Revision}}, verified {{.Agent.VerifiedRevision}}
<tr><th scope="row">lag<td>{{printf "%.3f" .Lag}} s
<tr><th scope="row">term<td>{{.Term}} of agent <code>{{.Writer}}</code>
<tr><th scope="row">workers<td>{{range .Agent.Workers}}{{.PID}} {{end}}
<tr><th scope="row">memory<td>{{.Agent.Free}} of {{.Agent.Memory}} bytes free
{{with .Unreachable}}<tr><th scope="row">unreachable<td>{{.}}
{{end}}{{with .Agent.LastError}}<tr><th scope="row">last error<td>{{.}}
{{end}}{{with .Agent.SaveError}}<tr><th scope="row">state file<td>{{.}}
{{end}}{{with .Agent.SourceError}}<tr><th scope="row">source<td>{{.}}
{{end}}{{with .Agent.Fenced}}<tr><th scope="row">fenced<td>{{.}}
{{end}}{{with .Cutoff}}<tr><th scope="row">connections to gone instances
<td>{{.Ended}} ended, {{.Waiting}} addresses wait
{{with .Error}}<tr><th scope="row">connections stay<td>{{.}}
{{end}}{{with .FileError}}<tr><th scope="row">file of gone addresses<td>{{.}}
{{end}}{{end}}</table>
{{with .Agent.Held}}<h3>Held changes</h3>
<table>
<tr><th scope="col">id<th scope="col">change<th scope="col">since
{{range .}}<tr><td><code>{{id .}}</code><td>{{.}}<td>{{.Since}}
{{end}}</table>
{{end}}{{with .Agent.SetAside}}<h3>Records set aside</h3>
<ul>
{{range .}}<li>{{.}}
{{end}}</ul>
{{end}}{{end}}{{with .Checks}}<h2>Checks</h2>
<p>{{.Checked}} instances are checked, {{len .Failing}} fail</p>
<ul>
{{range .Failing}}<li>{{.}}
{{end}}</ul>
{{end}}{{with .Sources}}<h2>Sources</h2>
<ul>
{{range .}}<li>{{.Name}} ({{.Kind}})
{{end}}</ul>
{{end}}`))
