package web_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/servertest"
	"github.com/sluice-deploy/sluice/examples/server/web"
)

// violation is one rule of axe that a page breaks.
type violation struct {
	ID    string   `json:"id"`
	Help  string   `json:"help"`
	Nodes []string `json:"nodes"`
}

// axe runs axe-core's rules on the page in the tab. testdata/axe is release 4.14.1, unmodified,
// under its own licence.
func (b *tab) axe(where string) {
	b.Helper()
	script, err := os.ReadFile("testdata/axe/axe.min.js")
	require.NoError(b, err)
	const run = `;axe.run().then((r) => { window.axeFound = JSON.stringify(r.violations.map((v) =>
		({id: v.id, help: v.help, nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200))}))) },
		(e) => { window.axeFound = JSON.stringify([{id: "error", help: String(e)}]) }); true`
	_, err = chromedp.Run(b.ctx, chromedp.Evaluate[bool](string(script)+run))
	require.NoError(b, err)
	b.see("axe has run", "window.axeFound")
	text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("window.axeFound"))
	require.NoError(b, err)
	var found []violation
	require.NoError(b, json.Unmarshal([]byte(text), &found))
	for _, v := range found {
		b.Errorf("%s: %s: %s: %q", where, v.ID, v.Help, v.Nodes)
	}
}

// TestAccessibility runs axe-core on each kind of page, full and empty, and on the full ones as a
// phone shows them.
func TestAccessibility(t *testing.T) {
	t.Parallel()
	open := servertest.Start(t, servertest.Config{})
	build := open.MustBuild(t, "hello_web", "v1")
	open.MustPromote(t, "hello_web", "v1", "test")
	closed := servertest.Start(t, servertest.Config{Token: token})
	b := startBrowser(t)
	for name, page := range map[string]string{
		"crowded front page": web.ServePage(t, "index.html", web.CrowdedPage()),
		"crowded build":      web.ServePage(t, "build.html", web.CrowdedBuild()),
		"front page":         open.URL + "/",
		"nothing found":      open.URL + "/?find=no-such-name",
		"build":              open.URL + "/builds/" + build.ID,
		"missing page":       open.URL + "/no/such/page",
		"sign-in":            closed.URL + "/login",
	} {
		widths := []int64{1440}
		if strings.HasPrefix(name, "crowded") {
			widths = append(widths, 390)
		}
		for _, width := range widths {
			b.do(chromedp.EmulateViewport(width, 900), chromedp.Navigate(page))
			b.axe(fmt.Sprintf("%s at %d px", name, width))
		}
	}
}
