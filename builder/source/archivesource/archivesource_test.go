package archivesource_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/source"
	"github.com/sluice-deploy/sluice/builder/source/archivesource"
	"github.com/sluice-deploy/sluice/builder/source/sourcetest"
)

// formats pack files.
var formats = map[string]func(t *testing.T, files []sourcetest.File) []byte{
	"tar": func(t *testing.T, files []sourcetest.File) []byte {
		var b bytes.Buffer
		sourcetest.Tar(t, &b, files)
		return b.Bytes()
	},
	"tar.gz": func(t *testing.T, files []sourcetest.File) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		sourcetest.Tar(t, w, files)
		require.NoError(t, w.Close())
		return b.Bytes()
	},
	"tar.zst": func(t *testing.T, files []sourcetest.File) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b)
		require.NoError(t, err)
		sourcetest.Tar(t, w, files)
		require.NoError(t, w.Close())
		return b.Bytes()
	},
	"zip": zipped,
}

func zipped(t *testing.T, files []sourcetest.File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.Name, Method: zip.Deflate}
		content := f.Content
		if h.SetMode(f.Mode); f.Link != "" {
			h.SetMode(fs.ModeSymlink | 0o777)
			content = f.Link
		}
		to, err := w.CreateHeader(h)
		require.NoError(t, err)
		_, err = io.WriteString(to, content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// files serves archives, each under a path of its own.
type files struct {
	*httptest.Server
	mu   sync.Mutex
	all  map[string][]byte
	auth map[string]func(*http.Request) bool
}

func serve(t *testing.T) *files {
	t.Helper()
	s := &files{all: map[string][]byte{}, auth: map[string]func(*http.Request) bool{}}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter,
		q *http.Request) {
		s.mu.Lock()
		data, ok := s.all[q.URL.Path]
		allowed := s.auth[q.URL.Path]
		s.mu.Unlock()
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		case allowed != nil && !allowed(q):
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Write(data)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *files) add(data []byte) source.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := fmt.Sprint("/a", len(s.all))
	s.all[path] = data
	return archive(s.URL+path, data)
}

func archive(url string, data []byte) source.Source {
	sum := sha256.Sum256(data)
	return source.Source{Archive: &source.Archive{URL: url, SHA256: hex.EncodeToString(sum[:])}}
}

func fetcher(t *testing.T, cfg archivesource.Config) *archivesource.Fetcher {
	t.Helper()
	f, err := archivesource.New(cfg)
	require.NoError(t, err)
	return f
}

func TestSuite(t *testing.T) {
	t.Parallel()
	for name, pack := range formats {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.Run(t, func(t *testing.T) sourcetest.Harness {
				s := serve(t)
				return sourcetest.Harness{
					Fetcher: fetcher(t, archivesource.Config{Transport: s.Client().Transport}),
					Serve: func(t *testing.T, files []sourcetest.File) source.Source {
						return s.add(pack(t, files))
					},
					Secured: func(t *testing.T, files []sourcetest.File, user,
						value string) source.Source {
						a := s.add(pack(t, files))
						s.mu.Lock()
						defer s.mu.Unlock()
						s.auth[strings.TrimPrefix(a.Archive.URL, s.URL)] =
							func(q *http.Request) bool {
								gotUser, got, _ := q.BasicAuth()
								return gotUser == user && got == value
							}
						a.Archive.User, a.Archive.Secret = user, "password"
						return a
					},
					Missing: archive(s.URL+"/none", nil),
					Gone:    archive("http://"+sourcetest.Gone+"/a", nil),
					Hangs:   archive("http://"+sourcetest.Hang(t)+"/a", nil),
				}
			})
		})
	}
}

func request(t *testing.T, s source.Source) source.Request {
	t.Helper()
	return source.Request{Source: s, Dir: t.TempDir(), Scratch: t.TempDir()}
}

// refused fetches and wants a failure of the reason, that says something, and no file.
func refused(t *testing.T, f source.Fetcher, r source.Request, want builder.Reason, says string) {
	t.Helper()
	_, err := f.Fetch(t.Context(), r)
	require.Equal(t, want, builder.FailureOf(err).Reason, "%v", err)
	require.ErrorContains(t, err, says)
	for _, dir := range []string{r.Dir, r.Scratch} {
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

func tarOf(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		require.NoError(t, w.WriteHeader(&h))
		w.Write(bytes.Repeat([]byte("x"), int(h.Size)))
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// TestHostileArchives: an entry that no source may have is refused, also behind a good one.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	s := serve(t)
	f := fetcher(t, archivesource.Config{Transport: s.Client().Transport})
	good := tar.Header{Name: "good", Mode: 0o644, Size: 3, Typeflag: tar.TypeReg}
	for says, entries := range map[string][]tar.Header{
		`element ".."`:        {{Name: "../a", Typeflag: tar.TypeReg}},
		`an element ".."`:     {{Name: "a/../../b", Typeflag: tar.TypeReg}},
		"begins with /":       {{Name: "/etc/passwd", Typeflag: tar.TypeReg}},
		"element .git":        {{Name: "x/.GIT/config", Typeflag: tar.TypeReg}},
		"device, a pipe":      {{Name: "dev", Typeflag: tar.TypeChar}},
		"'6'":                 {{Name: "pipe", Typeflag: tar.TypeFifo}},
		"no file before it":   {{Name: "h", Typeflag: tar.TypeLink, Linkname: "later"}},
		`has an element ".."`: {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../x"}},
		"out of the source": {{Name: "d/l", Typeflag: tar.TypeSymlink,
			Linkname: "../../x"}},
		"which is no directory": {{Name: "good/x", Typeflag: tar.TypeReg}},
		"stands twice":          {{Name: "good", Typeflag: tar.TypeDir}},
		"below \"l\", which is no ": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d"},
			{Name: "d", Typeflag: tar.TypeDir}, {Name: "l/x", Typeflag: tar.TypeReg}},
		"in a circle": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "m"},
			{Name: "m", Typeflag: tar.TypeSymlink, Linkname: "l"}},
	} {
		data := tarOf(t, append([]tar.Header{good}, entries...)...)
		refused(t, f, request(t, s.add(data)), builder.ReasonSourceRefused, says)
	}
	whole := formats["tar.gz"](t, sourcetest.Sample())
	refused(t, f, request(t, s.add(whole[:len(whole)/2])), builder.ReasonSourceRefused, "EOF")
	refused(t, f, request(t, s.add([]byte("BZh9 something else"))), builder.ReasonSourceRefused,
		"no tar file")
	refused(t, f, request(t, s.add(nil)), builder.ReasonSourceRefused, "no tar file")
	zip := zipped(t, []sourcetest.File{{Name: `a\b`, Mode: 0o644, Content: "x"}})
	refused(t, f, request(t, s.add(zip)), builder.ReasonSourceRefused, `"\"`)
	zip = zipped(t, []sourcetest.File{{Name: `../b`, Mode: 0o644, Content: "x"}})
	refused(t, f, request(t, s.add(zip)), builder.ReasonSourceRefused, `element ".."`)
}

// TestBombs: a small file that unpacks to more than the limit is refused before it is written.
func TestBombs(t *testing.T) {
	t.Parallel()
	s := serve(t)
	f := fetcher(t, archivesource.Config{Transport: s.Client().Transport})
	zeros := []sourcetest.File{{Name: "zeros", Mode: 0o644, Content: strings.Repeat("\x00", 1<<20)}}
	for name, pack := range formats {
		r := request(t, s.add(pack(t, zeros)))
		r.Limits.Bytes = 1<<20 - 1
		says := "too large"
		if name == "tar" {
			says = "more than" // the file itself
		}
		refused(t, f, r, builder.ReasonSourceRefused, says)
	}
}

// TestLaterEntries: as with tar, a later entry takes the place of an earlier one, and a hard link
// is the file.
func TestLaterEntries(t *testing.T) {
	t.Parallel()
	s := serve(t)
	data := tarOf(t, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./a", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3},
		tar.Header{Name: "b", Typeflag: tar.TypeSymlink, Linkname: "a"},
		tar.Header{Name: "b", Typeflag: tar.TypeReg, Mode: 0o755, Size: 5},
		tar.Header{Name: "c", Typeflag: tar.TypeLink, Linkname: "./b"},
		tar.Header{Name: "closed", Typeflag: tar.TypeDir, Mode: 0o500},
		tar.Header{Name: "closed/f", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 1})
	r := request(t, s.add(data))
	id, err := fetcher(t, archivesource.Config{Transport: s.Client().Transport}).Fetch(
		t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, 5, id.Files)
	require.EqualValues(t, 9, id.Bytes)
	for name, want := range map[string]string{"a": "xxx", "b": "xxxxx", "c": "xxxxx"} {
		got, err := os.ReadFile(filepath.Join(r.Dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got), name)
	}
	for name, want := range map[string]fs.FileMode{"b": 0o755, "closed": fs.ModeDir | 0o700,
		"closed/f": 0o755} {
		info, err := os.Lstat(filepath.Join(r.Dir, name))
		require.NoError(t, err)
		require.Equal(t, want, info.Mode(), name)
	}
}

// TestAnswers: each status of a server has its reason.
func TestAnswers(t *testing.T) {
	t.Parallel()
	var status int
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	f := fetcher(t, archivesource.Config{})
	for code, want := range map[int]builder.Reason{404: builder.ReasonSourceNotFound,
		410: builder.ReasonSourceNotFound, 401: builder.ReasonSourceDenied,
		403: builder.ReasonSourceDenied, 429: builder.ReasonSourceAway,
		503: builder.ReasonSourceAway, 204: builder.ReasonSourceRefused,
		418: builder.ReasonSourceRefused} {
		status = code
		refused(t, f, request(t, archive(server.URL, nil)), want, fmt.Sprint(code))
	}
	other := archive(server.URL, nil)
	other.Archive.SHA256 = strings.Repeat("ab", 32)
	status = 200
	refused(t, f, request(t, other), builder.ReasonSourceRefused, "want abab")
}

// TestSlowServer: a server that stops in the middle of the file is left, and may be tried again.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		if q.URL.Path == "/cut" {
			panic(http.ErrAbortHandler)
		}
		<-ended
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(ended) })
	f := fetcher(t, archivesource.Config{Idle: 100 * time.Millisecond})
	refused(t, f, request(t, archive(server.URL, nil)), builder.ReasonSourceAway,
		"sent nothing for 100ms")
	f = fetcher(t, archivesource.Config{})
	refused(t, f, request(t, archive(server.URL+"/cut", nil)), builder.ReasonSourceAway,
		"ended early")
}

// TestRedirections: credentials stay with the host that they are for, and https:// stays https://.
func TestRedirections(t *testing.T) {
	t.Parallel()
	data := formats["tar"](t, sourcetest.Sample())
	var sent []string
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		sent = append(sent, q.Header.Get("Authorization"))
		w.Write(data)
	}))
	t.Cleanup(other.Close)
	to := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	first := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		sent = append(sent, q.Header.Get("Authorization"))
		http.Redirect(w, q, to, http.StatusFound)
	}))
	t.Cleanup(first.Close)
	transport := first.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.InsecureSkipVerify = true // the name localhost
	f := fetcher(t, archivesource.Config{Transport: transport})
	s := archive(first.URL, data)
	s.Archive.Secret = "token"
	r := request(t, s)
	r.Secrets = map[string]string{"token": "t0ken"}
	_, err := f.Fetch(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, []string{"Bearer t0ken", ""}, sent)

	to = strings.Replace(to, "https://", "http://", 1)
	r = request(t, s)
	r.Secrets = map[string]string{"token": "t0ken"}
	refused(t, f, r, builder.ReasonSourceAway, "redirection from https to http")
}

// TestFiles reads archives of a directory of this machine, and nothing outside of it.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := formats["tar.gz"](t, sourcetest.Sample())
	outside := filepath.Join(t.TempDir(), "outside.tar.gz")
	require.NoError(t, os.WriteFile(outside, data, 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "sub", "a.tar.gz"), data, 0o644))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "out")))
	f := fetcher(t, archivesource.Config{Dir: dir})
	_, err := f.Fetch(t.Context(), request(t, archive("file:///sub/a.tar.gz", data)))
	require.NoError(t, err)
	for _, name := range []string{"none", "sub", "out", "../" + filepath.Base(outside)} {
		refused(t, f, request(t, archive("file:///"+name, data)), builder.ReasonSourceNotFound, "")
	}
	refused(t, fetcher(t, archivesource.Config{}), request(t, archive("file:///sub/a.tar.gz",
		data)), builder.ReasonSourceDenied, "own disk")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Fetch(ctx, request(t, archive("file:///sub/a.tar.gz", data)))
	require.ErrorIs(t, err, context.Canceled)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := archivesource.New(archivesource.Config{Idle: -1})
	require.ErrorIs(t, err, builder.ErrInvalid)
	require.ErrorContains(t, err, "Config.Idle")
}
