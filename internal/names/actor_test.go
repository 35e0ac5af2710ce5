package names_test

import (
	"strings"
	"testing"

	"github.com/sluice-deploy/sluice/internal/names"
)

func TestActor(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"ann", "Wáng Fāng <wang.fang@example.com>", "王芳", "a",
		strings.Repeat("x", 256), "👩‍💻"} {
		if err := names.Actor(good); err != nil {
			t.Errorf("%q is good, got %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"": "is empty", strings.Repeat("x", 257): "has 257 bytes", "a\xff": "is no UTF-8",
		"a\nb":  "byte 2 is U+000A",
		"a\x00": "byte 2 is U+0000", "ann\u202eeve": "byte 4 is U+202E",
		"a\u2066b": "byte 2 is U+2066", "a\u0085": "byte 2 is U+0085",
		"a\u2028b": "byte 2 is U+2028",
	} {
		if err := names.Actor(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", bad, err, want)
		}
	}
}
