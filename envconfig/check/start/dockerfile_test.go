package start

import (
	"strings"
	"testing"

	buildkit "github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// ENTRYPOINT, CMD and WORKDIR of the last stage, with all kinds of text around them.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		// a stage's name out of ARGs
		"ARG BASE=app\nFROM x AS app\nCMD [\"/a\"]\nFROM $BASE":                              "/a in /",
		"ARG E\nFROM x AS app-test\nCMD [\"/a\"]\nFROM --platform=$P app-${E:-test} AS last": "/a in /",
		"ARG A=a B=\"${A}pp\"\nFROM x AS app\nCMD [\"/a\"]\nFROM ${B}":                       "/a in /",
		"ARG A=\nARG B='app'\nFROM x AS app\nCMD [\"/a\"]\nFROM ${A:-$B}":                    "/a in /",
		"ARG A=1\nFROM x AS app-slim\nCMD [\"/a\"]\nFROM app${A:+-slim}${UNSET+x}":           "/a in /",
		"ARG A=\nFROM x AS app\nCMD [\"/a\"]\nFROM app${A:+-slim}${A+}${UNSET-}":             "/a in /",
		// not one of the head
		"FROM x AS app\nARG A=app\nCMD [\"/a\"]\nFROM ${A}": " in /",
		"ARG A=app\nFROM x AS app\nCMD [\"/a\"]\nFROM '$A'": " in /",
		"ARG DIR=/srv\nFROM x\nARG DIR\nARG SUB=a\nENV HOME=$DIR/home B=$HOME\nWORKDIR " +
			"${HOME}\nWORKDIR $SUB": " in /srv/home/a",
		"ARG MODE=wait\nFROM x\nARG MODE\nENV ENVCONFIG_ON_MAIN_EXIT=$MODE\nENTRYPOINT " +
			"[\"envconfig\"]": "envconfig --on-main-exit=wait in /",
		"FROM x\nENV A=\"b c\" ENVCONFIG_GRACE='5s'\nENTRYPOINT [\"envconfig\"]": "envconfig --grace=5s in /",
		"FROM x AS a\nENV ENVCONFIG_INIT=true\nFROM a AS b\nENV ENVCONFIG_INIT=false\nFROM " +
			"a\nENTRYPOINT [\"envconfig\"]": "envconfig --init=true in /",
		// ONBUILD acts on the stage that begins with this one
		"FROM x\nCMD [\"/a\"]\nONBUILD CMD [\"/b\"]":                                  "/a in /",
		"FROM x AS a\nCMD [\"/a\"]\nONBUILD CMD [\"/b\"]\nONBUILD WORKDIR /w\nFROM a": "/b in /w",
		"FROM x AS a\nONBUILD CMD [\"/b\"]\nFROM a AS b\nFROM b\nCMD [\"/c\"]":        "/c in /",
		"FROM x AS a\nONBUILD CMD [\"/b\"]\nFROM a AS b\nCMD [\"/c\"]\nFROM b":        "/c in /",
		"FROM x AS a\nONBUILD CMD [\"/b\"]\nONBUILD RUN <<E\nCMD [\"/c\"]\nE\nFROM a\nENTRYPOINT " +
			"[\"/e\"]": "/e /b in /",
		// lines of heredocs
		"FROM x\nCMD [\"/a\"]\nRUN <<EOF\nCMD [\"/b\"]\nFROM y\nEOF":       "/a in /",
		"FROM x\nCMD [\"/a\"]\nRUN cat <<-'E O' > /y\nCMD [\"/b\"]\n\tE O": "/a in /",
		"FROM x\nCMD [\"/a\"]\nRUN cat << EOF\nCMD [\"/b\"]\n \tEOF\nEOF":  "/a in /",
		"FROM x\nCMD [\"/a\"]\nCOPY --chmod=755 <<one 3<<\"two\" /d/\nCMD " +
			"[\"/b\"]\ntwo\none\nCMD [\"/c\"]\n two\ntwo\n": "/a in /",
		"FROM x\nADD <<EOF /y\r\nCMD [\"/b\"]\r\nEOF\r\nCMD [\"/a\"]":                         "/a in /",
		"FROM x\nRUN \\\n # a comment\n\n cat <<EOF\n# no comment\nCMD \\\nEOF\nCMD [\"/a\"]": "/a in /",
		"FROM x\nRUN echo '<<EOF' \"<<EOF\" \\<<EOF a<<EOF <<<EOF <<''\nCMD [\"/a\"]":         "/a in /",
		"FROM x\nENTRYPOINT cat <<EOF\nCMD [\"/a\"]\nEOF":                                     "/bin/sh -c cat <<EOF /a in /",
		// never ended
		"FROM x\nCMD [\"/a\"]\nRUN <<EOF\nCMD [\"/b\"]": "/a in /",
		// lines
		"# syntax=docker/dockerfile:1\n# escape=`\nFROM x\nCMD [ `\n \"/a\" ]\nWORKDIR \\w": "/a in /\\w",
		"# a comment\n# escape=`\nFROM x\nCMD [ \\  \n \"/a\" ]\nWORKDIR w\\\\\n":           "/a in /w\\",
		"\ufeffFROM x\n  CMD\t[\"/a\"]": "/a in /",
		"FROM x\nCMD null":              "/bin/sh -c null in /",
	} {
		i := Dockerfile(text)
		require.Equal(t, want, strings.Join(i.Command, " ")+" in "+i.Dir, text)
	}
}

func TestVariablesThatDoubleThemselves(t *testing.T) {
	t.Parallel()
	dir := Dockerfile("FROM x\nENV A=aaaaaaaa\n" + strings.Repeat("ENV A=$A$A\n", 60) +
		"WORKDIR /$A\n").Dir
	require.LessOrEqual(t, len(dir), 1+maxFilled)
	dir = Dockerfile("FROM x\nENV A=" + strings.Repeat("a", maxFilled) + "\nWORKDIR /" +
		strings.Repeat("$A", 1<<20) + "\n").Dir
	require.LessOrEqual(t, len(dir), 3<<20)
	dir = Dockerfile("FROM x\nWORKDIR /" + strings.Repeat("${A:-", 1<<20)).Dir
	require.NotEmpty(t, dir)
}

// BuildKit's parser finds the same instructions in every file that it accepts.
func TestInstructionsAreThoseOfBuildKit(t *testing.T) {
	t.Parallel()
	piece := rapid.SampledFrom([]string{
		"RUN", "COPY", "ADD", "CMD", "ENTRYPOINT", "ONBUILD", "ONBUILD RUN", "run", "FROM", "ENV",
		"\\", "`", "\n", "\n", "\n", "\r\n", "\\\n", "`\n", "\\ \n", "\\\\\n",
		" ", " ", "\t", "#", "# escape=`\n", "# syntax=x\n", "# check=skip=all\n", "<<EOF",
		"<<-EOF", "<<'EOF'", "<<\"EOF\"", "<<E\"O\"F", "<< EOF", "3<<A", "<<A", "<<<A", "<<-",
		"<<''",
		"EOF\n", "EOF\n", "A\n", "\tEOF\n", " EOF\n", "EOF", "A", "x", "a=b", "\"", "'", "$A",
		"${A}", "[\"a\"]", "CMD [\"b\"]\n", "\ufeff", "é",
	})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(piece, 1, 30).Draw(t, "pieces"), "")
		sameAsBuildKit(t, text)
	})
}

type failer interface {
	Fatalf(format string, args ...any)
}

func sameAsBuildKit(t failer, text string) {
	result, err := buildkit.Parse(strings.NewReader(text))
	if err != nil {
		return
	}
	var want []string
	for _, node := range result.AST.Children {
		if name, rest := split(node.Original); name != "" {
			want = append(want, name+" "+rest)
		}
	}
	var got []string
	lines := strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n")
	instructions(lines, escapeOf(lines), func(name, rest string) {
		got = append(got, name+" "+rest)
	})
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("%q\ngot  %q\nwant %q", text, got, want)
	}
}
