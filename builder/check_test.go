package builder_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-deploy/sluice/builder"
)

// problems are the lines of a joined error, each cut at its last part.
func problems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"a": {Data: []byte("A")}, "d/x": {}, "d/y": {}, "kept.txt": {}, "secret.txt": {},
		".dockerignore": {Data: []byte("secret*\n")}, "app-1": {}, "deleted/.wh.x": {},
		"pipe": {Mode: fs.ModeNamedPipe}, "out": {Data: []byte("../x"), Mode: fs.ModeSymlink},
	}
	for _, c := range []struct {
		name, dockerfile string
		args             map[string]string
		want             []string // the problems
	}{
		{name: "nothing wrong", dockerfile: "FROM scratch\nCOPY a d /x/\nCOPY --from=1.2 a /a\n"},
		{name: "everything at once", dockerfile: "FROM scratch\nCOPY nothing /x\nEXPOSE 99999\n" +
			"STOPSIGNAL SIGNOPE\nCOPY a d/x /f\nCOPY secret.txt /s\nCOPY ../a /a\n" +
			"COPY --from=0 a /b\n" +
			"COPY deleted pipe out /x/\n", want: []string{
			"Dockerfile line 2: COPY nothing /x: nothing is not in the build context: file does not exist",
			`Dockerfile line 3: EXPOSE 99999: "99999" is no port: write 8080, 8080/udp or 8000-8010`,
			`Dockerfile line 4: STOPSIGNAL SIGNOPE: "SIGNOPE" is no signal of Linux: write SIGTERM, ` +
				"TERM or 15",
			"Dockerfile line 5: COPY a d/x /f: 2 sources need a directory: end the destination with /",
			"Dockerfile line 6: COPY secret.txt /s: secret.txt is not in the build context: " +
				".dockerignore excludes it",
			"Dockerfile line 7: COPY ../a /a: ../a leaves the build context: name a path inside it",
			"Dockerfile line 8: COPY --from=0 a /b: --from=0: no stage before this one has the number: " +
				"stages are counted from 0",
			"Dockerfile line 9: COPY deleted pipe out /x/: deleted/.wh.x: layers keep names that start " +
				"with .wh. for deleted files: rename it",
			"Dockerfile line 9: COPY deleted pipe out /x/: pipe is a named pipe: only files, " +
				"directories and symbolic links can be copied",
			"Dockerfile line 9: COPY deleted pipe out /x/: out leaves the build context by a symbolic " +
				"link: copy the file into the context",
		}},
		{name: "a pattern without a match", dockerfile: "FROM scratch\n" +
			"COPY *.none /x/\n", want: []string{
			"Dockerfile line 2: COPY *.none /x/: no file of the build context matches"}},
		{name: "values of the file", dockerfile: "ARG V=1\nFROM scratch\nARG V\nENV N=app-$V\n" +
			"COPY $N /x\nCOPY ${N}0 /y\n", want: []string{
			"Dockerfile line 6: COPY ${N}0 /y: app-10 is not in the build context: file does not exist"}},
		{name: "a given value", dockerfile: "FROM scratch\nARG V=0\nCOPY app-$V /x\n",
			args: map[string]string{"V": "1"}},
		{name: "a value that the base image may have", dockerfile: "FROM base\nCOPY app-$V /x\n" +
			"EXPOSE $P\nSTOPSIGNAL $S\nCOPY a d /$D\n"},
		{name: "a value that no stage has", dockerfile: "FROM scratch AS b\nFROM b\n" +
			"COPY app-$V /x\n",
			want: []string{"Dockerfile line 3: COPY app-$V /x: app- is not in the build context: file " +
				"does not exist"}},
		{name: "a value of the platform", dockerfile: "FROM scratch\nARG TARGETARCH\n" +
			"COPY app-$TARGETARCH /x\n"},
		{name: "a value of an unknown one", dockerfile: "FROM base\nENV V=$W\nARG X=$V\n" +
			"COPY app-$X /x\n"},
		{name: "not read", dockerfile: "FROM scratch\nCPOY a /a\n", want: []string{
			"Dockerfile line 2: unknown instruction: CPOY (did you mean COPY?)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := builder.Check(t.Context(), builder.Request{Dockerfile: []byte(c.dockerfile),
				Context: files, Repository: "registry.example.com/app", Args: c.args})
			if diff := cmp.Diff(c.want, problems(err)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if err != nil && !errors.Is(err, builder.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

// brokenFS fails to open anything.
type brokenFS struct{}

func (brokenFS) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("input/output error")}
}

func TestCheckReads(t *testing.T) {
	t.Parallel()
	r := builder.Request{Dockerfile: []byte("FROM scratch\nCOPY a /a\n"), Context: brokenFS{},
		Repository: "registry.example.com/app"}
	if _, err := builder.Check(t.Context(), r); err == nil || errors.Is(err, builder.ErrInvalid) {
		t.Errorf(
			"with a context that cannot be read: got %v, want another error than ErrInvalid",
			err,
		)
	}
	r.Context = fstest.MapFS{".dockerignore": {Data: []byte("[a\n")}}
	r.Repository, r.Tag, r.Args = "UPPER", "no tag", map[string]string{"SOURCE_DATE_EPOCH": "now"}
	_, err := builder.Check(t.Context(), r)
	for _, want := range []string{"repository: ", "tag: ", ".dockerignore: ", "SOURCE_DATE_EPOCH"} {
		if !errors.Is(err, builder.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	r = builder.Request{
		Dockerfile: r.Dockerfile,
		Repository: "registry.example.com/app",
		Context:    fstest.MapFS{"a": {}},
	}
	if _, err := builder.Check(ctx, r); !errors.Is(err, cause) {
		t.Errorf("with a context that has ended: got %v, want its cause", err)
	}
}
