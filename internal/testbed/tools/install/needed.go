//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-deploy/sluice/internal/soak"
	"github.com/sluice-deploy/sluice/internal/testbed/tools"
)

// need lists the tools and packages of a test that has the mark in one of its files.
type need struct {
	mark     string
	tools    []string // of package tools
	packages []string // of Debian, as scripts/packages takes them: file or command = package
}

// others is the mark of tests that run on the Nginx of other releases of Debian too.
const others = "nginx.Others("

var needs = []need{
	{others, nil, append([]string{"patchelf=patchelf"}, nginx...)},
	{"nginx.Start(", nil, nginx},
	{"nginx.Curl(", nil, []string{"curl=curl"}},
	{"consul.Start(", []string{"consul"}, nil},
	{"consul.StartCluster(", []string{"consul"}, []string{"ip=iproute2"}},
	{"proxy.Start(", []string{"toxiproxy"}, nil},
	{"registry.Start(", nil, []string{"docker-registry=docker-registry"}},
	{"rsync.Start", nil, []string{"rsync=rsync"}},
	{"rsync.StartStandard(", nil, []string{"rsync=rsync"}},
	{"hosts.Start(", nil, []string{"ip=iproute2"}},
	{"kube.Start(", []string{"etcd", "runc", "containerd", "kubernetes"}, []string{
		"/usr/lib/cni/bridge=containernetworking-plugins", "busybox=busybox-static", "ip=iproute2",
		"gcc=gcc", "/usr/include/stdio.h=libc6-dev", "/usr/include/seccomp.h=libseccomp-dev",
	}},
	{"cp /bin/busybox ", nil, []string{"busybox=busybox-static"}},
	{"image.Base(", nil, []string{"busybox=busybox-static", "rsync=rsync"}},
	{"image.Builder(", []string{"buildkit"}, []string{
		"busybox=busybox-static", "rsync=rsync", "runc=runc",
	}},
	{"image.Programs(", nil, []string{"busybox=busybox-static"}},
	{"buildkit.Start(", []string{"buildkit"}, []string{"runc=runc"}},
	{"ngx_stream_module.so", nil, []string{
		"/usr/lib/nginx/modules/ngx_stream_module.so=libnginx-mod-stream"}},
	{"ngx_mail_module.so", nil, []string{
		"/usr/lib/nginx/modules/ngx_mail_module.so=libnginx-mod-mail"}},
	{"ngx_http_memc_module.so", nil, []string{
		"/usr/lib/nginx/modules/ngx_http_memc_module.so=libnginx-mod-http-memc"}},
	{"ngx_http_srcache_filter_module.so", nil, []string{
		"/usr/lib/nginx/modules/ngx_http_srcache_filter_module.so=" +
			"libnginx-mod-http-srcache-filter"}},
	{"ngx_http_cache_purge_module.so", nil, []string{
		"/usr/lib/nginx/modules/ngx_http_cache_purge_module.so=libnginx-mod-http-cache-purge"}},
	{`"memcached", "memcached"`, nil, []string{"memcached=memcached"}},
	{"nginxtest.", nil, nginx},
	{`("nginx"`, nil, nginx},
	{`, "nginx", "-`, nil, nginx},
	{"exec nginx ", nil, nginx},
	{"servertest.", nil, nginx},
	{"server/edge\"", nil, nginx},
	{"examples/embed\"", nil, nginx},
	{"examples/story\"", nil, nginx},
	{"chromedp", nil, browser()},
	{`"crane"`, []string{"crane"}, nil},
	{`"skopeo", "skopeo"`, nil, []string{"skopeo=skopeo"}},
	{"docker.Start(", nil, []string{"dockerd=docker.io", "docker=docker.io"}},
	{`"curl `, nil, []string{"curl=curl"}},
	{`"curl", "curl"`, nil, []string{"curl=curl"}},
	{"keepalived", nil, []string{"keepalived=keepalived"}},
	{`"chattr"`, nil, []string{"chattr=e2fsprogs"}}, // essential in Debian 12, no longer in 13
	{"bind.Start(", nil, []string{"named=bind9"}},
	{"services.All", nil, catalogue()},
	{"engine.RunImage(", nil, []string{"runc=runc"}},
	{"package catalogtest", nil, phpFPM()},
	{`"gosu", "gosu"`, nil, []string{"gosu=gosu"}},
	{`"chpst", "runit"`, nil, []string{"chpst=runit"}},
	{"engine.Docker", nil, []string{"dockerd=docker.io", "docker=docker.io"}},
	{"engine.Runc", nil, []string{"runc=runc"}},
	{`"systemd-analyze"`, nil, []string{"systemd-analyze=systemd"}},
	{`"python3", "python3"`, nil, []string{"python3=python3"}},
	{`"javac", "default-jdk-headless"`, nil, []string{"javac=default-jdk-headless"}},
	{`"rpm", "rpm"`, nil, []string{"rpmbuild=rpm"}},
	{`"git"`, nil, []string{"git=git"}},
	{`"rsync"`, nil, []string{"rsync=rsync"}},
}

// soakNeeds are the needs of the tests that only make soak runs.
var soakNeeds = []need{
	{"image.Yum(", nil, []string{"dnf=dnf", "rpmbuild=rpm", "createrepo_c=createrepo-c",
		"rsync=rsync"}},
	{"package catalogtest", nil, append(catalogue(), "/usr/bin/pip3=python3-pip", "npm=npm",
		"dnf=dnf", "rpmbuild=rpm", "createrepo_c=createrepo-c", "rsync=rsync")},
}

var nginx = []string{"nginx=nginx",
	"/usr/lib/nginx/modules/ngx_http_lua_module.so=libnginx-mod-http-lua"}

// catalogue are the packages of internal/testbed/services.
func catalogue() []string {
	return append(phpFPM(), "nginx=nginx", "node=nodejs", "java=default-jre-headless",
		"javac=default-jdk-headless", "/usr/share/tomcat10/bin/catalina.sh=tomcat10",
		"gunicorn=gunicorn", "celery=celery", "supervisord=supervisor", "cron=cron",
		"haproxy=haproxy", "apache2=apache2")
}

// phpFPM is the package of php-fpm, whose program Debian gives the version of PHP.
func phpFPM() []string {
	if found, _ := filepath.Glob("/usr/sbin/php-fpm[0-9]*"); len(found) > 0 {
		return nil
	}
	return []string{"php-fpm=php-fpm"}
}

// browser is the package of Chromium, which Ubuntu has as a snap behind a package of another name.
// A machine with another build of it needs none.
func browser() []string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if _, err := exec.LookPath(name); err == nil {
			return nil
		}
	}
	if release, err := os.ReadFile("/etc/os-release"); err == nil &&
		bytes.Contains(release, []byte("\nID=ubuntu\n")) {
		return []string{"chromium-browser=chromium-browser"}
	}
	return []string{"chromium=chromium"}
}

// neededBy are the needs of the tests in directories, given as ./directory or ./directory/...
// Under make soak soakNeeds count, too.
func neededBy(patterns []string) ([]need, error) {
	var files [][]byte
	for _, pattern := range patterns {
		err := eachTest(pattern, func(_ string, data []byte) { files = append(files, data) })
		if err != nil {
			return nil, err
		}
	}
	return needsOf(files), nil
}

// eachTest calls visit with the file of each test, or script of one, in pattern.
func eachTest(pattern string, visit func(path string, data []byte)) error {
	dir, deep := strings.CutSuffix(pattern, "...")
	root := filepath.Clean(dir)
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && !deep && path != root && !strings.Contains(path, "testdata"):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, ".txtar"):
			return nil
		}
		data, err := os.ReadFile(path)
		if err == nil {
			visit(path, data)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("tests of %s: %w", pattern, err)
	}
	return nil
}

// needsOf are the needs whose marks are in one of the files.
func needsOf(files [][]byte) []need {
	all := needs
	if soak.Whole() {
		all = slices.Concat(needs, soakNeeds)
	}
	var found []need
	for _, n := range all {
		if slices.ContainsFunc(files, func(data []byte) bool {
			return bytes.Contains(data, []byte(n.mark))
		}) {
			found = append(found, n)
		}
	}
	return found
}

// toolsOf are the tools of the needs, the quickest to build first.
func toolsOf(needs []need) []tools.Tool {
	var found []tools.Tool
	for _, t := range tools.All {
		if slices.ContainsFunc(needs, func(n need) bool {
			return slices.Contains(n.tools, t.Name)
		}) {
			found = append(found, t)
		}
	}
	return found
}

// asRoot are the marks of servers that only root can start.
var asRoot = []string{"kube.Start(", "hosts.Start(", "consul.StartCluster(",
	"rsync.StartStandard(", "engine.Docker", "engine.Runc", "engine.RunImage("}

// allowed is an error when the needs ask for more than a user may.
func allowed(needs []need, uid int) error {
	var marks []string
	for _, n := range needs {
		if uid != 0 && slices.Contains(asRoot, n.mark) {
			marks = append(marks, strings.TrimSuffix(n.mark, "("))
		}
	}
	if marks == nil {
		return nil
	}
	return fmt.Errorf("what these tests start needs root, and you are user %d: %s: run this as "+
		"root, or PKG=./directory/... of tests that do "+
		"without, or go test ./..., which skips what it cannot start", uid,
		strings.Join(marks, ", "))
}

// packagesOf are the Debian packages of the needs, each once.
func packagesOf(needs []need) []string {
	var found []string
	for _, n := range needs {
		found = append(found, n.packages...)
	}
	slices.Sort(found)
	return slices.Compact(found)
}
