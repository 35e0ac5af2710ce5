package check

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Settings that the rule takes for secrets, beside settings that only look like one.
func TestSecretsAndWhatLooksLikeThem(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ format, secrets, others string }{
		{"properties", // by the name
			"password=12345\ndb.password=x\nDB_PASSWORD=x\ndbPassword=x\nuser-passwd=x\nmysql.pwd=x\nkeystorePass=x\napiKey=x\nAPI_KEY=x\nAWS_SECRET_ACCESS_KEY=x\n" +
				"client-secret=x\nclientSecret=x\ntoken=x\ntoken=4096\naccess_token=x\nGITHUB_TOKEN=x\nmax_token=x\nsuperToken=1\nclimaxToken=1\nssl.key.passphrase=x\n" +
				"minted-token=1\nauth.credentials=x\nprivateKey=x\nsecret=shop-tls\nsecret.name.password=x",
			"existingSecret=shop-db\nauth.existingSecret=shop-db\nEXISTING_SECRET=shop-db\nexistingSecretPasswordKey=password\nimagePullSecret=registry\nenvFromSecret=shop\n" +
				"externalSecret=shop\nsecretName=shop-db\nsecret-name=shop-db\nsecretKeyRef=shop-db\nsecretRef=shop-db\ntokenFile=token.txt\npasswordFile=p.txt\n" +
				"POSTGRES_PASSWORD_FILE=db.txt\nsecret-path=db.txt\nsecretsDir=keys\nmax_token=4096\nmaxToken=4096\nmax_tokens=4096\nLLM_MAX_TOKEN=4096\nminimum-password=8\n" +
				"costPerToken=0.5\ntotalToken=7\ntokenLength=32\ntoken.ttl=3600\ntoken-expiry=1h\ntokenCount=5\ntokenTimeout=30s\npassword.limit=3\n" +
				"tokenizer=bpe\ntoken_type=Bearer\npasswordPolicy=strict\npassword.encoder=bcrypt\ncsrfToken=X-CSRF\nXSRF-TOKEN=_xsrf\npublicToken=x\nkeyboard=us"},
		{"properties", // by the value
			"token_url=https://u:p@h.example.com/\nurl=postgres://app:p@db?sslmode=off\npassword=a<b>\npassword=<a>b\npassword=$ecret\npassword=@home\nsecret=50%\n" +
				"password=[\npassword=yesno\nsecret={bcrypt}$2a$10$x\nsecret=enc",
			"token_url=https://h.example.com/oauth/token\ntokenEndpoint=https://h.example.com?mail=a:b@example.com\napiToken=https://h.example.com/token\n" +
				"jdbc.secret=jdbc:mysql://db.example.com/app\nurl=https://user@h.example.com/\nurl=https://h.example.com#a:b@c\npassword=yes\nrequirePassword=No\ntoken=none\nusePassword=true\npassword=\n" +
				"password=${DB_PASSWORD}\npassword=${file:/run/secrets/db}\npassword=$DB_PASSWORD\npassword=$(cat db)\npassword={{ .Values.password }}\npassword=@db.password@\n" +
				"password=%DB_PASSWORD%\npassword=<password>\npassword=changeme\neos_token=</s>\npad_token=<|pad|>\ncls_token=[CLS]\npassword=/run/secrets/db\n" +
				"password=file:/run/secrets/db\ndbSecret=arn:aws:secretsmanager:eu-west-1:1:secret:db\npassword=vault:kv/db#password\nkey.password=classpath:key.txt\n" +
				"password=ENC(nPkQ)\npassword=ENC[AES256_GCM,data:x]\npassword={cipher}68ff\n"},
		{"yaml", "password: 12345\n---\nargs: {token: x}\n---\nenv: [{name: DB_PASSWORD, value: " +
			"12345}]\n---\nargs: [{name: clientSecret, value: x}]",
			"env: [{name: existingSecret, value: x}, {name: MAX_TOKEN, value: 4096}, {name: P, " +
				"valueFrom: {secretKeyRef: {name: db, key: password}}}]\n---\n" +
				"passwords: yes\npassword: yes\nsecret: {secretName: shop-tls}\ntokenizer: " +
				"{max_token: 4096, eos_token: </s>}"},
		{"xml", `<c><Parameter name="db.password" value="1"/><password>1</password><e tokenSecret="x"/></c>`,
			`<c><Parameter name="existingSecret" value="x"/><Parameter name="maxToken" value="4096"/><maxToken>4096</maxToken><e secretName="x"/><password>{{p}}</password></c>`},
	} {
		for text, want := range map[string]bool{c.secrets: true, c.others: false} {
			apart := []string{text}
			if c.format == "properties" {
				apart = strings.Split(text, "\n") // a key may be there twice
			} else if c.format == "yaml" {
				apart = strings.Split(text, "\n---\n")
			}
			for _, text := range apart {
				settings, err := Parse(c.format, []byte(text))
				require.NoError(t, err, text)
				f := &File{Settings: settings, format: c.format}
				got := 0
				for i := range settings {
					if isSecret(&settings[i], c.format, f.names(), false) {
						got++
					}
				}
				switch {
				case !want:
					require.Zero(t, got, text)
				case c.format == "xml":
					require.Equal(t, 3, got, text)
				default:
					require.Equal(t, 1, got, text)
				}
			}
		}
	}
}

func TestSecretsByTheirSignature(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a AKIAIOSFODNN7ABCDEFG b": "an AWS access key",
		"a AKIAIOSFODNN7EXAMPLE b": "", // of Amazon's documentation
		"AKIAIOSFODNN7EXAMPLE ghp_" + "aB3xZ9qLw7aB3xZ9qLw7aB3xZ9qLw7aB3xZ9": "a GitHub token",
		"XAKIAIOSFODNN7ABCDEFG":              "",
		"ghp_short":                          "",
		"\n-----BEGIN EC PRIVATE KEY-----\n": "a private key",
	} {
		got := ""
		for _, found := range tokensIn([]byte(text)) {
			got = found.what
		}
		require.Equal(t, want, got, text)
	}
}
