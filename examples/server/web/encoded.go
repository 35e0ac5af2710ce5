package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// encoded is a body that is served to many: compressed once, and with a tag by which a client that
// has it already is found. It is not changed after encode has made it.
type encoded struct {
	contentType string
	body        []byte
	gzip        []byte // the same, compressed
	tag         string // an ETag, weak because both forms have it (RFC 9110, section 8.8.1)
}

func encode(contentType string, body []byte) encoded {
	sum := sha256.Sum256(body)
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // an error is for an unknown level only
	_, _ = z.Write(body)                            // a bytes.Buffer takes everything
	_ = z.Close()
	return encoded{contentType, body, b.Bytes(), `W/"` + hex.EncodeToString(sum[:12]) + `"`}
}

// serve answers with the body, or with 304 when the client has it. The client may keep it if it
// asks again each time.
func (e encoded) serve(rw http.ResponseWriter, r *http.Request) {
	body := e.head(rw, r)
	rw.Header().Set("Cache-Control", "private, no-cache")
	rw.Header().Set("ETag", e.tag)
	http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(body))
}

// write answers with the status and the body, which the client does not keep.
func (e encoded) write(rw http.ResponseWriter, r *http.Request, status int) {
	body := e.head(rw, r)
	rw.Header().Set("Cache-Control", "no-store")
	rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
	rw.WriteHeader(status)
	_, _ = rw.Write(body) // an error means that the client has gone
}

// head sets the headers about the form of the body, and returns the form that the client takes.
func (e encoded) head(rw http.ResponseWriter, r *http.Request) []byte {
	rw.Header().Set("Content-Type", e.contentType)
	rw.Header().Add("Vary", "Accept-Encoding")
	if !takesGzip(r.Header.Get("Accept-Encoding")) {
		return e.body
	}
	rw.Header().Set("Content-Encoding", "gzip")
	return e.gzip
}

// takesGzip reports whether a client with this Accept-Encoding takes gzip (RFC 9110, section
// 12.5.3).
func takesGzip(accept string) bool {
	any := false
	for coding := range strings.SplitSeq(strings.ToLower(accept), ",") {
		name, params, _ := strings.Cut(coding, ";")
		weight, _ := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		takes := weight == "" || err == nil && q > 0
		switch strings.TrimSpace(name) {
		case "gzip", "x-gzip":
			return takes
		case "*":
			any = takes
		}
	}
	return any
}
