package web_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/web"
)

// broken lists the visible texts that should stay on one line and do not, and the elements that are
// wider than the window.
const broken = `(() => {
	const seen = [];
	for (const element of document.querySelectorAll("button, time, code, .state, .version, .address")) {
		if (innerWidth < 500 && element.matches(".version")) continue; // a phone has no room for 60 bytes
		if (!element.checkVisibility() || element.closest("pre")) continue;
		const range = document.createRange();
		range.selectNodeContents(element);
		const lines = new Set([...range.getClientRects()].filter((r) => r.width > 1).map((r) => Math.round(r.top / 8)));
		if (lines.size > 1) seen.push(element.tagName + " " + element.textContent + " on " + lines.size + " lines");
	}
	const width = document.documentElement.scrollWidth;
	if (width > innerWidth) seen.push("the page is " + width + " px wide");
	for (const element of document.querySelectorAll("body *")) {
		const box = element.getBoundingClientRect(), scrolls = element.parentElement.closest(".box, pre, code, .version, .hidden, .skip") !== null;
		if (element.checkVisibility() && !scrolls && (box.right > innerWidth + 1 || box.left < -1))
			seen.push(element.tagName + " " + element.className + " from " + box.left + " to " + box.right);
	}
	for (const element of document.querySelectorAll("main td, main tbody th, main div, main p, main dd, main h1, main h2")) {
		const over = element.scrollWidth - element.clientWidth;
		if (element.checkVisibility() && over > 1 && getComputedStyle(element).overflowX == "visible" &&
			getComputedStyle(element).display != "inline" && element.querySelector(".box, pre") === null)
			seen.push(element.tagName + " " + element.className + ": " + over + " px of its text stand outside");
	}
	return seen.join("\n");
})()`

func TestNothingBreaksInside(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	for name, page := range map[string]string{
		"index": web.ServePage(t, "index.html", web.CrowdedPage()),
		"build": web.ServePage(t, "build.html", web.CrowdedBuild()),
	} {
		for _, width := range []int64{1440, 1024, 390} {
			b.do(chromedp.EmulateViewport(width, 900), chromedp.Navigate(page))
			b.see("the style",
				`getComputedStyle(document.querySelector("main")).paddingLeft != "0px"`)
			got, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](broken))
			require.NoError(t, err)
			if got != "" {
				t.Errorf("%s at %d px: %d places:\n%.2000s", name, width,
					1+strings.Count(got, "\n"), got)
			}
			b.picture(name, width)
		}
	}
}

// picture writes a picture of each section in the tab into the directory SLUICE_PICTURES, if that
// is set.
func (b *tab) picture(name string, width int64) {
	b.Helper()
	dir := os.Getenv("SLUICE_PICTURES")
	if dir == "" {
		return
	}
	for n := 0; ; n++ {
		const scroll = `(([s]) => s ? (s.scrollIntoView({behavior: "instant"}), true) : false)([...document.querySelectorAll("main > *")].slice(%d))`
		found, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](fmt.Sprintf(scroll, n)))
		require.NoError(b, err)
		if !found {
			return
		}
		data, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		require.NoError(b, err)
		require.NoError(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%d.png", name, width,
			n)), data, 0o600))
	}
}
