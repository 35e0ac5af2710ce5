package check

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Alphabets of random parts: {h32} is 32 of hexadecimal digits, {a}, {A}, {n}, {w} of letters and
// digits, upper-case letters and digits, digits, and letters, digits, "_" and "-".
var alphabets = map[byte]string{
	'h': "0123456789abcdef",
	'a': "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
	'A': "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
	'n': "0123456789",
	'w': "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-",
	'l': "abcdefghijklmnopqrstuvwxyz0123456789",
}

// random fills in the random parts of a pattern.
func random(r *rand.Rand, pattern string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(pattern, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		spec, after, _ := strings.Cut(rest, "}")
		var n int
		_, _ = fmt.Sscan(spec[1:], &n)
		for range n {
			b.WriteByte(alphabets[spec[0]][r.IntN(len(alphabets[spec[0]]))])
		}
		pattern = after
	}
}

// issued are tokens as their issuers describe them, written down apart from the forms that find
// them.
var issued = []string{"AKIA{A16}", "ASIA{A16}", "ghp_{a36}", "gho_{a36}", "ghu_{a36}", "ghs_{a36}",
	"ghr_{a36}", "github_pat_{a22}_{a59}", "glpat-{w20}",
	"gldt-{w20}", "glrt-{w20}", "glcbt-{w20}", "glptt-{h40}", "glft-{w20}", "glagent-{w50}",
	"xoxb-{n12}-{n12}-{a24}", "xoxp-{n12}-{n12}-{n12}-{h32}",
	"xapp-1-A{A10}-{n13}-{h64}", "https://hooks.slack.com/services/T{A8}/B{A10}/{a24}",
	"sk_live_{a24}", "rk_live_{a24}", "sk_test_{a24}", "whsec_{a32}",
	"AIza{w35}", "GOCSPX-{w28}", "ya29.{w60}", "SG.{w22}.{w43}", "key-{h32}", "{h32}-us{n2}",
	"SK{h32}", "npm_{a36}", "pypi-AgEIcHlwaS5vcmc{w70}",
	"rubygems_{h48}", "dckr_pat_{w27}", "dop_v1_{h64}", "doo_v1_{h64}", "hf_{a34}", "sk-proj-{w74}",
	"sk-{a48}", "sk-ant-api03-{w93}AA", "gsk_{a52}",
	"pplx-{a48}", "r8_{a37}", "dapi{h32}", "ATATT3xFfGF0{w180}", "lin_api_{a40}", "ntn_{n11}{a35}",
	"pat{a14}.{h64}", "shpat_{h32}", "shpss_{h32}",
	"sq0atp-{w22}", "sq0csp-{w43}", "access-production-{h8}-{h4}-{h4}-{h4}-{h12}",
	"shippo_live_{h40}", "dt0c01.{A24}.{A64}", "NRAK-{A27}",
	"glsa_{a32}_{h8}", "glc_{a60}", "sntryu_{h64}", "pscale_tkn_{w43}", "PMAK-{h24}-{h34}",
	"pul-{h40}", "dp.pt.{a43}", "hvs.{w90}", "hvb.{w150}",
	"{a14}.atlasv1.{w64}", "AGE-SECRET-KEY-1{A58}", "LTAI{a20}", "AKCp{a69}", "CFPAT-{w43}",
	"figd_{w40}", "tskey-auth-{a16}-{a32}", "sbp_{h40}",
	"nfp_{a40}", "phx_{a43}", "tfp_{w44}_{a14}", "EZAK{a54}", "duffel_live_{w43}", "fio-u-{w64}",
	"ico-{a32}", "CLOJARS_{l60}", "oy2{l43}",
	"API-{A26}", "squ_{h40}", "sgp_{h40}", "rdme_{l70}", "tk-us-{w48}", "{n10}:AA{w33}",
	"MT{w22}.{w6}.{w38}", "bkua_{l40}", "lsv2_pt_{h32}_{h10}",
	"waka_{h8}-{h4}-{h4}-{h4}-{h12}", "xkeysib-{h64}-{a16}", "xai-{a80}", "EAAM{a120}",
	"eyJhbGciOiJIUzI1NiJ9.eyJ{w40}.{w43}", "HRKU-AA{w58}",
	"discord.com/api/webhooks/{n18}/{w68}", "sdk-{h8}-{h4}-{h4}-{h4}-{h12}", "pcsk_{a60}",
	"rzp_live_{a14}", "sm_pat_{a16}", "pnu_{l36}"}

// carriers write a value into a file of each kind, under a name that says nothing.
var carriers = map[string]string{
	"a.properties": "x.value=%s\n", "b.yaml": "x:\n  - value: '%s'\n",
	"c.json": `{"x": {"value": "%s"}}`, "d.toml": "value = \"%s\"\n",
	"e.xml": "<x><value>%s</value></x>", "f.ini": "[x]\nvalue = %s\n", ".env": "VALUE=%s\n",
	"g.conf": "x {\n  value %s;\n}\n", "h.cnf": "[x]\nvalue=%s\n",
	"i.sh": "call --value %s\n", "j.hocon": "x { value = \"%s\" }\n",
	"k.js": "const value = '%s';\n", "l.py": "value = \"%s\"\n", "m.tf": "value = \"%s\"\n",
	"n.groovy": "def value = '%s'\n", "o.txt": "%s\n", "p.cfg": "value: %s\n",
	"q": "see %s for it\n", "r.md": "`%s`\n",
}

// passwords are where people write them, with a password in the place of %s.
var passwords = map[string][]string{
	"a.properties": {"url=jdbc:mysql://db/app?user=u&password=%s",
		"url=jdbc:sqlserver://db;user=sa;password=%s;encrypt=true",
		"url=jdbc:oracle:thin:u/x@db?password=%s",
		"cs=Server=db;User ID=sa;Password=%s;", "cs=Data Source=db;Uid=u;Pwd=%s",
		"cs=Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=%s",
		"cs=DefaultEndpointsProtocol=https;AccountName=n;AccountKey=%s;EndpointSuffix=core",
		"u=amqp://u:%s@mq:5672", "JAVA_OPTS=-Xmx1g -Ddb.password=%s",
		`jaas=org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="%s";`, "spring.datasource.password=%s", "smtp_pass=%s"},
	"b.yaml": {"command: [app, --password, %s]", "args:\n- --db-password=%s",
		"environment:\n- POSTGRES_PASSWORD=%s", "environment:\n  MYSQL_ROOT_PASSWORD: %s",
		"cmd: curl -u admin:%s http://h/", "cmd: mysqldump -u root -p%s app",
		"cmd: redis-cli -h h -a %s ping", "healthcheck:\n  test: mysqladmin ping --password=%s",
		"header: 'Authorization: Basic %s'", "url: redis://:%s@cache:6379/0"},
	"c.conf": {"db {\n  password = \"%s\"\n}", "requirepass %s", "masterauth %s",
		"auth_token: %s", "proxy_set_header Authorization \"Bearer %s\";",
		"user = u\npassword = %s"},
	"d.cnf": {"[client]\npassword=%s", "[client]\npassword = \"%s\""},
	"e.sh": {"export DB_PASSWORD=%s", "PGPASSWORD=%s psql -h h", "curl -H 'Authorization: " +
		"Bearer %s' http://h", "mysql -uroot -p%s app", "app --token=%s", "sshpass -p %s ssh h"},
	"f.hocon": {"db.password = \"%s\"", "db { password: \"%s\" }"},
	"g.js": {"const password = '%s'", "module.exports = { db: { user: 'u', password: '%s' } }",
		"client.setPassword(\"%s\")", "process.env.API_TOKEN = '%s'"},
	"h.py": {"DB_PASSWORD = '%s'", "conn = connect(host='h', password='%s')",
		"cfg = {\"api_key\": \"%s\"}", "password: str = '%s'"},
	"i.tf":     {"resource \"x\" \"y\" {\n  master_password = \"%s\"\n}", "password = \"%s\""},
	"j.groovy": {"dataSource { password = '%s' }", "String dbPassword = \"%s\"", "password '%s'"},
	"k.sql":    {"CREATE USER u IDENTIFIED BY '%s';", "ALTER ROLE u WITH PASSWORD '%s';"},
	"l.php": {"define('DB_PASSWORD', '%s');", "$config['password'] = '%s';",
		"'password' => '%s',"},
	"m.java": {"ds.setPassword(\"%s\");", "props.put(\"db.password\", \"%s\");",
		"private static final String API_KEY = \"%s\";"},
	".npmrc": {"//registry.npmjs.org/:_authToken=%s"},
	".netrc": {"machine h login u password %s"},
	"n.xml": {"<bean><property name=\"password\" value=\"%s\"/></bean>",
		"<Connector keystorePass=\"%s\"/>"},
	"o.env": {"SECRET_KEY_BASE=%s", "DATABASE_URL=postgres://u:%s@db/x"},
}

// placeholders are common texts in the place of a missing value.
var placeholders = []string{"your-app-key", "<your name>", "__REPLACE__", "PLEASE_SET", "TBD",
	"replace_me_please", "insert-key-here", "CHANGE_ME_NOW", "$TODO",
	"changeme", "ChangeMe123!", "change-me", "CHANGE_THIS", "changeit", "REPLACE_WITH_YOUR_KEY",
	"replace-this-value", "<password>", "<YOUR_API_KEY>", "<insert host>", "<db-password>",
	"[your token]", "{your-key}", "your_password", "YOUR_SECRET_HERE", "yourpassword",
	"https://your-domain.com/", "your.db.host", "TODO", "TODO: set me", "FIXME", "todo", "TBA",
	"to be defined", "to-be-determined", "TO_BE_SET", "set-me", "SET_ME", "please-change",
	"please fill in", "fill_me_in", "FILL_IN", "enter-your-token", "ENTER_VALUE_HERE",
	"put-token-here",
	"add your key here", "xxx", "xxxxxxxx", "XXXX-XXXX", "???", "dummy", "placeholder",
	"PLACEHOLDER_TOKEN", "@db.password@", "@@DB_HOST@@", "__DB_PASSWORD__", "##HOST##", "%%TOKEN%%",
	"update-me", "configure-me", "provide-your-key", "specify_value", "secret-here",
	"paste-your-key-here", "my-secret-key", "not-set", "REPLACEME", "your-key-goes-here"}

// innocent are values that look like secrets or placeholders, under names that say nothing.
var innocent = []string{"{h40}", "{h64}", "sha256:{h64}", "{h8}-{h4}-{h4}-{h4}-{h12}",
	"sha512-{a86}==", "{n12}", "v1.2.{n2}", "2026-11-{n2}T12:00:00Z", "ghp_short",
	"AKIAIOSFODNN7EXAMPLE",
	"sk-learn-{n2}", "key-{n3}", "api-gateway-{n2}", "sdk-version-{n1}", "live_reload",
	"pat.example.com", "glpat-", "xoxb-token", "hvs.example", "SG.value", "todolist",
	"todo-service", "setup",
	"set-cookie", "addresses", "update-interval", "changelog", "changed", "yours truly", "here",
	"there", "insert into t values (1)", "replace", "/opt/app/conf", "com.example.shop.Orders{n2}",
	"https://api.example.com/v1/tokens", "${DB_PASSWORD}", "{{ password }}", "$DB_PASSWORD",
	"%(asctime)s", "#ff{h4}", "<%= x %>", "a.b.c.{a12}", "text/html; charset=utf-8",
	"arn:aws:iam::{n12}:role/shop", "user@example.com", "10.{n2}.{n2}.{n2}", "EAAA", "SKU-{n6}",
	"dapi", "eyJ", "data:image/png;base64,iVBORw0KGgo", "*.example.com", "0 0 * * *", "my-service",
	"some-topic",
	"not-found", "please", "enter", "provider", "definition", "specification", "address-book",
	"configuration", "supplier", "placeholders", "adjustment"}

// TestPlanted plants the entries of the tables above into files of all kinds, and compares the
// shares that are found with the README's.
func TestPlanted(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(13, 1))
	has := func(name, text, rule string) bool {
		return strings.Contains(found(t, "", map[string]string{"envs/production/etc/" +
			name: text}), ": "+rule+": ")
	}
	count := func(what string, all, missed []string, share float64) {
		got := float64(len(all)-len(missed)) / float64(len(all))
		assert.GreaterOrEqual(t, got, share, "%s: %d of %d: missed %q", what, len(all)-len(missed),
			len(all), missed)
		t.Logf("%s: %d of %d", what, len(all)-len(missed), len(all))
	}
	var all, missed []string
	for name, carrier := range carriers {
		for _, pattern := range issued {
			token := random(r, pattern)
			if all = append(all, token); !has(name, fmt.Sprintf(carrier, token), RuleSecret) {
				missed = append(missed, name+" "+token)
			}
		}
	}
	count("tokens", all, missed, 0.99)

	all, missed = nil, nil
	for name, texts := range passwords {
		for _, text := range texts {
			for _, pattern := range []string{"{a16}", "hunter2{n3}", "Tr0ub4dor{l4}"} {
				text := fmt.Sprintf(text, random(r, pattern))
				if all = append(all, text); !has(name, text, RuleSecret) {
					missed = append(missed, name+" "+text)
				}
			}
		}
	}
	count("passwords", all, missed, 0.99)

	all, missed = nil, nil
	for name, carrier := range carriers {
		if !tree(Format(name)) && Format(name) != "conf" {
			continue
		}
		for _, value := range placeholders {
			text := fmt.Sprintf(carrier, value)
			if Format(name) == "xml" {
				text = fmt.Sprintf(carrier, strings.NewReplacer("<", "&lt;", ">",
					"&gt;").Replace(value))
			}
			if all = append(all, text); !has(name, text, RulePlaceholder) {
				missed = append(missed, name+" "+value)
			}
		}
	}
	count("placeholders", all, missed, 0.995)

	all, missed = nil, nil // here missed are those that are blamed
	for name, carrier := range carriers {
		for _, pattern := range innocent {
			value := random(r, pattern)
			text := fmt.Sprintf(carrier, value)
			if Format(name) == "xml" {
				text = fmt.Sprintf(carrier, strings.NewReplacer("<", "&lt;", ">",
					"&gt;").Replace(value))
			}
			if all = append(all, text); has(name, text, RuleSecret) ||
				has(name, text, RulePlaceholder) {
				missed = append(missed, name+" "+value)
			}
		}
	}
	count("look-alikes left alone", all, missed, 1)
}

// Key stores, and stores of certificates only.
func TestKeyStores(t *testing.T) {
	t.Parallel()
	jks := func(tag byte) []byte {
		return append([]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00"),
			append([]byte{tag}, make([]byte, 64)...)...)
	}
	require.NotEmpty(t, tokensIn(jks(1)))
	require.Empty(t, tokensIn(jks(2)))
	pkcs := []byte(
		"\x30\x82\x09\xd9\x02\x01\x03\x30\x82\x09\x9f\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01")
	require.NotEmpty(t, tokensIn(append(pkcs, shroudedBag...)))
	require.Empty(t, tokensIn(pkcs))
	require.Equal(t, []token{{"a password hash", 2}},
		tokensIn([]byte("# users\nadmin:$apr1$abcdefgh$0123456789abcdefghijkl\n")))
	require.NotEmpty(t,
		tokensIn([]byte(`{"key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA"}`)))
	require.Empty(t,
		tokensIn([]byte(`if strings.HasPrefix(s, "-----BEGIN RSA PRIVATE KEY-----") {`)))
}
