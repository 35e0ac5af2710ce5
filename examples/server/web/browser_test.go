package web_test

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/examples/server/servertest"
)

// tab is one tab of a real browser.
type tab struct {
	*testing.T
	ctx context.Context
	url string
}

// openBrowser starts Chromium on the server's front page.
func openBrowser(t *testing.T, s *servertest.Server) *tab {
	t.Helper()
	b := startBrowser(t)
	b.url = s.URL
	b.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(s.URL))
	return b
}

// startBrowser starts Chromium on an empty page. On a machine that is short of memory, processes or
// descriptors Chromium now and then ends before it listens; so it gets five attempts.
func startBrowser(t *testing.T, more ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	chromium := lookPath("chromium", "chromium-browser", "google-chrome")
	require.NotEmpty(t, chromium, "install Chromium or Chrome; on Debian: apt-get install "+
		"--no-install-recommends chromium")
	const attempts = 5
	for attempt := 1; ; attempt++ {
		options := append([]chromedp.ExecAllocatorOption{chromedp.ExecPath(chromium),
			chromedp.Headless, chromedp.DisableGPU,
			chromedp.NoSandbox, // it has none as root or in a container
			chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
			chromedp.Flag("disable-background-networking", true),
			chromedp.Flag("disable-breakpad", true),
			chromedp.Flag("disable-component-update", true),
			chromedp.Flag("disable-dev-shm-usage", true), // a container may have 64 MB there
			chromedp.Flag("disable-sync", true), chromedp.Flag("disable-quic", true)},
			more...)
		allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, closeTab := chromedp.NewContext(allocator)
		err := chromedp.Do(ctx, chromedp.Navigate("about:blank"))
		if err == nil {
			t.Cleanup(end)
			t.Cleanup(closeTab)
			return &tab{t, ctx, ""}
		}
		closeTab()
		end()
		require.Less(t, attempt, attempts, "start Chromium: %v", err)
		t.Logf("start Chromium, attempt %d of %d: %v", attempt, attempts, err)
	}
}

// lookPath is where the first of the programs is that there is.
func lookPath(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func newTab(t *testing.T, parent context.Context, s *servertest.Server) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent)
	t.Cleanup(cancel)
	b := &tab{t, ctx, s.URL}
	b.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(s.URL))
	return b
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	require.NoError(b, chromedp.Do(b.ctx, steps...))
}

// see waits until the expression is true, also across navigations.
func (b *tab) see(what, expression string, args ...any) {
	b.Helper()
	expression = fmt.Sprintf(expression, args...)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		seen, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && seen {
			return
		}
		if time.Now().After(deadline) {
			text, textErr := chromedp.Run(b.ctx,
				chromedp.Evaluate[string]("document.body.innerText"))
			b.Fatalf("%s: %s is not so after a minute (%v); the page shows: %s %v", what,
				expression, err, text, textErr)
		}
	}
}

// fill sets a field of a form.
func (b *tab) fill(form, field, value string) {
	b.Helper()
	b.do(chromedp.SetValue(chromedp.CSS(fmt.Sprintf(`#actions form[action="/do/%s"] [name=%s]`,
		form, field)), value))
}

// set sets a field.
func (b *tab) set(selector, value string) {
	b.Helper()
	b.do(chromedp.SetValue(chromedp.CSS(selector), value))
}

// submit presses the button of a form among the actions.
func (b *tab) submit(form string) {
	b.Helper()
	b.press(fmt.Sprintf(`#actions form[action="/do/%s"] button`, form))
}

// press presses a button and waits for the next page: the live sections may change this one before.
func (b *tab) press(button string) {
	b.Helper()
	b.mark()
	// not by its place on the screen: the live sections above may move it between the look and the
	// press
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](
		fmt.Sprintf("document.querySelector(%q).click(); true", button))); err != nil {
		b.Fatalf("press %s: %v", button, err)
	}
	b.see("the next page", `!window.sameDocument && document.readyState == "complete"`)
}

// mark makes this document known, for as long as it is not loaded again.
func (b *tab) mark() {
	b.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("window.sameDocument = true"))
	require.NoError(b, err)
}

// fits asserts that nothing makes the page wider than the window.
func (b *tab) fits(where string) {
	b.Helper()
	for _, width := range []int64{1280, 390, 320} {
		b.do(chromedp.EmulateViewport(width, 900))
		got, err := chromedp.Run(b.ctx, chromedp.Evaluate[int64](
			"document.documentElement.scrollWidth"))
		require.NoError(b, err)
		require.LessOrEqual(b, got, width, where)
	}
	b.do(chromedp.EmulateViewport(1280, 900))
}

func TestAPersonWorksWithThePage(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Config{})
	b := openBrowser(t, s)
	b.fits("empty")
	b.see("the empty state",
		`document.querySelector("#vips .empty") && document.querySelector("#builds .empty")`)
	b.see("it follows the server", `document.getElementById("live").textContent == "live"`)

	s.Upload(t, "hello_web", "v1", "sandbox")
	b.see("the upload, without a reload",
		`document.querySelector("[name=source]").value == "hello_web-v1"`)
	b.fill("builds", "cluster", "hello_web")
	b.fill("builds", "version", "v1")
	b.fill("builds", "actor", "ann")
	b.submit("builds")
	b.see("the build's page", `location.pathname.startsWith("/builds/b")`)
	b.see("its end", `document.getElementById("state").textContent == "succeeded"`)
	b.see("the log to its last line",
		`/digest sha256:[0-9a-f]{64}\s*$/.test(document.getElementById("log").textContent)`)
	b.fits("a build")

	watching := newTab(t, b.ctx, s)
	b.do(chromedp.Navigate(b.url))
	b.see("the name from before", `document.querySelector("#actions [name=actor]").value == "ann"`)
	watching.see("it follows the server", `document.getElementById("live").textContent == "live"`)
	watching.mark()
	b.fill("tasks", "task", "search-redesign")
	b.submit("tasks")
	const row = `[...document.querySelectorAll("#vips tbody tr")].find((r) => r.querySelector("th").textContent == "search-redesign")`
	for _, tab := range []*tab{b, watching} {
		tab.see("the VIP",
			`(%s)?.textContent.includes("127.60.0.") && (%[1]s).querySelector(".state.leased")`,
			row)
	}
	watching.see("no reload", `window.sameDocument`)

	b.fill("promotions", "environment", "test")
	b.submit("promotions")
	b.see("v1 in test and how it goes on",
		`document.querySelector("#environments [name=environment][value=sandbox]")`)
	b.see("what the next deployment will build on",
		`document.querySelector("#seen [name='seen.hello_web']").value.startsWith("test=sha256:")`)
	b.see("the log of an instance",
		`document.querySelector("#instances th a").pathname.endsWith("/log")`)
	b.press(`#environments form:has([value=sandbox]) button`)
	b.see("the refusal",
		`document.querySelector("#problem")?.textContent.includes("app/conf/app.properties")`)
	b.see("that it is read out", `document.activeElement.id == "problem"`)
	b.fits("a refusal")

	b.press(`#vips form[action="/do/finish"] button`)
	for _, tab := range []*tab{b, watching} {
		tab.see("the VIP cools", `(%s)?.querySelector(".state.cooling")`, row)
	}
	watching.see("no reload", `window.sameDocument`)
	b.fits("everything")
}
