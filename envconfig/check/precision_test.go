package check

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Files as frameworks document them break no rule of their formats.
func TestOrdinaryFilesAreValid(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"logback.xml": "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE " +
			"configuration>\n<configuration><root level=\"info\"/></configuration>",
		"log4j.xml": `<?xml version="1.0"?><!DOCTYPE log4j:configuration SYSTEM "log4j.dtd">
<log4j:configuration xmlns:log4j="http://jakarta.apache.org/log4j/"><root/></log4j:configuration>`,
		"hibernate.cfg.xml": `<!DOCTYPE hibernate-configuration PUBLIC "-//Hibernate/Hibernate Configuration DTD 3.0//EN"
 "http://www.hibernate.org/dtd/hibernate-configuration-3.0.dtd"><hibernate-configuration><session-factory/></hibernate-configuration>`,
		"mybatis-config.xml": `<!DOCTYPE configuration PUBLIC "-//mybatis.org//DTD Config 3.0//EN" "https://mybatis.org/dtd/mybatis-3-config.dtd"><configuration/>`,
		"struts.xml":         `<!DOCTYPE struts PUBLIC "-//Apache Software Foundation//DTD Struts Configuration 2.5//EN" "x.dtd" [<!ENTITY a SYSTEM "a.xml">]><struts>&a;&nbsp;</struts>`,
		"web.xml":            `<!DOCTYPE web-app PUBLIC "-//Sun Microsystems, Inc.//DTD Web Application 2.3//EN" "http://java.sun.com/dtd/web-app_2_3.dtd"><web-app/>`,
		"eleven.xml":         `<?xml version="1.1"?><a/>`,
		"utf16.xml":          "\xff\xfe<\x00a\x00/\x00>\x00",
		"application.yml": "management:\n  endpoints:\n    web:\n      exposure:\n        " +
			"include: health\n" +
			"management.endpoints.web.exposure.include: '*'\n",
		"complex.yaml":  "? [a, b]\n: 1\n? {c: d}\n: 2\n",
		"tags.yaml":     "a: !Ref b\nc: !vault |\n  x\nd: &e 1\nf: *e\n",
		"chart.yaml":    "{{- if .Values.on }}\na: {{ .Values.b }}\n{{- end }}\n",
		"tsconfig.json": "{\n  // strict\n  \"a\": \"http://x\", /* b */\n  \"c\": [1, 2,],\n}\n",
		"log.ndjson":    "{\"a\":1}\n{\"a\":2}\n\n{\"a\":3}\n",
		"events.json":   "{\"a\":1}\n{\"a\":2}\n",
		"my.cnf": "[mysqld]\nskip-networking\nport=1\n!includedir " +
			"/etc/x\n[mysqld]\nport=1\n",
		"unit.ini":         "[Service]\nExecStartPre=/a\nExecStartPre=/b\n",
		"setup.cfg":        "[a]\nb =\n  c\n  d: e\n",
		"twice.properties": "a=1\na=1\n",
		".env":             "A =b\nexport C\nD='x\ny'\n",
		"latin.ini":        "a=f\xfcr\n",
		"nginx.conf":       "http {\n  server { listen 80; }\n  }}}} {\n",
	} {
		_, err := Parse(Format(name), []byte(text))
		assert.NoError(t, err, name)
	}
}

// A file with one mistake is read to its end.
func TestReadOnBehindAMistake(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"a.yml":        "a: 1\na: 2\n---\nb: [\n---\ndb:\n  password: hunter2\n",
		"b.yaml":       "a: [1\nb: 2\npassword: hunter2\n",
		"a.json":       "{\"a\":1,\n\"a\":2,\n\"password\":\"hunter2\"}",
		"b.json":       "{\"a\": tru,\n\"password\": \"hunter2\"}",
		"a.toml":       "a = 1\na = 2\npassword = 'hunter2'\n",
		"a.xml":        "<a>\n<b></c>\n<password>hunter2</password></a>",
		"a.properties": "a=\\u12\na=1\na=2\npassword=hunter2\n",
		"a.ini":        "[a\npassword=hunter2\n",
		".env":         "A B\nC='x\npassword=hunter2\n",
		"d.yaml":       "a: f\xfcr\npassword: hunter2\n",
	} {
		got := found(t, "", map[string]string{"envs/test/" + name: text})
		assert.Contains(t, got, ": syntax: ", name)
		assert.Contains(t, got, "password: a secret stands there", name)
	}
}

// Lines of TOML, in which the decoder has none.
func TestLinesOfTOML(t *testing.T) {
	t.Parallel()
	text := "top = 1 # x\n\n[a.\"b c\"]\nd = '''\ne = 1\n'''\nf.g = [\n  \"]\",\n  2,\n]\nh = { " +
		"i = 1 }\n[[l]]\nm = 1\n[[l]]\nm = 2\n[l.n]\no = \"#\\\"\" # p\nq = 1\n"
	settings, err := Parse("toml", []byte(text))
	require.NoError(t, err)
	lines := map[string]int{}
	for _, s := range settings {
		lines[s.Key] = s.Line
	}
	require.Equal(t, map[string]int{"top": 1, "a.b c.d": 4, "a.b c.f.g": 7, "a.b c.f.g[0]": 7,
		"a.b c.f.g[1]": 7, "a.b c.h.i": 11,
		"l": 12, "l[0].m": 13, "l[1].m": 15, "l[1].n.o": 17, "l[1].n.q": 18}, lines)
}

// Types that differ are a finding where a program would notice.
func TestTypesThatDiffer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, test, production string
		want                   bool
	}{
		{"a.properties", "port=80", "port=eighty", true},
		{"a.properties", "server.threads=8", "server.threads=many", true},
		{"a.properties", "debug=true", "debug=ture", true},
		{"a.properties", "cache.enabled=false", "cache.enabled=disabled", true},
		{"a.yaml", "pool: 5", "pool: five", true},
		{"a.yaml", "hosts: [a]", "hosts: a", true},
		{"a.json", `{"port":80}`, `{"port":"80"}`, true},
		{"a.properties", "db.password=root", "db.password=123456", false},
		{"a.yaml", "password: root", "password: 123456", false},
		{"a.properties", "user=admin", "user=1001", false},
		{"a.properties", "app.version=1.0", "app.version=1.0-rc1", false},
		{"a.yaml", "image: {tag: 1.10}", "image: {tag: v2}", false},
		{"a.properties", "timeout=30", "timeout=30s", false},
		{"a.properties", "max.size=512", "max.size=512MB", false},
		{"a.yaml", "cpu: 1", "cpu: 500m", false},
		{"a.properties", "ssl=true", "ssl=off", false},
		{"a.properties", "greeting=1", "greeting=hello", false},
		{"a.properties", "port=80", "port=${PORT}", false},
		{"a.properties", "port=80", "port={{ port }}", false},
		{"a.properties", "port=80", "port=8080-8090", false},
		{"a.properties", "debug=1", "debug=true", false},
		{"a.xml", "<a><id>12</id></a>", "<a><id>a12</id></a>", false},
	} {
		got := found(t, "", map[string]string{"envs/test/" + c.name: c.test, "envs/production/" +
			c.name: c.production})
		assert.Equal(t, c.want, strings.Contains(got, ": type: "), "%s: %s, %s\n%s", c.name, c.test,
			c.production, got)
	}
}

// Hosts that are the container itself, where that is a mistake and where it is meant.
func TestContainerAsHost(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]bool{
		"url=jdbc:mysql://localhost/app": true, "redis.host=127.0.0.1": true,
		"api=http://localhost:8080/v1": true, "h=localhost": true,
		"kafka=localhost:9092,b:9092": true, "mongo=mongodb://[::1]:27017/x": true,
		"smtp.host=localhost": true,
		"bind=127.0.0.1":      false, "bind-address=127.0.0.1": false,
		"listen=127.0.0.1:8080":         false,
		"server.address=127.0.0.1":      false,
		"sidecar=http://localhost:3000": false, "proxy=http://localhost:15000": false,
		"envoy.admin=http://127.0.0.1:9901":         false,
		"url=http://localhost:8080/health":          false,
		"u=http://127.0.0.1/actuator/health?full=1": false, "health.url=http://localhost:1": false,
		"jmx.host=localhost": false, "java.rmi.server.hostname=localhost": false,
		"management.server.address=127.0.0.1": false,
		"NO_PROXY=localhost,127.0.0.1,.svc":   false, "http.nonProxyHosts=localhost|127.*": false,
		"cors.allowed-origins=http://localhost:3000": false,
		"statsd.host=127.0.0.1":                      false, "otel=http://localhost:4317": false,
		"dd=localhost:8125": false, "nothing=localhosts": false,
		"server_name=localhost": false, "text=runs on localhost and nowhere else": false,
		"metrics.addr=127.0.0.1:9100": false, "proxy.bypass=127.0.0.1": false,
	} {
		got := found(t, "", map[string]string{"envs/production/a.properties": setting})
		assert.Equal(t, want, got != "", "%s\n%s", setting, got)
	}
	for text, want := range map[string]bool{
		"http {\n  listen 127.0.0.1:80;\n  server_name localhost;\n  allow 127.0.0.1;\n}\n": false,
		"http {\n  location / {\n    proxy_pass http://localhost:8080;\n  }\n}\n":           true,
	} {
		got := found(t, "", map[string]string{"envs/production/nginx.conf": text})
		assert.Equal(t, want, got != "", "%s\n%s", text, got)
	}
	require.Empty(t,
		found(t, "",
			map[string]string{"envs/production/server.xml": `<Server><Engine defaultHost="localhost"><Host name="localhost" appBase="x"/></Engine></Server>`}))
}

// Values of one environment in another.
func TestValuesOfOtherEnvironments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, test, production, blamed string
	}{
		{"a.properties", "db.host=db-prod", "db.host=db-prod", "test"},
		{"a.properties", "url=jdbc:postgresql://db-prod:5432/app", "url=jdbc:postgresql://db/app",
			"test"},
		{"a.properties", "url=http://u@orders.prod.svc.cluster.local/", "url=x", "test"},
		{"a.properties", "h=10.1.2.3", "h=10.1.2.3", "test"},
		{"a.properties", "api=http://10.1.2.3:80/v1", "api=http://10.1.2.3:80/v2", "test"},
		{"a.properties", "topic=orders-production", "topic=orders", "test"},
		{"a.properties", "t=prod_orders", "t=orders", "test"},
		{"a.yaml", "topics: [orders-production]", "topics: [orders]", "test"},
		{"a.properties", "url=jdbc:mysql://db.example.com/app",
			"url=jdbc:mysql://db.example.com/app?x=1", "test"},
		{"a.properties", "redis.host=cache.shop.example.com", "redis.host=cache.shop.example.com",
			"test"},
		{"a.yaml", "spring: {kafka: {bootstrap-servers: 'k1.shop.example.com:9092'}}",
			"spring: {kafka: {bootstrap-servers: 'k1.shop.example.com:9092'}}", "test"},
		{"a.properties", "db.url=jdbc:mysql://db.test.example.com/a",
			"db.url=jdbc:mysql://db.test.example.com/a", "production"},
		{"a.properties", "db.host=db-test", "db.host=db-test", "production"},
		{"app.conf", "db { host = \"db-prod\" }\nhost = db-prod\n", "", "test"},
		{"a.properties", "db.host=mysql", "db.host=mysql", ""},
		{"a.properties", "url=jdbc:mysql://mysql/app", "url=jdbc:mysql://mysql/app", ""},
		{"a.properties", "url=jdbc:mysql://db.shop.svc/app", "url=jdbc:mysql://db.shop.svc/app",
			""},
		{"a.properties", "api=https://api.github.com", "api=https://api.github.com", ""},
		{"a.properties", "dns=10.0.0.2\nresolver=8.8.8.8", "dns=10.0.0.2\nresolver=8.8.8.8", ""},
		{"a.properties", "bind=0.0.0.0\nversion=1.2.3.4", "bind=0.0.0.0\nversion=1.2.3.4", ""},
		{"a.properties", "NODE_ENV=production\nprofile=orders-prod",
			"NODE_ENV=production\nprofile=orders-prod", ""},
		{"a.properties", "file=webpack.prod.js\ndb.name=pre-prod",
			"file=webpack.prod.js\ndb.name=pre-prod", ""},
		{"a.properties", "suite=smoke-test", "suite=smoke-test", ""},
		{"a.properties", "mode=non-production", "mode=non-production", ""},
	} {
		got := found(t, "", map[string]string{"envs/test/" + c.name: c.test, "envs/production/" +
			c.name: c.production})
		var blamed []string
		for _, line := range strings.Split(got, "\n") {
			if _, after, ok := strings.Cut(line, ": leak: "); ok {
				name, _, _ := strings.Cut(after, ":")
				if len(blamed) == 0 || blamed[len(blamed)-1] != name {
					blamed = append(blamed, name)
				}
			}
		}
		assert.Equal(t, c.blamed, strings.Join(blamed, ","), "%s | %s\n%s", c.test, c.production,
			got)
	}
}

// All environments have production's database, in a file that they share.
func TestDatabaseThatAllShare(t *testing.T) {
	t.Parallel()
	got := found(t, "",
		map[string]string{"envs/_base/a.properties": "url=jdbc:mysql://db.shop.example.com/app\nmail=10.0.0.1\n",
			"envs/test/b": "", "envs/sandbox/b": "", "envs/production/b": "", "envs/stable/b": ""})
	line := "envs/_base/a.properties:1: leak: %s: url: the database is the same as in production"
	require.Equal(t, fmt.Sprintf(line, "sandbox")+"\n"+fmt.Sprintf(line, "test"), got)
}
