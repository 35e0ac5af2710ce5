package builder_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-deploy/sluice/builder"
)

func TestLint(t *testing.T) {
	t.Parallel()
	const user = "\nUSER 1\n"
	for _, c := range []struct {
		name, dockerfile string
		want             []string // line rule
	}{
		{"clean", "FROM scratch\nCOPY a /a" + user, nil},
		{"syntax", "# syntax=docker/dockerfile:1\nFROM scratch" + user, []string{"1 directive"}},
		{"syntax, as a slash comment", "//syntax=x\nFROM scratch" + user, []string{"1 directive"}},
		{"syntax, as json", "{\"syntax\": \"x\"}", []string{"1 directive"}},
		{"escape", "# escape=`\nFROM scratch" + user, []string{"1 directive"}},
		{"a comment is no directive", "# about\n# syntax=x\nFROM scratch" + user, nil},
		{"cache, run, copy", "FROM scratch\nARG CACHE=1\nRUN fetch\nCOPY a /a" + user, nil},
		{"cache, copy", "FROM scratch\nARG CACHE=1\nCOPY a /a" + user, []string{"2 cache-arg"}},
		{"cache, add, run", "FROM scratch\nARG CACHE\nADD a /a\nRUN x" + user,
			[]string{"2 cache-arg"}},
		{"cache at the end", "FROM scratch\nRUN x\nARG CACHE" + user, []string{"3 cache-arg"}},
		{"cache in another stage", "FROM scratch\nARG CACHE\nFROM scratch\nRUN x" + user,
			[]string{"2 cache-arg"}},
		{"cache before from", "ARG CACHE=1\nFROM scratch\nCOPY a /a" + user, nil},
		{"other argument", "FROM scratch\nARG CACHED=1\nCOPY a /a" + user, nil},
		{"onbuild", "FROM scratch\nONBUILD RUN x" + user, []string{"2 onbuild"}},
		{"add url", "FROM scratch\nADD https://example.com/a /a" + user, []string{"2 remote-add"}},
		{"add git", "FROM scratch\nADD git@example.com:a/b.git /a" + user,
			[]string{"2 remote-add"}},
		{"add file", "FROM scratch\nADD a /a" + user, nil},
		{"tag", "FROM alpine:3" + user, []string{"1 base-digest"}},
		{"digest", "FROM alpine@sha256:" + strings.Repeat("0", 64) + user, nil},
		{"stage", "FROM alpine@sha256:" + strings.Repeat("0", 64) + " AS Build\nFROM build" + user, nil},
		{"root", "FROM scratch\nCOPY a /a\n", []string{"1 root"}},
		{"back to root", "FROM scratch\nUSER 1\nUSER 0:0\n", []string{"1 root"}},
		{"shell form", "FROM scratch\nENTRYPOINT /app" + user, []string{"2 shell-entrypoint"}},
		{"secret", "FROM scratch\nARG DB_PASSWORD\nENV A=1 API_KEY=x PASSWORDLESS=1" + user,
			[]string{"2 secret", "3 secret"}},
		{"parse", "FROM scratch\nCOPY <<EOF /a\n", []string{"2 parse"}},
		{"empty", "", []string{"1 parse"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, f := range builder.Lint([]byte(c.dockerfile)) {
				got = append(got, fmt.Sprintf("%d %s", f.Line, f.Rule))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzLint(f *testing.F) {
	f.Add([]byte("FROM scratch\nARG CACHE=1\nCOPY a /a\n"))
	f.Add([]byte("# syntax=x\nFROM a AS b\nRUN <<EOF\nx\nEOF\n"))
	f.Fuzz(func(t *testing.T, dockerfile []byte) {
		lines := strings.Count(string(dockerfile), "\n") + 1
		refused := false
		for _, f := range builder.Lint(dockerfile) {
			refused = refused || f.Severity == builder.Error
			if f.Line < 1 || f.Line > lines {
				t.Errorf("finding %s outside the %d lines", f, lines)
			}
		}
		r := builder.Request{Dockerfile: dockerfile}
		if errors.Is(r.Validate(), builder.ErrInvalid) != refused {
			t.Error("Validate and Lint disagree")
		}
	})
}
