package check

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// where is a text in a file of that name.
type where struct{ name, text string }

// Passwords in commands, connection strings and files that no table of the others has.
func TestSecretsInOtherPlaces(t *testing.T) {
	t.Parallel()
	for _, w := range []where{
		{"a.properties", "url=jdbc:oracle:thin:scott/T1ger-x@//db.example.com:1521/ORCL"},
		{"a.properties", "play.http.secret.key=QCY?tAnfk?aZ?iwrNwnxIlR6CTf"},
		{"a.yaml", "cookie:\n  encryption:\n    key: q8Rk2-77xLmzP0aa"},
		{"Web.config", `<configuration><connectionStrings><add name="D" connectionString="Data Source=x;User Id=u;Password=gH-77ab"/></connectionStrings></configuration>`},
		{"db.py", `engine = create_engine("postgresql+psycopg2://app:Hunter-22@db/shop")`},
		{"a.php", "<?php return ['db' => ['password' => 'Foo9bar']];"},
		{".git-credentials", "https://app:Foo9bar@git.example.com"},
		{"credentials", "[default]\naws_secret_access_key=wJalrXUtnFEMIzK7MDENGzbPxRfi"},
		{"terraform.tfstate", `{"attributes":{"master_password":"S3cret-Zz"}}`},
		{"login.exp", `set password "Foo9bar"`},
		{"squid.conf", "cache_peer p parent 3128 0 login=app:Foo9bar"},
		{"a.sh", "echo 'Foo9-bar' | docker login -u app --password-stdin r.example.com"},
		{"a.sh", `printf %s "Foo9-bar" | podman login -u a --password-stdin r.example.com`},
		{"a.sh", "kubectl create secret generic db --from-literal=anything=Foo9bar"},
		{"a.sh", "aws configure set aws_secret_access_key wJalrXUtnFEMI/K7MDENG"},
		{"a.sh", "npm config set //r.example.com/:_authToken 6f2b8c1d4e5a7b9c0d1e"},
		{"a.sh", "mc alias set s https://s3.example.com minio Foo9bar-minio"},
		{"a.sh", "az login --service-principal -u app -p Foo9bar.xyz --tenant t"},
		{"a.sh", "zip -P Foo9bar x.zip a"},
		{"a.sh", "7z x -pFoo9bar x.7z"},
		{"a.sh", "openssl enc -aes-256-cbc -k Foo9bar -in a"},
		{"a.sh", "smbclient //fs/x -U 'app%Foo9bar'"},
		{"a.sh", "lftp -u app,Foo9bar sftp://h"},
		{"a.sh", "rabbitmqctl add_user app Foo9bar"},
		{"a.sh", `echo "app:Foo9bar" | chpasswd`},
		{"a.sh", "sqlplus -s scott/T1ger@ORCL @x.sql"},
		{"snmpd.conf", `createUser admin SHA "Foo9-bar" AES "Foo9-baz"`},
		{"snmpd.conf", "createUser -e 0x80001f8880 mon MD5 Foo9barbaz DES"},
		{"snmpd.conf", "rocommunity Foo9bar 10.0.0.0/8"},
		{"snmpd.conf", "com2sec readonly default Foo9bar"},
		{"snmpd.conf", "trap2sink 10.0.0.1 Foo9bar"},
		{"snmpd.conf", "trapsess -v 3 -u mon -a MD5 -A Foo9barbaz 10.0.0.2"},
		{"a.sh", "snmpwalk -v2c -c Foo9bar 10.0.0.1"},
		{"a.sh", "snmpget -v3 -u mon -l authPriv -A Foo9barbaz -X Foo9barqux 10.0.0.1 sysName.0"},
		{"login.exp", "expect \"*assword:\"\nsend \"Foo9bar\\r\""},
		{"login.exp", "expect -re {[Pp]assword: } \nsend -- \"Foo9bar\\n\""},
		{"login.exp", `expect "assphrase" ; send "Foo9bar\r"`},
		{"login.exp", "expect {\n \"yes/no\" { send \"yes\\r\" }\n \"assword:\" { send \"Foo9bar\\r\" }\n}"},
		{"a.sh", `expect -c 'spawn ssh h; expect "password:"; send "Foo9bar\r"; interact'`},
		{"a.sh", "expect <<END\nexpect \"assword:\"\nsend \"Foo9bar\\r\"\nEND"},
		{"chap-secrets", "# client server secret\nalice * \"Foo9bar\" *"},
		{"slapd.conf", "rootpw Foo9bar"},
		{"proftpd.conf", "SQLConnectInfo shop@db.example.com app Foo9bar"},
		{"main.cf", "smtp_sasl_password_maps = static:app:Foo9bar"},
		{"fetchmailrc", "poll mail.example.com protocol IMAP user joe there with password Foo9bar"},
		{"rndc.key", `key "rndc-key" { algorithm hmac-sha256; secret "c2VjcmV0c2VjcmV0MTIzNDU2Nzg5MA=="; };`},
		{"nginx.conf", `server { proxy_set_header Authorization "Basic YWRtaW46aHVudGVyMjEyMw=="; }`},
		{"nginx.conf", "server {\n  if ($x) { return 403;\n  } location / { set $api_key Foo9bar; } }"},
		{"nginx.conf", `location /a { if ($x) { return 403; } proxy_set_header X-Api-Key Foo9bar; }`},
		{"nginx.conf", "location /a {\n  fastcgi_param DB_PASSWORD Foo9bar;\n}"},
		{"nginx.conf", `location = /a { uwsgi_param "API_TOKEN" 'Foo9bar'; }`},
		{"nginx.conf", `server { set $api_key "Hn73kQz0vLm2aaQ4"; }`},
		{"httpd.conf", "SetEnv DB_PASSWORD Foo9bar"},
		{"httpd.conf", `RequestHeader set X-Api-Key "Foo9bar"`},
		{"httpd.conf", `RequestHeader set Authorization "Basic YWRtaW46aHVudGVyMjEyMw=="`},
		{"router.cfg", "username admin privilege 15 password 0 Foo9bar"},
		{"router.cfg", "snmp-server community Foo9bar RO"},
		{"a.ps1", `$p = ConvertTo-SecureString "Foo9bar" -AsPlainText -Force`},
		{"a.cmd", "net user app Foo9bar /add"},
		{"Jenkinsfile", `sh "mvn deploy -Dpassword=Foo9bar"`},
		{"a.py", `os.system("mysql -uroot -pFoo9bar shop")`},
		{"a.sh", "echo Foo9bar | kinit app"},
		{"a.sh", "echo 'Foo9bar' | sudo -S systemctl restart app"},
		{"a.sh", "ipmitool -I lanplus -H h -U admin -P Foo9bar power on"},
		{"a.sh", "sqlcmd -S db -U sa -P 'Foo9bar' -Q 'select 1'"},
		{"a.sh", "mosquitto_pub -h mq -u app -P Foo9bar -t x -m y"},
		{"a.sh", "plink -ssh app@h -pw Foo9bar ls"},
		{"a.sh", "xfreerdp /v:h /u:app /p:Foo9bar"},
		{"a.sh", "wpa_passphrase office Foo9barbaz"},
		{"a.properties", "odbc=Driver={ODBC Driver 17 for SQL Server};Server=db;UID=sa;PWD={Foo9bar}"},
		{"compose.yml", `healthcheck: {test: ["CMD", "mysqladmin", "-uroot", "-pFoo9bar", "ping"]}`},
		{"compose.yml", "command: [redis-cli, -a, Foo9bar, ping]"},
		{"a.json", `{"args": ["mosquitto_pub", "-h", "mq", "-u", "app", "-P", "Foo9bar"]}`},
		{"compose.yml", `labels: ["auth.basicauth.users=admin:$$apr1$$H6uskkkW$$IgXLP6ewTrSuBkTrqE8wj/"]`},
	} {
		got := found(t, "", map[string]string{"envs/test/etc/" + w.name: w.text})
		assert.Contains(t, got, ": secret: ", w.text)
	}
	for _, w := range []where{
		{"a.sh", `echo "$PW" | docker login -u app --password-stdin r.example.com`},
		{"a.sh", `printf "%s" "$T" | helm registry login --password-stdin r`},
		{"a.sh", "kubectl create configmap c --from-literal=mode=fast"},
		{"a.sh", `kubectl create secret generic db --from-literal=password="$PW"`},
		{"a.sh", "aws configure set region eu-central-1"},
		{"a.sh", `unzip -P "$ZIPPW" x.zip`},
		{"snmpd.conf", "rocommunity public default -V systemonly\ncom2sec readonly default public\n" +
			"trapsink localhost.example.com public\nrouser authOnlyUser\ncreateUser mon MD5 <password> DES"},
		{"a.sh", "snmpwalk -v2c -c public 10.0.0.1\nsnmpwalk -c \"$COMMUNITY\" h"},
		{"login.exp", "expect \"assword:\"\nsend \"$password\\r\"\nexpect \"$ \"\nsend \"ls -la\\r\""},
		{"login.exp", "expect \"name:\"\nsend \"bob\\r\"\nexpect \"assword:\"\nsend -- $env(PW)"},
		{"pap-secrets", "# * password\n*\tgw\t\"\"\t*\nguest gw \"*\" -"},
		{"nginx.conf", `server { listen 80; location / { proxy_set_header Authorization $http_authorization; } }`},
		{"nginx.conf", "set $api_key $http_x_api_key;\nset $password \"$arg_pw\";"},
		{"nginx.conf", `map $http_upgrade $connection_upgrade { default upgrade; "" close; }`},
		{"nginx.conf", `location ~ "^/a{2,3};x" { fastcgi_param PASSWORD $pw; return 204; }`},
		{"nginx.conf", "fastcgi_param HTTP_PROXY \"\";\nfastcgi_param SERVER_PASSWORD_FILE /run/secrets/p;"},
		{"httpd.conf", "SetEnv DB_PASSWORD ${DB_PASSWORD}\nRequestHeader unset Authorization\n" +
			"RequestHeader set X-Forwarded-Proto \"https\""},
		{"nginx.conf", "server web1 weight=5;\nuser www-data;\nenable on;"},
		{"a.ps1", "$p = ConvertTo-SecureString $env:PW -AsPlainText -Force"},
		{"a.cmd", "net user app /delete"},
		{"a.py", `run("mysql -uroot -p$MYSQL_PWD shop")`},
		{"a.sh", "echo yes | sudo -S true; echo \"$PW\" | kinit app"},
		{"a.sh", "plink -P 2222 app@h"},
		{"a.sh", `echo "app:$PW" | chpasswd`},
		{"a.sh", "ssh -p 2222 a@b"},
		{"a.sh", `curl -H "Authorization: Bearer dummy_token" http://h`},
		{"a.yaml", "secret:\n  key: application-token\napi:\n  key: X-Api-Key-Header"},
		{"a.yaml", "secretKeyRef:\n  name: db\n  key: password"},
		{"a.ts", `const doc = "http://username:password@host"`},
		{"a.ts", `const form = "https?://[^:]+:[^@]+@"`},
		{"a.ts", "fetch(`https://${user}:${pw}@h/x`)"},
		{"site.conf", "<VirtualHost *:80>\n  ProxyPass / http://app:8080/\n</VirtualHost>"},
		{"nginx.properties", "fastcgi_pass=127.0.0.1:9000\nuwsgi_pass=app:3031\ngrpc_pass=[::1]:50051"},
		{"a.properties", "odbc=Driver={ODBC Driver 17};UID=sa;PWD={password}"},
		{"a.properties", "odbc=Driver={ODBC Driver 17};UID=sa;PWD={0}"},
		{"compose.yml", `test: ["CMD", "mysqladmin", "-uroot", "-p$MYSQL_PASSWORD", "ping"]`},
		{"compose.yml", "command: [mysql, -P, \"3306\", -h, db]\nports: [\"8080:80\"]"},
		{"NLog.config", `<nlog><targets><target name="f" type="File"/></targets></nlog>`},
	} {
		got := found(t, "", map[string]string{"envs/test/etc/" + w.name: w.text})
		assert.Empty(t, got, w.text)
	}
}

func TestPlaceholdersOfOtherWords(t *testing.T) {
	t.Parallel()
	placeholder := func(line string) bool {
		return strings.Contains(found(t, "", map[string]string{"envs/production/etc/a.properties": line}),
			": placeholder: ")
	}
	for _, value := range []string{"dummy-value", "sample_password", "example-key", "fake-token",
		"not-set-yet", "INSERT_URL", "ENTER_PASSWORD", "REPLACE_HOST"} {
		assert.True(t, placeholder("x.setting="+value), value)
	}
	for _, line := range []string{"route=change-password", "permission=CHANGE_PASSWORD",
		"event=INSERT", "sample.rate=5", "x=sample-events", "x=dummy-load", "x=example.com",
		"server.http_addr=127.0.0.1", "consul.host=localhost",
		"CLOUD_SQL_PROXY=127.0.0.1:5432", "pgbouncer.host=127.0.0.1"} {
		assert.False(t, placeholder(line), line)
	}
}

func TestLeaksOfOtherForms(t *testing.T) {
	t.Parallel()
	leak := func(test, production string) bool {
		return strings.Contains(found(t, "", map[string]string{
			"envs/test/etc/a.properties":       test,
			"envs/production/etc/a.properties": production}), ": leak: ")
	}
	for _, c := range []struct{ test, production string }{
		{"assets=s3://acme-prod-assets", "assets=s3://acme-assets"},
		{"kafka.brokers=kafka-prod-1:9092,kafka-prod-2:9092", "kafka.brokers=k1:9092"},
		{"bucket=arn:aws:s3:::acme-prod-assets", "bucket=arn:aws:s3:::acme-assets"},
		{"queue.url=https://sqs.example.com/1234/orders-production", "queue.url=x"},
		{"search=http://[2001:db8:5::10]:9200/", "search=http://[2001:db8:5::10]:9200/"},
		{"PGHOST=pg.acme.internal", "PGHOST=pg.acme.internal"},
	} {
		assert.True(t, leak(c.test, c.production), c.test)
	}
	for _, both := range []string{"schema=test_results_view", "bucket=products",
		"host=prodigy.example.com", "queue=reproduction-jobs", "listen=[::]:80",
		"time=12:30:45", "mac=aa:bb:cc:dd:ee:ff", "logger.name=com.acme.production.Line",
		"doc=https://wiki.example.com/prod/setup"} {
		assert.False(t, leak(both, both), both)
	}
}
