package assemble_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/fstest"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/assemble"
)

// FuzzDockerfile builds each Dockerfile that it is given. The result is a valid image that a second
// build repeats, or an error, and no spooled file stays behind. Every registry is the one in this
// process.
func FuzzDockerfile(f *testing.F) {
	for _, seed := range []string{
		"FROM scratch\nCOPY . /\nCOPY --chown=1:2 --chmod=0700 d/* /x/\nWORKDIR a\nWORKDIR " +
			"../b\nCOPY a ..\n",
		"ARG A=scratch\nFROM $A AS x\nARG B=${A:-y}\nENV C=${B} D=\"$C d\"\nLABEL \"a " +
			"b\"=c\nEXPOSE 80-82/udp $C\n",
		"FROM scratch\nCOPY <<EOF <<-X /h/\n$HOME\nEOF\n\tx\nX\nADD l /l\nVOLUME [\"/v\"]\nUSER " +
			"a:b\nHEALTHCHECK --interval=1s CMD x\n",
		"FROM scratch\nCOPY l /s/l\nCOPY d /s/l\nSHELL [\"/b\"]\nCMD x\nENTRYPOINT y\nSTOPSIGNAL " +
			"9\nMAINTAINER m\nONBUILD RUN x\n",
	} {
		f.Add([]byte(seed))
	}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	transport := roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Body == nil {
			r.Body = http.NoBody
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		res := w.Result()
		res.Request = r
		return res, nil
	})
	files := fstest.MapFS{
		"a": {Data: []byte("A")}, "d/b": {Data: []byte("B"), Mode: 0o755}, "d/c/d": {},
		"l":             {Data: []byte("d/b"), Mode: os.ModeSymlink},
		".dockerignore": {Data: []byte("d/c\n")},
	}
	f.Fuzz(func(t *testing.T, dockerfile []byte) {
		temp := t.TempDir()
		r := builder.Request{Dockerfile: dockerfile, Context: files, Repository: "127.0.0.1/app",
			Args: map[string]string{"B": "given"}}
		first, err := newEngine(t, assemble.Config{Transport: transport, TempDir: temp}).Build(
			t.Context(), r)
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("the build left %v", left)
		}
		if err != nil {
			return
		}
		again, err := newEngine(t, assemble.Config{Transport: transport, TempDir: temp}).Build(
			t.Context(), r)
		if err != nil || again.Digest != first.Digest {
			t.Errorf("second build gave %s, %v, the first %s", again.Digest, err, first.Digest)
		}
		ref, err := name.NewDigest(first.Reference)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(ref, remote.WithTransport(transport))
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img); err != nil {
			t.Errorf("the image is invalid: %v", err)
		}
		if errors.Is((&builder.Request{Dockerfile: dockerfile}).Validate(), builder.ErrInvalid) {
			t.Error("built what the rules refuse")
		}
	})
}
