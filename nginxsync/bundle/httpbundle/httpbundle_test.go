package httpbundle_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/depcheck"
	"github.com/sluice-deploy/sluice/nginxsync/bundle"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/bundletest"
	"github.com/sluice-deploy/sluice/nginxsync/bundle/httpbundle"
)

// store serves /tree.tar.gz and /SHA256SUMS.
type store struct {
	*httptest.Server
	mu      sync.Mutex
	archive []byte
	sums    string
	down    bool
	etag    bool
	sent    int // archives
}

func serve(t *testing.T, etag bool) *store {
	s := &store{etag: etag}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(s.Close)
	return s
}

func (s *store) answer(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
		http.Error(w, "down", http.StatusBadGateway)
	case r.URL.Path == "/SHA256SUMS":
		fmt.Fprint(w, s.sums)
	case s.etag:
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(s.archive))))
		counting := &counter{ResponseWriter: w}
		http.ServeContent(counting, r, "", time.Time{}, bytes.NewReader(s.archive))
		if counting.status == 0 || counting.status == http.StatusOK {
			s.sent++
		}
	default:
		s.sent++
		w.Write(s.archive)
	}
}

type counter struct {
	http.ResponseWriter
	status int
}

func (c *counter) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

func (s *store) put(archive []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.archive, s.sums = archive, fmt.Sprintf("%x  other.tar.gz\n%x *tree.tar.gz\n",
		sha256.Sum256(nil), sha256.Sum256(archive))
}

func (s *store) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// pack makes an archive of the headers, each with its text.
func pack(t *testing.T, gz bool, headers []tar.Header, texts []string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if !gz {
		w = tar.NewWriter(&b)
	}
	for i, h := range headers {
		h.Size = int64(len(texts[i]))
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(texts[i]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	if gz {
		require.NoError(t, z.Close())
	}
	return b.Bytes()
}

func packFiles(t *testing.T, gz bool, directory string, f bundletest.Files) []byte {
	var headers []tar.Header
	var texts []string
	for name, text := range f {
		h := tar.Header{Typeflag: tar.TypeReg, Name: directory + name,
			Mode: int64(bundletest.Mode(name))}
		if to, ok := bundletest.LinkTarget(text); ok {
			h.Typeflag, h.Linkname, text = tar.TypeSymlink, to, ""
		}
		headers = append(headers, h)
		texts = append(texts, text)
	}
	return pack(t, gz, headers, texts)
}

func TestContractWithETagAndChecksum(t *testing.T) {
	t.Parallel()
	bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
		s := serve(t, true)
		source, err := httpbundle.New(httpbundle.Config{URL: s.URL + "/tree.tar.gz?x=y",
			ChecksumURL: s.URL + "/SHA256SUMS", Subdir: "repo-1.0/etc",
			Every: 10 * time.Millisecond, Limits: bundletest.Limits})
		require.NoError(t, err)
		return &bundletest.Harness{
			Source: source,
			Set:    func(f bundletest.Files) { s.put(packFiles(t, true, "repo-1.0/etc/", f)) },
			Away:   func() { s.setDown(true) },
			Back:   func() { s.setDown(false) },
		}
	})
}

func TestContractOfAPlainServer(t *testing.T) {
	t.Parallel()
	bundletest.Run(t, func(t *testing.T) *bundletest.Harness {
		s := serve(t, false)
		source, err := httpbundle.New(httpbundle.Config{URL: s.URL + "/tree.tar",
			Every: 10 * time.Millisecond, Limits: bundletest.Limits})
		require.NoError(t, err)
		return &bundletest.Harness{
			Source: source,
			Set:    func(f bundletest.Files) { s.put(packFiles(t, false, "./", f)) },
			Away:   func() { s.setDown(true) },
			Back:   func() { s.setDown(false) },
		}
	})
}

// An archive that has not changed is not sent again.
func TestETag(t *testing.T) {
	t.Parallel()
	s := serve(t, true)
	s.put(packFiles(t, true, "", bundletest.Files{"a": "1"}))
	source, err := httpbundle.New(httpbundle.Config{URL: s.URL + "/tree.tar.gz"})
	require.NoError(t, err)
	for range 5 {
		_, err := source.Fetch(t.Context(), "")
		require.NoError(t, err)
	}
	require.Equal(t, 1, s.sent)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	file := tar.Header{Typeflag: tar.TypeReg, Name: "nginx.conf", Mode: 0o644}
	whole := pack(t, true, []tar.Header{file}, []string{strings.Repeat("x", 5000)})
	for _, c := range []struct {
		name, want string
		archive    []byte
	}{
		{"an HTML page", "archive: an HTML page", []byte("<html>not found</html>")},
		{"nothing", "archive: empty", nil},
		{"an archive of nothing", "no files", pack(t, true, nil, nil)},
		{"cut short", "unexpected EOF", whole[:len(whole)-9]},
		{"bit flip", "checksum", append(append([]byte{}, whole[:len(whole)-6]...),
			append([]byte{whole[len(whole)-6] ^ 1}, whole[len(whole)-5:]...)...)},
		{"dots", "want a relative path", pack(t, true,
			[]tar.Header{{Typeflag: tar.TypeReg, Name: "a/../../b"}}, []string{"x"})},
		{"absolute", "want a relative path", pack(t, true,
			[]tar.Header{{Typeflag: tar.TypeReg, Name: "/etc/passwd"}}, []string{"x"})},
		{"twice", "it is there twice", pack(t, true, []tar.Header{file, file}, []string{"x", "y"})},
		{"a file and a directory", "is a file and a directory",
			pack(t, true, []tar.Header{file, {Typeflag: tar.TypeReg, Name: "nginx.conf/x"}},
				[]string{"x", "y"})},
		{"link out", "it leads out of the tree",
			pack(t, true, []tar.Header{{Typeflag: tar.TypeSymlink, Name: "a/b",
				Linkname: "../../etc/passwd"}}, []string{""})},
		{"write through a link", "is a file and a directory",
			pack(t, true, []tar.Header{file, {Typeflag: tar.TypeSymlink, Name: "l",
				Linkname: "nginx.conf"}, {Typeflag: tar.TypeReg, Name: "l/x"}},
				[]string{"x", "", "y"})},
		{"hard link out", "not there before it",
			pack(t, true, []tar.Header{{Typeflag: tar.TypeLink, Name: "a",
				Linkname: "/etc/passwd"}}, []string{""})},
		{"device", "want regular files", pack(t, true,
			[]tar.Header{{Typeflag: tar.TypeChar, Name: "null"}}, []string{""})},
		{"bomb", "limit of one file is 32768", pack(t, true, []tar.Header{file},
			[]string{strings.Repeat("\x00", 64<<20)})},
		{"bomb beside the directory", "larger than 20 files and 65536 bytes allow",
			pack(t, true, []tar.Header{{Typeflag: tar.TypeDir, Name: "x/"},
				{Typeflag: tar.TypeXGlobalHeader,
					PAXRecords: map[string]string{"a": strings.Repeat("x", 900_000)}},
				{Typeflag: tar.TypeXGlobalHeader,
					PAXRecords: map[string]string{"a": strings.Repeat("x", 900_000)}}},
				[]string{"", "", ""})},
		{"too long", "2097152 bytes, want at most 1155", bytes.Repeat([]byte("x"), 2<<20)},
	} {
		s := serve(t, true)
		s.put(c.archive)
		source, err := httpbundle.New(httpbundle.Config{URL: s.URL + "/tree.tar.gz",
			Limits: bundletest.Limits})
		require.NoError(t, err)
		_, err = source.Fetch(t.Context(), "")
		require.ErrorIs(t, err, bundle.ErrInvalid, c.name)
		require.ErrorContains(t, err, c.want, c.name)
	}
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	s := serve(t, true)
	s.put(packFiles(t, true, "", bundletest.Files{"a": "1"}))
	good := fmt.Sprintf("%x", sha256.Sum256(s.archive))
	for _, c := range []struct{ sums, want string }{
		{good, ""},
		{strings.ToUpper(good) + "\n", ""},
		{good + "  dist/tree.tar.gz\n", ""},
		{good + "  other\n", "no SHA-256 for"},
		{"", "no SHA-256 for"},
		{"<html>", "no SHA-256 for"},
		{strings.Repeat("0", 64), "the archive's SHA-256 is " + good},
	} {
		s.sums = c.sums
		source, err := httpbundle.New(httpbundle.Config{URL: s.URL + "/tree.tar.gz",
			ChecksumURL: s.URL + "/SHA256SUMS"})
		require.NoError(t, err)
		_, err = source.Fetch(t.Context(), "")
		if c.want == "" {
			require.NoError(t, err, c.sums)
			continue
		}
		require.ErrorIs(t, err, bundle.ErrInvalid, c.sums)
		require.ErrorContains(t, err, c.want, c.sums)
	}
}

func TestServersThatMisbehave(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"half an answer", "unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("x"))
		}},
		{"no answer", "no whole answer in", func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}},
		{"redirects without end", "more than 10 redirects", func(w http.ResponseWriter,
			r *http.Request) {
			http.Redirect(w, r, "/x", http.StatusFound)
		}},
		{"not modified, though not asked", "status 304", func(w http.ResponseWriter,
			_ *http.Request) {
			w.WriteHeader(http.StatusNotModified)
		}},
		{"forbidden", "status 403", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
		}},
	} {
		s := httptest.NewServer(c.answer)
		t.Cleanup(s.Close)
		cfg := httpbundle.Config{URL: strings.Replace(s.URL, "http://", "http://user:geheim@", 1) +
			"/t?token=geheim", Timeout: time.Minute}
		if c.name == "no answer" {
			cfg.Timeout = 300 * time.Millisecond
		}
		source, err := httpbundle.New(cfg)
		require.NoError(t, err)
		_, err = source.Fetch(t.Context(), "")
		require.ErrorContains(t, err, c.want, c.name)
		require.NotContains(t, err.Error(), "geheim", c.name)
	}
}

// A redirect must not take the archive out of TLS.
func TestRedirectOutOfTLS(t *testing.T) {
	t.Parallel()
	plain := serve(t, true)
	s := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	t.Cleanup(s.Close)
	source, err := httpbundle.New(httpbundle.Config{URL: s.URL, Client: s.Client()})
	require.NoError(t, err)
	_, err = source.Fetch(t.Context(), "")
	require.ErrorContains(t, err, "a redirect from https to http")
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []httpbundle.Config{{}, {URL: "ftp://x/y"}, {URL: "http://"},
		{URL: "http://x", ChecksumURL: "file:///x"}, {URL: "http://x", Subdir: "/x"}} {
		_, err := httpbundle.New(cfg)
		require.ErrorContains(t, err, "httpbundle: ")
	}
}

func TestImports(t *testing.T) {
	t.Parallel()
	depcheck.StdlibOnly(t, "github.com/sluice-deploy/sluice/nginxsync/bundle/httpbundle")
}
