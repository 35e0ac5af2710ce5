//go:build linux

package assemble_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-deploy/sluice/internal/soak"
)

// TestRandomAsBuildKit builds random Dockerfiles of the instructions and files that the cases of
// TestAsBuildKit have, with this package and with BuildKit: either both give the same image, or this
// package refuses.
func TestRandomAsBuildKit(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	var alike, bothRefuse, refused atomic.Int64
	t.Cleanup(func() {
		t.Logf("alike %d, refused by both %d, refused by assemble alone %d", alike.Load(),
			bothRefuse.Load(), refused.Load())
	})
	for seed := range soak.Count(12, 400) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			c := difference{files: some,
				dockerfile: randomDockerfile(rand.New(rand.NewPCG(uint64(seed), 1)))}
			ours, theirs := p.both(t, fmt.Sprintf("random%d", seed), c)
			kind, report := compare(ours, theirs)
			switch {
			case kind == "refused":
				refused.Add(1)
			case kind != "":
				t.Errorf("differs in %s:\n%s\n%s", kind, c.dockerfile, report)
			case ours.err != nil:
				bothRefuse.Add(1)
			default:
				alike.Add(1)
			}
		})
	}
}

// randomDockerfile has one to three stages of up to eight instructions.
func randomDockerfile(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	source := func() string {
		return pick("a", "b.conf", "d", "d/sub", "d/*", "run.sh", "link", "dirlink", "*.conf", "in")
	}
	dest := func() string {
		return pick(
			"/x",
			"/x/",
			"y/",
			"/etc/link",
			"/etc/chain",
			"/etc/dangling",
			"/bin/",
			"/var/data/",
			"/usr/bin",
			"./",
			"/deep/er/dir/",
			"/data",
		)
	}
	flags := func() string {
		return pick("", "", "", "--chown=3:4 ", "--chown=work ", "--chown=:staff ", "--chmod=0755 ",
			"--chmod=u=rwx,go=rX ", "--link ", "--exclude=*.conf ")
	}
	var b strings.Builder
	stages := 1 + r.IntN(3)
	for s := range stages {
		base := pick("BASE", "BASE", "scratch")
		if s > 0 && r.IntN(2) == 0 {
			base = fmt.Sprintf("s%d", r.IntN(s))
		}
		fmt.Fprintf(&b, "FROM %s AS s%d\n", base, s)
		for range r.IntN(9) {
			switch r.IntN(12) {
			case 0, 1, 2:
				fmt.Fprintf(&b, "COPY %s%s %s\n", flags(), source(), dest())
			case 3:
				fmt.Fprintf(
					&b,
					"ADD %s%s %s %s\n",
					flags(),
					source(),
					source(),
					pick("/x/", "y/", "/bin/"),
				)
			case 4:
				if s == 0 {
					continue
				}
				fmt.Fprintf(
					&b,
					"COPY %s--from=s%d %s %s\n",
					pick("", "--chown=5 ", "--chmod=0755 "),
					r.IntN(s),
					pick("/etc/p*", "/etc/target", "/bin/tool", "/etc/", "/data", "/"),
					pick("/z", "/z/", "/etc/link", "w/"),
				)
			case 5:
				fmt.Fprintf(
					&b,
					"ENV %s=%s\n",
					pick("E", "F"),
					pick("1", "$E$F", "\"a b\"", "${G:-g}"),
				)
			case 6:
				fmt.Fprintf(&b, "ARG %s%s\n", pick("E", "F", "G"), pick("", "=1", "=$E", "='$E'"))
			case 7:
				fmt.Fprintf(
					&b,
					"LABEL %s=\"%s\"\n",
					pick("a", "b"),
					pick("$E", "${F:+set}", "[$G]", "x"),
				)
			case 8:
				fmt.Fprintf(
					&b,
					"WORKDIR %s\n",
					pick("/w", "sub", "/bin/w", "../up", "/w/$E", "/var/data"),
				)
			case 9:
				fmt.Fprintf(&b, "USER %s\n", pick("work", "1000", "work:staff", "0", "3:4"))
			case 10:
				fmt.Fprintf(
					&b,
					"%s\n",
					pick("EXPOSE 80 8000-8002/udp", "VOLUME /v", "STOPSIGNAL USR1",
						"HEALTHCHECK --start-interval=2s CMD true", "SHELL [\"/bin/x\", \"-c\"]"),
				)
			case 11:
				fmt.Fprintf(
					&b,
					"%s %s\n",
					pick("CMD", "ENTRYPOINT"),
					pick("[\"x\"]", "run $E", "[]"),
				)
			}
		}
	}
	return b.String()
}
