package start

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// What keeps SIGTERM from the service, in ENTRYPOINT and in start scripts.
func TestEntrypoints(t *testing.T) {
	t.Parallel()
	image := fstest.MapFS{"bin/sh": {Mode: 0o755}}
	script := func(name, text string, mode fs.FileMode) {
		image[name] = &fstest.MapFile{Data: []byte(text), Mode: mode}
	}
	script("exec.sh", "#!/bin/sh\nset -e\nexec /app/server\n", 0o755)
	script("plain.sh", "#!/bin/sh\n/app/server\n", 0o755)
	script("tomcat.sh", "#!/bin/sh\n/opt/tomcat/bin/catalina.sh start\n", 0o755)
	script("background.sh", "#!/bin/sh\n/app/server &\nwait\n", 0o755)
	script("noexec.sh", "#!/bin/sh\nexec x\n", 0o644)
	script("lost.sh", "#!/usr/bin/perl\nexec x\n", 0o755)
	script("crlf.sh", "#!/bin/sh\r\nexec x\r\n", 0o755)
	script("bare.sh", "exec x\n", 0o755)
	for dockerfile, want := range map[string]string{
		`ENTRYPOINT ["/exec.sh"]`:                                                  "",
		`ENTRYPOINT ["/app/server"]`:                                               "/app/server: command: is not in the image",
		`ENTRYPOINT /app/server`:                                                   "ENTRYPOINT: command: a shell stays process 1, ignores SIGTERM and does not pass it on: use the form with brackets, exec, or envconfig",
		`ENTRYPOINT exec /app/server`:                                              "",
		`ENTRYPOINT ["/plain.sh"]`:                                                 "/plain.sh:2: command: the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service",
		`ENTRYPOINT ["/sbin/envconfig","--","sh","/plain.sh"]`:                     "",
		"ENTRYPOINT [\"/sbin/envconfig\",\"--\"]\nCMD [\"/tomcat.sh\"]":            "/tomcat.sh:2: command: starts Tomcat in the background: use catalina.sh run, or envconfig --on-main-exit=wait",
		`ENTRYPOINT ["/sbin/envconfig","--on-main-exit=wait","--","/tomcat.sh"]`:   "",
		`ENTRYPOINT ["/sbin/envconfig","--on-main-exit","wait","--","/tomcat.sh"]`: "",
		`ENTRYPOINT ["sh","/background.sh"]`:                                       "/background.sh:2: command: puts a process into the background: run the service in the foreground, or use envconfig --on-main-exit=wait",
		`ENTRYPOINT ["/noexec.sh"]`:                                                "/noexec.sh: command: is not executable: mode 0644",
		`ENTRYPOINT ["/lost.sh"]`:                                                  "/lost.sh:1: command: the interpreter /usr/bin/perl is not in the image",
		`ENTRYPOINT ["/crlf.sh"]`:                                                  "/crlf.sh:1: command: the first line ends in a carriage return, so that the interpreter is not found",
		`ENTRYPOINT ["/bare.sh"]`:                                                  "/bare.sh:1: command: has no #! line",
		"WORKDIR /\nENTRYPOINT [\"./plain.sh\"]\nFROM other\nCMD [\"/exec.sh\"]":   "",
		"FROM x AS first\nWORKDIR /\nCMD [\"./plain.sh\"]\nFROM first AS second\nENTRYPOINT [\"sh\", \"/exec.sh\"]\nFROM --platform=linux/amd64 FIRST": "./plain.sh:2: command: the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service",
		"ENTRYPOINT [\"/sbin/envconfig\",\"--\",\"/tomcat.sh\"]\nENV A=b ENVCONFIG_ON_MAIN_EXIT=\"wait\"":                                              "",
		"ENV ENVCONFIG_ON_MAIN_EXIT wait\nENTRYPOINT [\"/sbin/envconfig\",\"--\",\"/tomcat.sh\"]":                                                      "",
		"ENV ENVCONFIG_ON_MAIN_EXIT=wait\nENTRYPOINT [\"/exec.sh\"]":                                                                                   "",
		`ENTRYPOINT ["/sbin/envconfig","--init=false","--","sh","/plain.sh"]`:                                                                          "/plain.sh:2: command: the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service",
		"CMD [\"sh\", \"/plain.sh\"]\nENTRYPOINT [\"/sbin/envconfig\", \"--\"]":                                                                        "",
		"ENV ENVCONFIG_INIT=false\nENV ENVCONFIG_INIT=true\nENTRYPOINT [\"/sbin/envconfig\", \"--\", \"/plain.sh\"]":                                   "",
		"ENV ENVCONFIG_INIT=false\nENTRYPOINT [\"/sbin/envconfig\", \"--init\", \"--\", \"/plain.sh\"]":                                                "",
		"ENV ENVCONFIG_ON_MAIN_EXIT=wait\nENTRYPOINT [\"/sbin/envconfig\", \"--on-main-exit\", \"stop\", \"--\", \"/tomcat.sh\"]":                      "/tomcat.sh:2: command: starts Tomcat in the background: use catalina.sh run, or envconfig --on-main-exit=wait",
		"ENTRYPOINT\t[\"sh\", \\\n # the service\n\"/exec.sh\"]":                                                                                       "",
		`ENTRYPOINT ["sh","-e","/plain.sh"]`:                                                                                                           "/plain.sh:2: command: the last command has no exec: the shell stays process 1 and SIGTERM does not reach the service",
		`ENTRYPOINT ["bash","--login","-o","pipefail","+x","--","/exec.sh"]`:                                                                           "",
		`ENTRYPOINT ["bash","-lc","/app/server"]`:                                                                                                      "ENTRYPOINT: command: a shell stays process 1, ignores SIGTERM and does not pass it on: use the form with brackets, exec, or envconfig",
		`ENTRYPOINT ["/bin/bash","-euo","pipefail","-c","exec /app/server"]`:                                                                           "",
		`ENTRYPOINT ["sh","-c"]`:                "",
		`CMD []`:                                "ENTRYPOINT: command: names no command",
		`ENTRYPOINT ["/sbin/envconfig", "x"]`:   "ENTRYPOINT: command: names no command",
		"ENTRYPOINT [\"sh\", \\\n\"/exec.sh\"]": "",
	} {
		command, dir := Dockerfile("FROM base\n" + dockerfile)
		var lines []string
		for _, f := range Entrypoint(command, image, dir) {
			lines = append(lines, f.String())
		}
		require.Equal(t, want, strings.Join(lines, "\n"), dockerfile)
	}
}
