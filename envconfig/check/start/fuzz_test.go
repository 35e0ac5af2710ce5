package start

import (
	"testing"
	"testing/fstest"
)

func FuzzDockerfile(f *testing.F) {
	f.Add("FROM a\nENTRYPOINT [\"sh\", \"/x\"]\nCMD x \\\n y")
	f.Add("ARG A=a B='b'\nFROM ${A:-${B+c}} AS d\nONBUILD RUN <<-\"E\" cat 3<<F\n\tE\nF\nFROM d\nENV A=\"$A\" B=c")
	f.Add("# escape=`\nFROM a\nRUN `\n # b\n\n cat << 'E O'\nCMD x\nE O\nENV A $B")
	f.Fuzz(func(t *testing.T, text string) {
		sameAsBuildKit(t, text)
		command, dir := Dockerfile(text)
		Entrypoint(command, fstest.MapFS{"x": {Data: []byte(text), Mode: 0o755}}, dir)
	})
}
