//go:build linux

package conf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// An oracle asks Nginx for its reading of a text. The text stands where Nginx accepts any words, so
// that each refusal is the tokenizer's work. It is one Nginx that reloads for each text, which
// takes a tenth of the time that a process for each takes. The configuration ends in a directive
// that does not exist: none comes into force.
type oracle struct {
	dir     string
	process *os.Process
	log     *os.File
}

// newTypesOracle reads the text as the content of a types block, in a file of its own: words of any
// number, no blocks.
func newTypesOracle(t testing.TB) *oracle {
	return newOracle(t, "", "events {}\nhttp { types { include text; } }\n")
}

// newLuaOracle reads the text as the body of a Lua block.
func newLuaOracle(t testing.TB) *oracle {
	return newOracle(t, modules, `events {}
http {
    lua_package_path "/usr/share/lua/5.1/?.lua;;";
    server { include text; }
}
`)
}

const modules = "load_module /usr/lib/nginx/modules/ndk_http_module.so;\nload_module " +
	"/usr/lib/nginx/modules/ngx_http_lua_module.so;\n"

func newOracle(t testing.TB, load, main string) *oracle {
	o := &oracle{dir: t.TempDir()}
	name := filepath.Join(o.dir, "nginx.conf")
	write := func(text string) {
		if err := os.WriteFile(name, []byte(load+"pid "+o.dir+"/pid;\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Without the timer a signal that comes just before Nginx waits for events would be noticed at
	// the next one.
	write("daemon off;\nmaster_process off;\nerror_log stderr error;\ntimer_resolution " +
		"1ms;\nevents {}\n")
	log, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	o.log = log
	cmd := exec.Command("nginx", "-p", o.dir, "-c", name, "-e", "stderr")
	cmd.Stderr = stderr
	// fuzzing kills its own processes
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stderr.Close()
	o.process = cmd.Process
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
	})
	// It takes signals once it has written its pid.
	for until := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if text, _ := os.ReadFile(filepath.Join(o.dir, "pid")); len(text) > 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatal("nginx does not start")
		}
	}
	write(main + theEnd + ";\n")
	return o
}

const (
	theEnd = "end_of_the_oracle"
	noLua  = "no runnable Lua code"
)

type verdict struct {
	ok   bool
	line int
	msg  string // of the first error
}

// A message may hold any byte of the text, line breaks too.
var refusal = regexp.MustCompile(
	`(?s) \[(?:emerg|error)\] \d+#\d+: (.*) in \S+/(text|nginx\.conf):(\d+)\n$`)

func (o *oracle) ask(text string) (verdict, error) {
	if err := os.WriteFile(filepath.Join(o.dir, "text"), []byte(text), 0o600); err != nil {
		return verdict{}, err
	}
	if err := o.process.Signal(syscall.SIGHUP); err != nil {
		return verdict{}, err
	}
	if err := o.log.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return verdict{}, err
	}
	var out []byte
	for buffer := make([]byte, 8<<10); ; {
		n, err := o.log.Read(buffer)
		out = append(out, buffer[:n]...)
		if err != nil {
			return verdict{}, fmt.Errorf("nginx says nothing but %q: %w", out, err)
		}
		m := refusal.FindSubmatch(out)
		if m == nil {
			continue
		}
		line, _ := strconv.Atoi(string(m[3]))
		switch msg := string(m[1]); {
		case string(m[2]) == "nginx.conf" && strings.Contains(msg, theEnd):
			return verdict{ok: true}, nil
		case strings.Contains(msg, noLua):
			return verdict{msg: noLua}, nil // a block that is empty, and ends
		default:
			return verdict{line: line, msg: msg}, nil
		}
	}
}

// words scans a text as a types block: it refuses the texts that the tokenizer refuses, and any
// brace.
func words(text string) (list [][]string, err *Error) {
	f := &File{Name: "text", Text: text}
	s := newScanner(text)
	for {
		kind, failed := s.next()
		if failed != nil {
			return list, f.errorf(failed.offset, "%s", failed.msg)
		}
		switch kind {
		case tokenEOF:
			return list, nil
		case tokenClose:
			return list, f.errorf(s.pos-1, "unexpected \"}\"")
		case tokenBlock:
			return list, f.errorf(s.pos-1, "unexpected \"{\"")
		}
		var values []string
		for _, w := range s.words[s.first:] {
			values = append(values, value(text, w))
		}
		list = append(list, values)
	}
}

func long(n int) string { return strings.Repeat("x", n) }

// tokenTexts are seeds and, with Nginx's answer, the test of the tokenizer.
var tokenTexts = []string{
	"", " ", "\n", "a b;", "a b", "a", "a;", ";", "{", "}", "a { }", "a }", "a b; }",
	`"a" b;`, `"a"b c;`, `"a";`, `"a"`, `"a`, `'a' b;`, `'a"b' c;`, `a"b c;`, `a'b' c;`, `"a")b c;`,
	`"a") b;`, `("a") b;`, `"a"{`, `"a"}`,
	`a\;b c;`, `a\ b c;`, `\a b;`, `\;a b;`, `"a\"b" c;`, `"a\\" b;`, `a\`, `"\`, `a\n\t\r b;`,
	`$a{b} c;`, `${a} b;`, `$a${b}c d;`, `$${a b;`, `${{a b;`, `$\{a b;`, `"${" b;`, `"$" b;`,
	`a${ b;`, `a$ {`,
	"#a\nb c;", "a#b c;", "a #b\nc;", "#", "a b;#", "a b; # \"\n", "a \"b\" #c\n;",
	"a\r\nb\r\n;", "a\x00b c;", "\xef\xbb\xbfa b;", "\xff\xfe b;", "a\tb\v;", "a\fb;", "a'b;",
	`"" b;`, `'' "";`,
	"a b;c d;", "a b;}", "a }b c;", "a}b c;", "a}{", "}a b;",
	"a " + long(4000) + ";", "a " + long(4093) + ";", "a " + long(4094) + ";", "a " + long(4095) +
		";", "a " + long(4096) + ";", "a " + long(4097) + ";b c;",
	"a \"" + long(4093) + "\";", "a \"" + long(4094) + "\";", "a \"" + long(4095) + "\";", "a \"" +
		long(4096) + "\" ;", "a \"" + long(5000),
	"#" + long(4094) + "\na b;", "#" + long(4095) + "\na b;", "#" + long(4096) + "\na b;", "#" +
		long(9000), "a b;#" + long(4090) + "\na b;",
	strings.Repeat("a b;\n", 2000), strings.Repeat(" ", 9000) + "a b;", "a" +
		strings.Repeat(" ", 9000) + "b;",
	strings.Repeat("a \"b\" ;", 1000), long(4096), long(4095), "a '" + long(4094) + "\n';", "a " +
		strings.Repeat("\\;", 2048) + ";",
}

// failer has the common methods of *testing.T and *rapid.T.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

func compareWords(t failer, o *oracle, text string) {
	t.Helper()
	list, err := words(text)
	for _, w := range list {
		if w[0] == "include" {
			return // the types block resolves it
		}
	}
	got, askErr := o.ask(text)
	if askErr != nil {
		t.Fatal(askErr)
	}
	if got.ok != (err == nil) {
		t.Fatalf("%.200q: nginx says %+v, we say %v", text, got, err)
	}
	if err != nil && (err.Line != got.line || err.Msg != got.msg) {
		t.Fatalf("%.200q: nginx says line %d: %s, we say line %d: %s", text, got.line, got.msg,
			err.Line, err.Msg)
	}
}

// FuzzTokens requires that the tokenizer accepts and refuses the same texts as Nginx, in the same
// line and with the same words.
func FuzzTokens(f *testing.F) {
	for _, text := range tokenTexts {
		f.Add(text)
	}
	o := newTypesOracle(f)
	f.Fuzz(func(t *testing.T, text string) { compareWords(t, o, text) })
}

var luaTexts = []string{
	"", "return 1", "return {}", "if a { then", "a = '}'", `a = "}"`, `a = "\"}"`, `a = '\'}'`,
	"-- }\n", "-- '\n", "--[[ } ]]", "--[==[ } ]] ]==]",
	"a = [[ } ]]", "a = [=[ } ]] ]=]", "a = [=[ }", "--[[ }", "a = #t", "a = #\"}\"", "a = b[c[1]]",
	"a = [ [ ", "a = ']'", "]]", "]=]", "-- \"\n}", "a = \"\n}\"",
	"a = '\\\n}'", "a = \"unclosed\n", "a = 'it", "--", "-- no line end", "--[", "--[=",
	"--[=x } \n", "a = \"$x{\"", "$x{", "a = ${b}", "{{}}", "}{", "} location /x { return 200;",
	"a--b\n}", "a = '--' }", "a = \"[[\"", "[==", "[==[", "[[]]", "--[[]]", "a = '\\\\' }",
	"a = \"\\\\\" ", "a = 5 -- \\\n",
	"a = [[" + strings.Repeat("x\n", 300) + "]]", strings.Repeat("a = 1\n", 1500),
	strings.Repeat("a = {}\n", 1500), strings.Repeat("-- comment's\n", 700),
	"a = '" + long(3000) + "'", "a = '" + long(5000) + "'", "a = [[" + long(3000) + "]]", "a = [[" +
		long(5000) + "]]", "--" + long(5000) + "\n", long(5000) + "{}",
}

const luaHead, luaTail = "location / { content_by_lua_block {", "} }\n"

func compareLua(t failer, o *oracle, body string) {
	t.Helper()
	text := luaHead + body + luaTail
	got, askErr := o.ask(text)
	if askErr != nil {
		t.Fatal(askErr)
	}
	_, err := ParseFile("text", text)
	syntax := strings.Contains(got.msg, "unexpected") ||
		strings.Contains(got.msg, "Lua code block") || strings.Contains(got.msg, "too long")
	var e *Error
	errors.As(err, &e)
	switch {
	case got.ok:
		if err != nil {
			t.Errorf("%.200q: nginx accepts it, we say %v", body, err)
		}
	case syntax:
		// The module does not count the line breaks of text that falls out of its buffer unseen:
		// its line may be too small.
		if e == nil || e.Line < got.line || e.Msg != got.msg {
			t.Errorf("%.200q: nginx says %+v, we say %v", body, got, err)
		}
	case e != nil && e.Line < got.line:
		// Nginx has read on to a directive that it does not know: so far nothing was wrong.
		t.Errorf("%.200q: nginx reads up to line %d, we say %v", body, got.line, err)
	}
}

// FuzzLua finds the end of a Lua block where the Lua module finds it.
func FuzzLua(f *testing.F) {
	for _, body := range luaTexts {
		f.Add(body)
	}
	o := newLuaOracle(f)
	f.Fuzz(func(t *testing.T, body string) { compareLua(t, o, body) })
}

// Random texts out of the characters that the tokenizer looks at; -rapid.checks asks for more of
// them.
func TestRandomTextsAsNginxReadsThem(t *testing.T) {
	t.Parallel()
	o := newTypesOracle(t)
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"a", "b c", ";", "{", "}", "\"", "'", "\\", "$", "${", "#", "\n",
			" ", "\t", "\r", ")", "(", "a b;\n", "\"x\" ", "\x00", "\xff", long(100)}),
		rapid.Map(rapid.IntRange(4085, 4100), long), rapid.Map(rapid.IntRange(4085, 4100),
			func(n int) string {
				return strings.Repeat(" ", n)
			}))
	rapid.Check(t, func(r *rapid.T) {
		compareWords(r, o, strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(r, "pieces"), ""))
	})
}

func TestRandomLuaAsNginxReadsIt(t *testing.T) {
	t.Parallel()
	o := newLuaOracle(t)
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"a = 1", "{", "}", "{}", "\"", "'", "\\", "[[", "]]", "[=[",
			"]=]", "--", "--[[", "--[=[", "\n", " ", "[", "]", "=", "-", "\\\n", "'}'", long(100)}),
		rapid.Map(rapid.IntRange(1000, 4100), long), rapid.Map(rapid.IntRange(100, 900),
			func(n int) string {
				return strings.Repeat("x={}\n", n)
			}))
	rapid.Check(t, func(r *rapid.T) {
		compareLua(r, o, strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(r, "pieces"), ""))
	})
}
