//go:build linux

package pcre_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/nginxsync/internal/nginxtest"
	"github.com/sluice-deploy/sluice/nginxsync/internal/pcre"
)

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// expression makes one of up to three groups.
func expression(r *rand.Rand, depth int, groups *int) string {
	var b strings.Builder
	for range 1 + r.IntN(3) {
		atom := ""
		switch n := r.IntN(12); {
		case n < 5 || depth == 0:
			atom = pick(r, "a", "b", "A", "1", "-", `\d`, `\w`, `\s`, ".", "[ab]", "[^a]", `[\w-]`,
				"[[:digit:]b]", `\x61`, `\.`, `\h`, `\R`, `\Qa-\E`)
		case n < 6:
			b.WriteString(pick(r, "^", "$", `\A`, `\Z`, `\z`, `\b`, `\B`, "(?i)", "(?s)", "(?m)"))
			continue
		case n < 8 && *groups < 3:
			*groups++
			atom = "(" + expression(r, depth-1, groups) + ")"
		case n < 9:
			b.WriteString(pick(r, "(?=", "(?!") + expression(r, depth-1, groups) + ")")
			continue
		case n < 10:
			b.WriteString(pick(r, "(?<=", "(?<!") + pick(r, "a", `\w\d`, "[ab]", "-") + ")")
			continue
		case n < 11:
			atom = pick(r, "(?:", "(?>", "(?i:") + expression(r, depth-1, groups) + ")"
		default:
			atom = "(?:" + expression(r, depth-1, groups) + "|" + expression(r, depth-1, groups) +
				")"
		}
		b.WriteString(atom + pick(r, "", "", "", "*", "+", "?", "*?", "+?", "*+", "{2}", "{1,2}",
			"{0,1}?"))
	}
	if *groups > 0 && r.IntN(8) == 0 {
		b.WriteString(`\1`)
	}
	return b.String()
}

// Random expressions match the same text as in a real Nginx, group by group.
func TestMatchAsNginxDoes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 9))
	asked, unsupported := 0, 0
	for range soak.Count(2, 40) {
		dir, port := nginxtest.Dir(t), nginxtest.Port(t)
		var exprs []string
		var locations strings.Builder
		for len(exprs) < 60 {
			groups := 0
			e := expression(r, 3, &groups)
			fmt.Fprintf(&locations, "location /%d/ { if ($text ~ \"%s\") { return 200 "+
				"\"yes[$1][$2][$3]\"; } return 200 no; }\n", len(exprs), strings.ReplaceAll(e, `\`,
				`\\`))
			exprs = append(exprs, e)
		}
		text := fmt.Sprintf("pid %s/pid;\ndaemon off;\nworker_processes 1;\nevents {}\nhttp "+
			"{\naccess_log off;\nmap $uri $text { \"~(?s)^/\\d+/(?<rest>.*)$\" $rest; }\nserver "+
			"{\nlisten 127.0.0.1:%d;\nmerge_slashes off;\n%s}\n}\n", dir, port, locations.String())
		require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(text), 0o600))
		nginxtest.Start(t, dir, filepath.Join(dir, "nginx.conf"))
		for i, e := range exprs {
			re, err := pcre.Compile(e, false)
			if errors.Is(err, pcre.ErrUnsupported) {
				unsupported++
				continue
			}
			require.NoError(t, err)
			for range 6 {
				var subject strings.Builder
				for range r.IntN(7) {
					subject.WriteString(pick(r, "a", "b", "A", "B", "1", "2", "-", "_", " ", "\n",
						"\r", "\t", "\xe9"))
				}
				groups, err := re.Match(subject.String())
				require.NoError(t, err)
				got := "no"
				if groups != nil {
					groups = append(groups, "", "", "")
					got = fmt.Sprintf("yes[%s][%s][%s]", groups[1], groups[2], groups[3])
				}
				asked++
				if want := get(t, port, fmt.Sprintf("/%d/%s", i,
					url.PathEscape(subject.String()))); want != got {
					t.Errorf("%q on %q: Nginx says %q, Match %q", e, subject.String(), want, got)
				}
			}
		}
	}
	t.Logf("%d matches, %d expressions unsupported", asked, unsupported)
	require.Less(t, unsupported, asked/60)
}

func get(t *testing.T, port int, path string) string {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}
