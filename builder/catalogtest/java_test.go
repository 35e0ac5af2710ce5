//go:build linux

package catalogtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/internal/testbed"
	"github.com/sluice-deploy/sluice/internal/testbed/image"
)

// javaBase has Java, Tomcat, rsync, and yum with a repository of the test's own.
func (b *bed) javaBase(t *testing.T) string {
	return b.base(t, "java", func() image.DebianSpec {
		return image.DebianSpec{
			Programs: []string{"java=default-jre-headless", "dnf=dnf", "rsync=rsync",
				"/usr/share/tomcat10/bin/catalina.sh=tomcat10"},
			Links: map[string]string{"usr/bin/yum": "dnf"},
			Trees: map[string]string{"srv/repository": rpms(b.t)},
			Files: map[string]string{"etc/yum.repos.d/test.repo": "[test]\nname=test\nbaseurl=" +
				"file:///srv/repository\ngpgcheck=0\nenabled=1\n",
				"etc/dnf/dnf.conf": "[main]\ncachedir=/var/cache/dnf\n"},
		}
	})
}

// rpms makes a repository with the package "greeting".
func rpms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	spec := filepath.Join(dir, "greeting.spec")
	require.NoError(t, os.WriteFile(spec, []byte(`Name: greeting
Version: 1.0
Release: 1
Summary: a file
License: none
BuildArch: noarch
%description
A file.
%install
mkdir -p %{buildroot}/usr/share/greeting
echo whole >%{buildroot}/usr/share/greeting/text
%files
/usr/share/greeting
`), 0o644))
	for _, command := range [][]string{
		{testbed.NeedProgram(t, "rpmbuild", "rpm"), "-bb", "--define", "_topdir " + dir + "/work",
			"--define", "_rpmdir " + dir + "/repository", "--define", "_build_id_links none", spec},
		{testbed.NeedProgram(t, "createrepo_c", "createrepo-c"), dir + "/repository"},
	} {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		require.NoError(t, err, "%s: %s", command[0], out)
	}
	return filepath.Join(dir, "repository")
}

const startTomcat = `#!/bin/sh
test "$(cat /usr/share/greeting/text)" = whole || exit 3
export CATALINA_BASE=/home/work/service CATALINA_OPTS=-XX:TieredStopAtLevel=1
exec sh /usr/share/tomcat10/bin/catalina.sh run
`

// rsyncd serves the code of a Tomcat service as the module root, and returns the port; 0 takes a
// free one.
func (s *site) rsyncd(t *testing.T, host string, port int) int {
	t.Helper()
	if port == 0 {
		port = testbed.Port(t)
	}
	dir := testbed.Own(t).TestDir(t, "rsyncd")
	for name, content := range map[string]string{
		"conf/server.xml": fmt.Sprintf(`<Server port="-1"><Service name="Catalina" `+
			`gracefulStopAwaitMillis="20000"><Connector port="%d" address="127.0.0.1"/>`+
			`<Engine name="Catalina" defaultHost="shop"><Host name="shop" appBase="webapps" `+
			`autoDeploy="false"/></Engine></Service></Server>`, s.port),
		"conf/web.xml": `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">` +
			`<servlet><servlet-name>jsp</servlet-name><servlet-class>` +
			`org.apache.jasper.servlet.JspServlet</servlet-class></servlet><servlet-mapping>` +
			`<servlet-name>jsp</servlet-name><url-pattern>*.jsp</url-pattern></servlet-mapping>` +
			`</web-app>`,
		"temp/.keep": "", "work/.keep": "", "logs/.keep": "",
		"webapps/ROOT/slow.jsp": `<% System.out.println("WORKING"); Thread.sleep(3000); %>whole`,
	} {
		file := filepath.Join(dir, "root/root/output", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
	config := filepath.Join(dir, "rsyncd.conf")
	require.NoError(t, os.WriteFile(config, []byte(fmt.Sprintf("pid file = %[1]s/pid\nuse chroot "+
		"= no\nread only = yes\naddress = %[2]s\nport = %[3]d\nuid = 0\ngid = 0\n[root]\npath = "+
		"%[1]s/root\n", dir, host, port)), 0o644))
	testbed.Start(t, dir, testbed.Command{
		Name: "rsyncd", Path: testbed.NeedProgram(t, "rsync", "rsync"),
		Args:  []string{"--daemon", "--no-detach", "--config=" + config},
		Ready: testbed.Listens(net.JoinHostPort(host, strconv.Itoa(port))),
	})
	return port
}

const javaServer = `
import com.sun.net.httpserver.*;
import java.net.InetSocketAddress;
import java.nio.file.*;
import java.util.concurrent.*;
public class Server {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(System.getenv("PORT"));
        serve(port, "whole".getBytes());
    }
    public static void serve(int port, byte[] whole) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        ExecutorService pool = Executors.newCachedThreadPool();
        server.setExecutor(pool);
        server.createContext("/", exchange -> {
            byte[] answer = whole;
            if (exchange.getRequestURI().getPath().equals("/slow")) {
                System.out.println("WORKING");
                try { Thread.sleep(1000); } catch (InterruptedException e) { return; }
            } else {
                answer = Files.readAllBytes(Path.of("/app/env.txt"));
            }
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(20)));
        server.start();
    }
}
`

// jar compiles sources into an archive. manifest are lines of its manifest.
func jar(t *testing.T, sources map[string]string, classPath string, manifest ...string) string {
	t.Helper()
	dir := t.TempDir()
	classes := filepath.Join(dir, "classes")
	require.NoError(t, os.Mkdir(classes, 0o755))
	args := []string{"-d", classes, "-cp", classPath}
	for name, text := range sources {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		args = append(args, file)
	}
	out, err := exec.Command(testbed.NeedProgram(t, "javac", "default-jdk-headless"),
		args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	file, lines := filepath.Join(dir, "app.jar"), filepath.Join(dir, "manifest")
	require.NoError(t, os.WriteFile(lines, []byte(strings.Join(append(manifest, ""), "\n")), 0o644))
	out, err = exec.Command(testbed.NeedProgram(t, "jar", "default-jdk-headless"), "cfm", file,
		lines, "-C", classes, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(content)
}

// setSpringBoot lays out a jar as "java -Djarmode=tools -jar app.jar extract --layers" of Spring
// Boot does: the application names the libraries in its manifest. The framework itself is not here.
func setSpringBoot(t *testing.T, s *site) {
	s.values["BASE_IMAGE"] = s.javaBase(t)
	library := jar(t, map[string]string{"Server.java": javaServer}, "")
	at := filepath.Join(t.TempDir(), "server.jar")
	require.NoError(t, os.WriteFile(at, []byte(library), 0o644))
	s.files["app/dependencies/lib/server.jar"] = library
	s.files["app/spring-boot-loader/.keep"], s.files["app/snapshot-dependencies/.keep"] = "", ""
	s.files["app/application/app.jar"] = jar(t, map[string]string{"Application.java": `
public class Application {
    public static void main(String[] args) throws Exception {
        Server.serve(Integer.parseInt(System.getenv("SERVER_PORT")), "whole".getBytes());
    }
}
`}, at, "Main-Class: Application", "Class-Path: lib/server.jar")
}
