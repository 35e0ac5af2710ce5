package transform_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluice-deploy/sluice/nginxsync/transform"
)

// A value that steers the tree stays even under the name of a secret; a value that is a secret
// goes.
func TestWhatIsASecret(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string // of a location, or of the http context if it begins with "map"
		gone string // "" if the line stays as it is
	}{
		{`set $access_token_pool "web_token_pool";`, ""},
		{`set $auth_token web_token_pool;`, ""},
		{`set $auth_token web_token_other;`, "web_token_other"},
		{`rewrite ^/reset$ /p?token_type=recovery_link;`, ""},
		{`rewrite ^/reset$ /p?token=recovery1link2;`, "recovery1link2"},
		{`return 302 /login?next_token_page=account_tokens;`, ""},
		{`return 302 /login?api_key=8f3a66c0aa12;`, "8f3a66c0aa12"},
		{`if ($http_x_token_kind = "long-lived-kind") { return 403; }`, ""},
		{`if ($http_x_token = "long-lived-token") { return 403; }`, "long-lived-token"},
		{`add_header X-Api-Key-Docs "https://docs.example/keys";`, ""},
		{`add_header X-Api-Key-Hint 8f3a66c0aa12d4e5;`, "8f3a66c0aa12d4e5"},
		{`proxy_set_header X-Token-Issuer "https://sso.example/realms/a";`, ""},
		{`proxy_set_header X-Token "https://user:geheim@sso.example";`, "geheim"},
		{`proxy_set_header X-Secret-Path /internal/secrets;`, ""},
		{`proxy_set_header X-Auth-Token-2 geheimnis;`, "geheimnis"},
		{`jwt_key geheimnis1234;`, "geheimnis1234"},
		{`auth_jwt_key /etc/keys/jwt.pem;`, ""},
		{`encrypted_session_key 0123456789abcdef0123456789abcdef;`, "0123456789abcdef"},
		{`map $host $token_upstream { default web; a.x web_token_pool; b.x hash_of_token_pool; }`,
			""},
		{`map $host $partner_token { default geheimnis1; a.x $arg_t; }`, "geheimnis1"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			http, location := "", c.line
			if c.line[:3] == "map" {
				http, location = c.line, "proxy_pass http://$token_upstream;"
				if c.gone != "" {
					location = ""
				}
			}
			text := "http {\nupstream web { server a; } upstream web_token_pool { server a; " +
				"}\nupstream hash_of_token_pool { server a; }\n" + http +
				"\nserver { listen 80;\nlocation / {\n" + location + "\n}\n}\n}\n"
			result, err := transform.Transform(parse(t, oneFile(text)),
				transform.Rules{Listen: map[int]int{80: 8080}, Snippets: short})
			require.NoError(t, err)
			if c.gone == "" {
				require.Contains(t, result.Files["nginx.conf"], c.line)
			} else {
				require.NotContains(t, result.Files["nginx.conf"], c.gone)
				require.Contains(t, result.Files["nginx.conf"], "stripped")
			}
		})
	}
}
