package check

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Values under the name of a secret that are none, beside neighbours that are.
func TestOtherValuesUnderNamesOfSecrets(t *testing.T) {
	t.Parallel()
	object := "kind: Secret\nstringData:\n  "
	encoded := "kind: Secret\ndata:\n  "
	base := base64.StdEncoding.EncodeToString
	const helm = "{{- if .a }}\nstringData:\n  .htpasswd: |-\n"
	const held = "-----BEGIN OPENSSH PRIVATE KEY-----\n    "
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"a.yaml", object + "type: helm\n  username: shop\n  url: https://example.com/a\n", false},
		{"a.yaml", object + "insecure: \"true\"\n  forceAuth: \"no\"\n  githubAppID: 17\n", false},
		{"a.yaml", object + "key: |\n    " + held + "...\n    -----END OPENSSH PRIVATE KEY-----\n",
			false},
		{"a.yaml", object + "url: https://shop:s3cret9@db.example.net/a\n", true},
		{"a.yaml", object + "anything: hunter2hunter2\n", true},
		{"a.yaml", encoded + "username: " + base([]byte("shop")) + "\n", false},
		{"a.yaml", encoded + "url: " + base([]byte("postgres://shop:s3cret9@db.example.net/a")) +
			"\n", true},
		{"a.yaml", encoded + "anything: " + base([]byte("hunter2")) + "\n", true},
		{"a.yaml", "ca_secret: shop-tls\nadminToken: {secret: shop-admin-token}\n", false},
		{"a.yaml", "ca_secret: h9K2-Tls\n", true},
		{"a.properties", "ca_secret=shop-tls", true},
		{"a.yaml", "redis: {authKey: auth, existingSecret: redis}\n", false},
		{"a.yaml", "redis: {authKey: author}\n", true},
		{"a.sh", "token=$2\nTOKEN=\"$1\"\npassword=$@\nflags_to_pass=()\n", false},
		{"a.sh", "canUseCredentials=0\nuse_password=1\n", false},
		{"a.sh", "credentials=0x7hunter\ncan=1\npassword=1\n", true},
		{"a.ini", "[a]\napikey = %(provider_apikey)s\n", false},
		{"a.ini", "[a]\napikey = %provider9apikey\n", true},
		{"a.properties", "KAFKA_SSL_KEYSTORE_CREDENTIALS=broker_keystore_creds", false},
		{"a.properties", "KAFKA_CREDENTIALS=broker_keystore_creds", true},
		{".env", "NEXT_PUBLIC_SEARCH_API_KEY=fbd5dc1f0078d41509fcc560386fd534\n", false},
		{".env", "STRIPE_PUBLISHABLE_KEY=fbd5dc1f0078d41509fcc560386fd534\n", false},
		{".env", "NEXT_PUBLIC_PASSWORD=fbd5dc1f0078d41509fcc560386fd534\n", true},
		{".env", "SEARCH_API_KEY=fbd5dc1f0078d41509fcc560386fd534\n", true},
		{"a.json", `{"key": "Q-aac7d4c8-664f-43c0-8064-9f737ce3e78e-0"}`, false},
		{"a.json", `{"key": "aac7d4c8-664f-43c0-8064-9f737ce3e78e"}`, true},
		{"a.json", `{"secret_key": "11111111-1111-1111-1111-111111111111"}`, false},
		{"a.json", `{"secret_key": "11111111-1111-1111-1111-111111111112"}`, true},
		{"a.yaml", "with:\n  common_secrets: |\n    SIGNING_KEY=shop-gpg:private-key\n" +
			"    PASSPHRASE=shop-gpg:passphrase\n", false},
		{"a.yaml", "secrets: |\n  DB_PASSWORD=db-password:latest\n\n  API_KEY=api-key:12\n", false},
		{"a.yaml", "secret-envs: |\n  GIT_AUTH_TOKEN=SHOP_TOKEN\n", false},
		{"a.yaml", "secrets: |\n  SIGNING_KEY=shop:private-key\n  PASSPHRASE=hunter2\n", true},
		{"a.yaml", "secrets: |\n  DB_PASSWORD=admin:1234\n", true},
		{"a.yaml", "secret-envs: |\n  GIT_AUTH_TOKEN=hunter2Hunter\n", true},
		{"a.yaml", "env: |\n  DB_PASSWORD=shop-db:password\n", true},
		{"a.yaml", helm + "    {{- tpl .htpasswd $ | nindent 4 }}\n{{- end }}\n", false},
		{"a.yaml", helm + "\n{{ tpl .htpasswd $ | indent 4 }}\n{{- end }}\n", false},
		{"a.yaml", helm + "{{- end }}\nkind: Secret\n", false},
		{"a.yaml", "{{- if .a }}\nstringData:\n  .htpasswd: |\n  shop: 1\n{{- end }}\n", false},
		{"a.yaml", helm + "    hunter2hunter2\n{{- end }}\n", true},
		{"a.yaml", helm + "    {{- if .b }}\n    hunter2hunter2\n{{- end }}\n{{- end }}\n", true},
	} {
		got := found(t, "", map[string]string{"envs/production/" + c.name: c.text})
		assert.Equal(t, c.want, strings.Contains(got, ": secret: "), "%s\n%s", c.text, got)
	}
	for _, value := range []string{"REDACTED", "[REDACTED]", "SCWXXXXXXXXXXXXXXXXX"} {
		got := found(t, "", map[string]string{"envs/production/a.properties": "api.token=" + value})
		assert.Contains(t, got, "api.token: the value is a placeholder", value)
		assert.NotContains(t, got, ": secret: ", value)
	}
}
