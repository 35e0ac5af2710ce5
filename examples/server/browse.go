package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/sluice-deploy/sluice/internal/names"
)

// browser is one that browse knows, and its programs: the first that is there is taken.
type browser struct {
	name     string
	programs []string
}

var browsers = []browser{
	{"chromium", []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
		`C:\Program Files\Google\Chrome\Application\chrome.exe`}},
	{"firefox", []string{"firefox", "firefox-esr",
		"/Applications/Firefox.app/Contents/MacOS/firefox",
		`C:\Program Files\Mozilla Firefox\firefox.exe`}},
}

// browse opens a browser on a task: server browse [flags] TASK [URL]. The browser has a profile of
// the task, and the task's door as its proxy for every host.
func browse(ctx context.Context, args []string, getenv func(string) string,
	stdout, stderr io.Writer) error {
	f := flag.NewFlagSet("server browse", flag.ContinueOnError)
	f.SetOutput(stderr)
	server := f.String("server", "http://127.0.0.1:8800", "`URL` of the server; SLUICE_TOKEN is "+
		"its token")
	with := f.String("browser", "", "`name` of the browser: chromium or firefox (default: the "+
		"first that is installed)")
	profiles := f.String("profiles", "", "`directory` of the profiles, one a task (default: "+
		"sluice in the user's cache directory)")
	show := f.Bool("n", false, "print the command and start nothing")
	if err := f.Parse(args); err != nil {
		return err
	}
	task, target := f.Arg(0), f.Arg(1)
	if f.NArg() < 1 || f.NArg() > 2 {
		return errors.New("browse: want TASK [URL]: see server browse -help")
	}
	if err := names.Task(task); err != nil {
		return fmt.Errorf("browse: %w", err)
	}
	if *profiles == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("browse: -profiles: %w", err)
		}
		*profiles = filepath.Join(cache, "sluice")
	}
	reach, err := reachOf(ctx, *server, task, getenv("SLUICE_TOKEN"))
	if err != nil {
		return fmt.Errorf("browse: %w", err)
	}
	target = cmp.Or(target, "http://"+cmp.Or(reach.Host, "sluice.test")+"/")
	name, program, err := findBrowser(*with)
	if err != nil && !*show {
		return err
	}
	profile := filepath.Join(*profiles, task, name)
	command := commandOf(name, program, profile, reach, target)
	if *show {
		_, err := fmt.Fprintln(stdout, shellLine(command))
		return err
	}
	if err := os.MkdirAll(profile, 0o700); err != nil {
		return fmt.Errorf("browse: %w", err)
	}
	if name == "firefox" {
		if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(firefoxSettings(reach.Door)),
			0o600); err != nil {
			return fmt.Errorf("browse: %w", err)
		}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("browse: %w", err)
	}
	return cmd.Process.Release() // the browser outlives this program
}

// reach is the part of web.Reach that a browser needs.
type reach struct{ Door, Host, Pin string }

// reachOf asks the server for the task's door, a host name to begin with, and the authority.
func reachOf(ctx context.Context, server, task, token string) (reach, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", strings.TrimSuffix(server, "/")+
		"/api/v1/tasks/"+url.PathEscape(task)+"/reach", nil)
	if err != nil {
		return reach{}, fmt.Errorf("-server: %w", err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return reach{}, err
	}
	defer response.Body.Close()
	var found struct {
		reach
		Why, Detail string
	}
	err = json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&found)
	switch {
	case response.StatusCode != http.StatusOK:
		return reach{}, fmt.Errorf("%s: %s: %s", server, response.Status, found.Detail)
	case err != nil:
		return reach{}, fmt.Errorf("%s: %w", server, err)
	case found.Door == "":
		return reach{}, fmt.Errorf("task %q has no door: %s", task, found.Why)
	}
	return found.reach, nil
}

func findBrowser(want string) (name, program string, err error) {
	for _, b := range browsers {
		if want != "" && want != b.name {
			continue
		}
		for _, program := range b.programs {
			if path, err := exec.LookPath(program); err == nil {
				return b.name, path, nil
			}
		}
	}
	if want != "" && want != "chromium" && want != "firefox" {
		return "", "", fmt.Errorf("browse: -browser %q: want chromium or firefox", want)
	}
	return cmp.Or(want, "chromium"), cmp.Or(want, "chromium"),
		errors.New("browse: no browser is installed: install chromium or firefox, or see -n")
}

func commandOf(name, program, profile string, to reach, target string) []string {
	if name == "firefox" {
		return []string{program, "-no-remote", "-profile", profile, target}
	}
	command := []string{program, "--user-data-dir=" + profile, "--proxy-server=http://" + to.Door,
		"--proxy-bypass-list=<-loopback>", "--no-first-run", "--no-default-browser-check"}
	if to.Pin != "" {
		command = append(command, "--ignore-certificate-errors-spki-list="+to.Pin)
	}
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		command = append(command, "--no-sandbox") // it has none as root
	}
	return append(command, target)
}

// firefoxSettings are the settings of a profile, as user.js has them.
func firefoxSettings(door string) string {
	host, port, _ := net.SplitHostPort(door)
	return fmt.Sprintf(`user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", %[1]q);
user_pref("network.proxy.http_port", %[2]s);
user_pref("network.proxy.ssl", %[1]q);
user_pref("network.proxy.ssl_port", %[2]s);
user_pref("network.proxy.allow_hijacking_localhost", true);
user_pref("network.proxy.no_proxies_on", "");
user_pref("network.trr.mode", 5);
`, host, port)
}

// shellLine is a command as a POSIX shell reads it.
func shellLine(command []string) string {
	quoted := make([]string, len(command))
	for i, arg := range command {
		quoted[i] = arg
		if strings.ContainsFunc(arg, func(r rune) bool {
			return !strings.ContainsRune("-_=+./:@%,", r) && (r < '0' || r > '9') &&
				(r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			quoted[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
