package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/sluice-deploy/sluice/examples/server/platform"
	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/nginxsync/door"
)

// Reach says how testers reach a task.
type Reach struct {
	platform.Reach
	// PAC is the path of the proxy auto-configuration file; empty without a door.
	PAC string `json:"pac,omitempty"`
	// Lines are to be copied, each for one tool.
	Lines []Line `json:"lines"`
}

// Line is a text to copy.
type Line struct {
	Tool string `json:"tool"`
	Text string `json:"text"`
}

func (w *web) reach(r *http.Request) (Reach, error) {
	found, err := w.Platform.Reach(r.Context(), r.PathValue("task"))
	if err != nil {
		return Reach{}, err
	}
	reach := Reach{Reach: found, Lines: lines(found)}
	if w.Platform.DoorSecret() != "" {
		reach.PAC = "/pac/" + found.Task.Task + "/" + w.pacProof(found.Task.Task) + ".pac"
	}
	return reach, nil
}

// lines are the texts of a task. A test runs each as it is here. The names of tasks and hosts have
// no characters that a shell reads.
func lines(r platform.Reach) []Line {
	if r.Host == "" {
		return []Line{}
	}
	host, vip := r.Host, netip.AddrPortFrom(r.Task.VIP, uint16(r.NginxPort))
	var list []Line
	add := func(tool, format string, args ...any) {
		list = append(list, Line{tool, fmt.Sprintf(format, args...)})
	}
	if r.Door != "" {
		add("curl", "curl -x http://%s http://%s/", r.Door, host)
	}
	if r.Shared != "" {
		add("curl, by the proxy user", "curl -x http://%s@%s http://%s/", r.Task.Task, r.Shared,
			host)
	}
	if r.Door != "" {
		proxy, port, _ := net.SplitHostPort(r.Door)
		add("Chromium", "chromium --user-data-dir=/tmp/sluice-%s --proxy-server=http://%s "+
			"--proxy-bypass-list='<-loopback>' http://%s/", r.Task.Task, r.Door, host)
		add("programs that read the environment", "export http_proxy=http://%s "+
			"https_proxy=http://%[1]s", r.Door)
		add("Python", "python3 -c 'from urllib.request import *; print(build_opener(ProxyHandler("+
			"{\"http\": \"http://%s\"})).open(\"http://%s/\").read().decode())'", r.Door, host)
		add("Java", "java -Dhttp.proxyHost=%s -Dhttp.proxyPort=%s -Dhttps.proxyHost=%[1]s "+
			"-Dhttps.proxyPort=%[2]s -Dhttp.nonProxyHosts=", proxy, port)
		add("chromedp", "chromedp.ProxyServer(\"http://%s\")", r.Door)
	}
	if r.Door != "" && r.Secure != "" {
		add("curl, https", "curl -sx http://%s http://%s/ca.pem -o /tmp/sluice-ca-%s.pem && "+
			"curl -x http://%[1]s --cacert /tmp/sluice-ca-%[3]s.pem https://%[4]s/", r.Door,
			door.MagicHost, r.Task.Task, r.Secure)
		add("Chromium, https", "chromium --user-data-dir=/tmp/sluice-%s --proxy-server=http://%s "+
			"--proxy-bypass-list='<-loopback>' --ignore-certificate-errors-spki-list=%s "+
			"https://%s/", r.Task.Task, r.Door, r.Pin, r.Secure)
	}
	add("curl, without a door", "curl --resolve %s:%d:%s http://%[1]s:%[2]d/", host, r.NginxPort,
		r.Task.VIP)
	add("Chromium, without a door", "chromium --user-data-dir=/tmp/sluice-%s "+
		"--host-resolver-rules=\"MAP %s:80 %s\" http://%[2]s/", r.Task.Task, host, vip)
	add(fmt.Sprintf("/etc/hosts, then http://%s:%d/", host, r.NginxPort), "%s %s", r.Task.VIP, host)
	return list
}

// pacProof makes the address of a PAC file one that cannot be guessed: a browser fetches it without
// a token.
func (w *web) pacProof(task string) string {
	mac := hmac.New(sha256.New, []byte(w.Platform.DoorSecret()))
	mac.Write([]byte("pac " + task))
	return hex.EncodeToString(mac.Sum(nil))[:32]
}

func (w *web) pac(rw http.ResponseWriter, r *http.Request) {
	task := r.PathValue("task")
	proof, ok := strings.CutSuffix(r.PathValue("file"), ".pac")
	if !ok || w.Platform.DoorSecret() == "" || !equal(proof, w.pacProof(task)) {
		writeProblem(rw, httpproblem.NotFound, "no such file")
		return
	}
	rw.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
	rw.Header().Set("Cache-Control", "no-cache")
	_, _ = rw.Write([]byte(w.Platform.PAC(task))) // a browser that is gone needs none
}

// taskPage is the page of one task.
type taskPage struct {
	Reach
	Left  string // of the lease; empty for no end
	PACAt string // the address of the PAC file
	QR    template.HTML
}

func (w *web) taskPage(rw http.ResponseWriter, r *http.Request) {
	reach, err := w.reach(r)
	if err != nil {
		w.showProblem(rw, r, err)
		return
	}
	page := taskPage{Reach: reach}
	if end := reach.Task.Expires; !end.IsZero() {
		page.Left = max(0, end.Sub(w.now())).Round(time.Minute).String()
	}
	if reach.PAC != "" {
		scheme := "http://"
		if w.TLSProxy {
			scheme = "https://"
		}
		page.PACAt = scheme + w.pacHost(r) + reach.PAC
		page.QR = qrCode(page.PACAt)
	}
	w.render(rw, r, http.StatusOK, "task.html", page)
}

// pacHost is the host of this server for programs that know no names below localhost.
func (w *web) pacHost(r *http.Request) string {
	if host, port, err := net.SplitHostPort(r.Host); err == nil && host == pageHost {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return r.Host
}

// qrCode is the text as a picture for phones; empty for a text that is too long.
func qrCode(text string) template.HTML {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return ""
	}
	const margin = 4 // ISO/IEC 18004: the quiet zone
	var b strings.Builder
	size := strconv.Itoa(code.Size + 2*margin)
	b.WriteString(`<svg class="qr" role="img" aria-label="The address of the PAC file" ` +
		`viewBox="0 0 ` + size + ` ` + size + `" shape-rendering="crispEdges"><rect width="100%" ` +
		`height="100%" fill="#fff"/><path d="`)
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+margin, y+margin)
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String())
}
