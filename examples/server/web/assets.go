package web

import (
	"embed"
	"io/fs"
	"mime"
	"net/http"
	"path"
)

//go:embed static
var static embed.FS

// assets serves the files below static, each at its own path: there is no list of them.
func (w *web) assets(mux *http.ServeMux) {
	files, err := fs.Glob(static, "static/*")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for _, name := range files {
		body, err := static.ReadFile(name)
		if err != nil {
			panic(err) // it is embedded
		}
		file := encode(mime.TypeByExtension(path.Ext(name)), body)
		mux.HandleFunc("GET /"+name, file.serve)
	}
}
