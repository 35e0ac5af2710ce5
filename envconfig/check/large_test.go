package check

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
)

// Files of two megabytes that took minutes where a parser reads the text behind a mark again for
// each mark. The files that take many seconds in any case are read whole in make soak, and in part
// in the short run.
func TestLargeFiles(t *testing.T) {
	t.Parallel()
	size := soak.Count(128<<10, 2<<20)
	many := func(s string) string { return strings.Repeat(s, (2<<20)/len(s)) }
	some := func(s string) string { return strings.Repeat(s, size/len(s)) }
	list := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < size/2; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for _, tt := range []struct{ name, format, text string }{
		{"line_without_end", "conf", many("a")},
		{"quotation_marks", "code", many(`"`)},
		{"pairs_in_lines", "code", some(strings.Repeat(`a="b",`, 600) + "\n")},
		{"open_quotation_mark", "dotenv", "A=\"x\n" + many("b\n")},
		{"escaped_quotation_marks", "dotenv", "A=\"" + many("\\\"\n")},
		{"line_goes_on", "properties", "a\\\n" + many("b\\\n")},
		{"line_goes_on", "shell", "a\\\n" + some("b\\\n")},
		{"comments_never_closed", "json", `{"a":1}` + many("/*")},
		{"nesting", "json", many(`{"a":`)},
		{"nesting", "xml", many("<a>")},
		{"mistakes_and_entities", "xml", some("<!DOCTYPE a>&b;<a></b>\n")},
		{"merge", "yaml", "x: &x\n" + list("  a%d: 1\n") + "y:\n  <<: *x\n" + list("  b%d: 1\n")},
		{"long_key_with_many_below", "json", `{"` + strings.Repeat("k", 1<<20) + `":{` +
			list(`"a%d":1,`) + `"z":1}}`},
		{"long_name_with_many_below", "xml", `<a name="` + strings.Repeat("k", 1<<20) + `">` +
			some("<b/>") + `</a>`},
		{"tables", "toml", some("[[a]]\nb=1\n")},
		{"blocks", "conf", strings.Repeat("a", 4000) + " {\n" + some("b c;\n")},
		{"passwords_without_value", "conf", strings.Repeat("a = "+strings.Repeat("password=;", 390)+
			"\n", soak.Count(8, 32))},
	} {
		t.Run(tt.name+"_"+tt.format, func(t *testing.T) {
			t.Parallel()
			done := make(chan []Setting, 1)
			go func() {
				settings, problems, _ := read(tt.format, []byte(tt.text))
				(&File{Settings: settings, syntax: problems, format: tt.format}).judge()
				done <- settings
			}()
			select {
			case settings := <-done:
				for i := range settings {
					require.LessOrEqual(t, len(settings[i].Key), maxKey)
				}
			case <-time.After(4 * time.Minute):
				t.Fatal("is not read within 4 minutes")
			}
		})
	}
}
