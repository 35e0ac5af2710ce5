package start

import (
	"testing"
	"testing/fstest"
)

func FuzzDockerfile(f *testing.F) {
	f.Add("FROM a\nENTRYPOINT [\"sh\", \"/x\"]\nCMD x \\\n y")
	f.Add("ARG A=a B='b'\nFROM ${A:-${B+c}} AS d\nONBUILD RUN <<-\"E\" cat 3<<F\n\tE\nF\nFROM " +
		"d\nENV A=\"$A\" B=c")
	f.Add("# escape=`\nFROM a\nRUN `\n # b\n\n cat << 'E O'\nCMD x\nE O\nENV A $B")
	f.Add("FROM a\nSTOPSIGNAL 9\nCMD [\"gosu\", \"a\", \"env\", \"-S\", \"sh -c x\"]")
	f.Add("trap '' TERM\nmain() { exec \"$@\"; }\nif a; then main; else (exec b) & wait; " +
		"fi\ncase c in d) e | f;; esac")
	f.Fuzz(func(t *testing.T, text string) {
		sameAsBuildKit(t, text)
		i := Dockerfile(text)
		Entrypoint(Image{Command: []string{"sh", "x", "y"}, Dir: "/"},
			fstest.MapFS{"x": {Data: []byte(text), Mode: 0o755}})
		Entrypoint(i, fstest.MapFS{"x": {Data: []byte(text), Mode: 0o755}})
	})
}
