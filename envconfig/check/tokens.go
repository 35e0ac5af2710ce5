package check

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"strings"
)

// token is a secret that is recognized by its form, independently of its context.
type token struct {
	what string
	line int
}

// maxTokens bounds the tokens of one file.
const maxTokens = 200

// form is the form of one kind of tokens: a fixed beginning at the beginning of a word, and an
// expression for the rest of the word. Forms are as the issuers document them, or hand tokens out.
type form struct {
	what, begins string
	follows      *regexp.Regexp
}

// forms by their first two bytes.
var forms = func() map[[2]byte][]form {
	m := map[[2]byte][]form{}
	for what, list := range map[string][]string{
		"a 1Password token": {`ops_eyJ [A-Za-z0-9+/]{200,}={0,3}`,
			`A3- [A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}`},
		"an Adobe secret":      {`p8e- [A-Za-z0-9]{32}`},
		"an Airtable token":    {`pat [A-Za-z0-9]{14}\.[a-f0-9]{64}`},
		"an Alibaba key":       {`LTAI [A-Za-z0-9]{20}`},
		"an Anthropic key":     {`sk-ant- (?:api03|admin01)-[\w-]{80,}`},
		"an Artifactory token": {`AKCp [A-Za-z0-9]{69}`, `cmVmd [A-Za-z0-9]{59}`},
		"an Atlassian token": {`ATATT3 [\w=-]{60,}`, `ATCTT3 [\w=-]{60,}`,
			`ATBB [A-Za-z0-9]{24,}`},
		"an Authress key": {`sc_ [A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.[\w+/=-]{30,}`, `ext_ [A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.[\w+/=-]{30,}`,
			`scauth_ [A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.[\w+/=-]{30,}`, `authress_ [A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.[\w+/=-]{30,}`},
		"an AWS access key": {`AKIA [A-Z0-9]{16}`, `ASIA [A-Z0-9]{16}`, `ABIA [A-Z0-9]{16}`,
			`ACCA [A-Z0-9]{16}`, `A3T [A-Z0-9]{17}`},
		"an AWS Bedrock key": {`ABSK [A-Za-z0-9+/]{100,}={0,2}`,
			`bedrock-api-key-YmVkcm9ja [\w+/=]+`},
		"a Braintree token":        {`access_token$production$ [0-9a-z]{16}\$[0-9a-f]{32}`},
		"a Buildkite token":        {`bkua_ [a-z0-9]{40}`},
		"a CircleCI token":         {`CCIPAT_ [A-Za-z0-9]{20,}_[a-f0-9]{40}`},
		"a ClickHouse Cloud key":   {`4b1d [A-Za-z0-9]{38}`},
		"a Clojars token":          {`CLOJARS_ [a-zA-Z0-9]{60}`},
		"a Cloudflare key":         {`v1.0- [a-f0-9]{24}-[a-f0-9]{146}`},
		"a Contentful token":       {`CFPAT- [\w-]{43}`},
		"a Databricks token":       {`dapi [a-f0-9]{32}(?:-\d)?`},
		"a Defined Networking key": {`dnkey- [A-Za-z0-9=_-]{26}-[A-Za-z0-9=_-]{52}`},
		"a DigitalOcean token": {`doo_v1_ [a-f0-9]{64}`, `dop_v1_ [a-f0-9]{64}`,
			`dor_v1_ [a-f0-9]{64}`},
		"a Discord bot token": {`MT [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`,
			`Mj [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`, `Mz [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`,
			`ND [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`, `NT [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`,
			`Nj [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`, `Nz [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`,
			`OD [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`, `OT [\w-]{21,26}\.[\w-]{6}\.[\w-]{27,38}`},
		"a Discord webhook": {`discord.com/api/webhooks/ \d{17,20}/[\w-]{60,}`,
			`discordapp.com/api/webhooks/ \d{17,20}/[\w-]{60,}`},
		"a Docker Hub token": {`dckr_pat_ [\w-]{20,}`, `dckr_oat_ [\w-]{20,}`},
		"a Django key":       {`django-insecure- [^\s'"]{10,}`},
		"a Doppler token": {`dp.pt. [A-Za-z0-9]{40,44}`, `dp.ct. [A-Za-z0-9]{40,44}`,
			`dp.sa. [A-Za-z0-9]{40,44}`, `dp.scim. [A-Za-z0-9]{40,44}`,
			`dp.audit. [A-Za-z0-9]{40,44}`, `dp.st. (?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}`},
		"a Dropbox token": {`sl. [\w=-]{130,}`},
		"a Duffel token":  {`duffel_test_ [\w=-]{43}`, `duffel_live_ [\w=-]{43}`},
		"a Dynatrace token": {`dt0c01. [A-Z0-9a-z]{24}\.[A-Z0-9a-z]{64}`,
			`dt0s01. [A-Z0-9]{24}\.[A-Z0-9]{64}`},
		"an EasyPost key":  {`EZAK [A-Za-z0-9]{54}`, `EZTK [A-Za-z0-9]{54}`},
		"a Facebook token": {`EAAM [A-Za-z0-9]{80,}`, `EAAC [A-Za-z0-9]{80,}`},
		"a Figma token":    {`figd_ [\w-]{40,}`},
		"a Flutterwave key": {`FLWSECK_TEST- [a-hA-H0-9]{12}`,
			`FLWSECK_TEST- [a-hA-H0-9]{32}-X`, `FLWSECK- [a-hA-H0-9]{32}-X`,
			`FLWPUBK_TEST- [a-hA-H0-9]{32}-X`, `FLWPUBK- [a-hA-H0-9]{32}-X`},
		"a Fly.io token": {`fo1_ [\w-]{43}`, `fm1a_ [A-Za-z0-9+/]{100,}={0,3}`,
			`fm1r_ [A-Za-z0-9+/]{100,}={0,3}`, `fm2_ [A-Za-z0-9+/]{100,}={0,3}`},
		"a Frame.io token": {`fio-u- [A-Za-z0-9_=-]{64}`},
		"a GitHub token": {`ghp_ [A-Za-z0-9]{36,}`, `gho_ [A-Za-z0-9]{36,}`,
			`ghu_ [A-Za-z0-9]{36,}`, `ghs_ [A-Za-z0-9]{36,}`, `ghr_ [A-Za-z0-9]{36,}`,
			`github_pat_ [A-Za-z0-9_]{30,}`},
		"a GitLab token": {`glpat- [\w-]{20,}(?:\.[0-9a-z.]+)?`, `gldt- [\w-]{20}`,
			`glrt- [\w-]{20,}(?:\.[0-9a-z.]+)?`, `glrtr- [\w-]{20,}`, `glcbt- [\w-]{20,}`,
			`glptt- [a-f0-9]{40}`, `glft- [\w-]{20}`, `glimt- [\w-]{25}`, `glagent- [\w-]{50}`,
			`gloas- [\w-]{64}`, `glsoat- [\w-]{20}`, `glffct- [\w-]{20}`, `GR1348941 [\w-]{20}`,
			`_gitlab_session= [0-9a-zA-Z]{32}`},
		"a GoCardless token":   {`live_ [A-Za-z0-9_=-]{40}`},
		"a Google API key":     {`AIza [\w-]{35}`},
		"a Google OAuth token": {`GOCSPX- [\w-]{28}`, `ya29. [\w-]{30,}`},
		"a Grafana token": {`glc_ [A-Za-z0-9+/]{32,}={0,3}`,
			`glsa_ [A-Za-z0-9]{32}_[A-Fa-f0-9]{8}`, `eyJrIjoi [A-Za-z0-9]{60,}={0,3}`},
		"a Groq key": {`gsk_ [A-Za-z0-9]{50,54}`},
		"a Harness token": {`pat. [\w-]{22}\.[0-9a-zA-Z]{24}\.[A-Za-z0-9]{20}`,
			`sat. [\w-]{22}\.[0-9a-zA-Z]{24}\.[A-Za-z0-9]{20}`},
		"a HashiCorp Vault token": {`hvs. [\w-]{24,}`, `hvb. [\w-]{100,}`, `hvr. [\w-]{24,}`},
		"a Heroku key":            {`HRKU- AA[\w-]{50,}`},
		"a Hugging Face token":    {`hf_ [A-Za-z0-9]{34}`, `api_org_ [A-Za-z0-9]{34}`},
		"an Infracost key":        {`ico- [A-Za-z0-9]{32}`},
		"an Intra42 secret":       {`s-s4t2ud- [a-fA-F0-9]{64}`, `s-s4t2af- [a-fA-F0-9]{64}`},
		"a JSON Web Token": {`eyJ [\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{10,}=*`,
			`ZXlK [A-Za-z0-9+/_-]{60,}={0,2}`},
		"a LangSmith key": {`lsv2_pt_ [a-f0-9]{32}_[a-f0-9]{10}`,
			`lsv2_sk_ [a-f0-9]{32}_[a-f0-9]{10}`},
		"a LaunchDarkly key": {`sdk- [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
			`api- [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`},
		"a Linear key":  {`lin_api_ [A-Za-z0-9]{40}`},
		"a Lob key":     {`live_ [a-f0-9]{35}`, `live_pub_ [a-f0-9]{31}`},
		"a Mailgun key": {`key- [a-f0-9]{32}`},
		"a Mapbox secret token": {`sk.eyJ [\w-]{50,}\.[\w-]{20,}`,
			`pk. [A-Za-z0-9]{60}\.[A-Za-z0-9]{22}`},
		"a Microsoft Teams webhook": {`webhook.office.com/webhookb2/ [\w-]+@[\w-]+/IncomingWebhook/[A-Za-z0-9]{32}/[\w-]+`},
		"a Netlify token":           {`nfp_ [A-Za-z0-9]{36,}`},
		"a New Relic key": {`NRAK- [A-Z0-9a-z]{27}`, `NRII- [A-Za-z0-9_-]{32}`,
			`NRJS- [a-f0-9]{19}`},
		"a Notion token":        {`ntn_ [0-9]{11}[A-Za-z0-9]{35}`, `secret_ [A-Za-z0-9]{43}`},
		"an npm token":          {`npm_ [A-Za-z0-9]{36}`},
		"a NuGet key":           {`oy2 [a-z0-9]{43}`},
		"an Octopus Deploy key": {`API- [A-Z0-9]{26}`},
		"an OpenAI key": {`sk-proj- [\w-]{40,}`, `sk-svcacct- [\w-]{40,}`,
			`sk-admin- [\w-]{40,}`, `sk-None- [\w-]{40,}`, `sk- [A-Za-z0-9]{48}`},
		"an OpenShift token": {`sha256~ [\w-]{43}`},
		"a Perplexity key":   {`pplx- [A-Za-z0-9]{48}`},
		"a Pinecone key":     {`pcsk_ [A-Za-z0-9_]{50,}`},
		"a Plaid token": {`access-sandbox- [0-9a-f-]{36}`,
			`access-development- [0-9a-f-]{36}`, `access-production- [0-9a-f-]{36}`},
		"a PlanetScale token": {`pscale_tkn_ [\w=.-]{32,64}`, `pscale_oauth_ [\w=.-]{32,64}`,
			`pscale_pw_ [\w=.-]{32,64}`},
		"a PostHog key":  {`phx_ [A-Za-z0-9]{43,}`},
		"a Postman key":  {`PMAK- [a-fA-F0-9]{24}-[a-fA-F0-9]{34}`},
		"a Prefect key":  {`pnu_ [a-zA-Z0-9]{36}`},
		"a Pulumi token": {`pul- [a-f0-9]{40}`},
		"a PyPI token": {`pypi-AgEIcHlwaS5vcmc [\w-]{50,}`,
			`pypi-AgENdGVzdC5weXBpLm9yZ [\w-]{50,}`},
		"a Razorpay key":    {`rzp_live_ [A-Za-z0-9]{14}`},
		"a ReadMe key":      {`rdme_ [a-z0-9]{70}`},
		"a Replicate token": {`r8_ [A-Za-z0-9]{37}`},
		"a RubyGems key":    {`rubygems_ [a-f0-9]{48}`},
		"a Scalingo token":  {`tk-us- [\w-]{48}`},
		"a SendGrid key":    {`SG. [\w-]{20,24}\.[\w-]{39,50}`, `SG. [\w=.-]{66}`},
		"a Sendinblue key":  {`xkeysib- [a-f0-9]{64}-[a-zA-Z0-9]{16}`},
		"a Sentry token":    {`sntrys_ [\w+/=-]{60,}`, `sntryu_ [a-f0-9]{64}`},
		"a SettleMint token": {`sm_aat_ [a-zA-Z0-9]{16}`, `sm_pat_ [a-zA-Z0-9]{16}`,
			`sm_sat_ [a-zA-Z0-9]{16}`},
		"a Shippo token": {`shippo_live_ [a-fA-F0-9]{40}`,
			`shippo_test_ [a-fA-F0-9]{40}`},
		"a Shopify token": {`shpat_ [a-fA-F0-9]{32}`, `shpca_ [a-fA-F0-9]{32}`,
			`shppa_ [a-fA-F0-9]{32}`, `shpss_ [a-fA-F0-9]{32}`},
		"a Slack token": {`xoxb- [\w-]{12,}`, `xoxp- [\w-]{12,}`, `xoxa- [\w-]{12,}`,
			`xoxo- [\w-]{12,}`, `xoxs- [\w-]{12,}`, `xoxr- [\w-]{12,}`, `xoxe- [\w-]{12,}`,
			`xoxe.xoxp- [\w-]{12,}`, `xoxe.xoxb- [\w-]{12,}`,
			`xapp- \d-[A-Za-z0-9]+-\d+-[A-Za-z0-9]+`},
		"a Slack webhook": {`hooks.slack.com/ (?:services|workflows|triggers)/[A-Za-z0-9+/]{40,60}`},
		"a Sonar token": {`squ_ [A-Za-z0-9=_-]{40}`, `sqp_ [A-Za-z0-9=_-]{40}`,
			`sqa_ [A-Za-z0-9=_-]{40}`},
		"a Sourcegraph token": {`sgp_ (?:(?:[a-fA-F0-9]{16}|local)_)?[a-fA-F0-9]{40}`,
			`slk_ [a-f0-9]{64}`},
		"a Square token": {`sq0atp- [\w-]{22,60}`, `sq0csp- [\w-]{22,60}`,
			`EAAA [\w-]{22,60}`},
		"a Stripe key": {`sk_live_ [A-Za-z0-9]{10,}`, `sk_test_ [A-Za-z0-9]{10,}`,
			`sk_prod_ [A-Za-z0-9]{10,}`, `rk_live_ [A-Za-z0-9]{10,}`, `rk_test_ [A-Za-z0-9]{10,}`,
			`rk_prod_ [A-Za-z0-9]{10,}`, `whsec_ [A-Za-z0-9+/=]{32,}`},
		"a Supabase token": {`sbp_ [a-f0-9]{40}`},
		"a Tailscale key": {`tskey-auth- [A-Za-z0-9]+-[A-Za-z0-9]{16,}`,
			`tskey-api- [A-Za-z0-9]+-[A-Za-z0-9]{16,}`},
		"a Twilio key":     {`SK [0-9a-fA-F]{32}`},
		"a Typeform token": {`tfp_ [\w.=-]{50,}`},
		"a WakaTime key":   {`waka_ [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`},
		"an xAI key":       {`xai- [A-Za-z0-9]{70,}`},
		"a Yandex key": {`AQVN [\w-]{35,38}`, `YC [\w-]{38}`,
			`t1. [A-Z0-9a-z_-]+=*\.[A-Z0-9a-z_-]{86}=*`},
		"an age key":          {`AGE-SECRET-KEY-1 [0-9A-Z]{58}`},
		"a PuTTY private key": {`PuTTY-User-Key-File- [23]: .*`},
	} {
		for _, entry := range list {
			begins, follows, _ := strings.Cut(entry, " ")
			key := [2]byte{begins[0], begins[1]}
			m[key] = append(m[key], form{what, begins, regexp.MustCompile(`^(?:` + follows + `)`)})
		}
	}
	return m
}()

// starts marks the first bytes of forms.
var starts = func() (marks [256]bool) {
	for key := range forms {
		marks[key[0]] = true
	}
	return marks
}()

// loose are tokens without a fixed beginning, by a needle within them.
var loose = []struct {
	what, needle string
	form         *regexp.Regexp // of the text with the needle
}{
	{"a Telegram bot token", ":A", regexp.MustCompile(`\b\d{5,16}:A[\w-]{34}\b`)},
	{"a Facebook token", "|", regexp.MustCompile(`\b\d{15,16}\|[\w-]{27,40}\b`)},
	{"a HashiCorp Vault token", "s.", regexp.MustCompile(
		`(?:^|["'\s=:])s\.(?:[A-Za-z]*\d){2}[A-Za-z0-9]*(?:$|["'\s,;])`)},
	{"a Mailchimp key", "-us", regexp.MustCompile(`\b[0-9a-f]{32}-us\d{1,2}\b`)},
	{"an Azure client secret", "Q~", regexp.MustCompile(
		`(?:^|[^\w~.])[\w~.]{3}\dQ~[\w~.-]{31,34}(?:$|[^\w~.-])`)},
	{"a Terraform token", ".atlasv1.", regexp.MustCompile(
		`\b[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,70}`)},
	{"a MaxMind key", "_mmk", regexp.MustCompile(`\b[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk\b`)},
	{"a Dropbox token", "AAAAAAAAAA", regexp.MustCompile(
		`\b[a-zA-Z0-9]{11}AAAAAAAAAA[\w=-]{43}\b`)},
	{"a password hash", "$", regexp.MustCompile(
		`(?m)(?:^|["',\s])(?:[\w.-]+=)?[^\s:#"'=,/]+:\$?(?:\$apr1\$|\$2[abxy]\$|\$[156y]\$)[\w./$]{20,}`)},
	{"a password hash", `"md5`, regexp.MustCompile(`(?m)^"[^"\n]+"[ \t]+"md5[0-9a-f]{32}"`)},
	{"a password hash", `"SCRAM-SHA-256$`, regexp.MustCompile(
		`(?m)^"[^"\n]+"[ \t]+"SCRAM-SHA-256\$[^"\n]{40,}"`)},
	{"a password hash", "{S", regexp.MustCompile(`(?m)^[^\s:#"'=]+:\{SS?HA\}[\w+/=]{20,}`)},
}

// legacyVault is how Vault's tokens looked up to version 1.9.
var legacyVault = regexp.MustCompile(`s\.[A-Za-z0-9]{24}(?:$|["'\s,;])`)

// tokensIn finds the secrets that show by their form, one a line.
func tokensIn(data []byte) []token {
	if what := keyStore(data); what != "" {
		return []token{{what, 0}}
	}
	f := finder{data: data}
	for i := 0; i+1 < len(data) && len(f.found) < maxTokens; i++ {
		c := data[i]
		if c == '-' && bytes.HasPrefix(data[i:], []byte("-----BEGIN ")) && isPrivateKey(data[i:]) {
			f.add("a private key", i)
		}
		if !starts[c] || i > 0 && isWord(data[i-1]) && !escaped(data[:i]) {
			continue
		}
		for _, form := range forms[[2]byte{c, data[i+1]}] {
			rest, ok := bytes.CutPrefix(data[i:min(len(data), i+600)], []byte(form.begins))
			if !ok {
				continue
			}
			n := len(form.follows.Find(rest))
			if n > 0 && (n == len(rest) || !isWord(rest[n])) && !isExample(rest[:n]) {
				f.add(form.what, i)
				break
			}
		}
	}
	for _, l := range loose {
		if bytes.IndexByte(data, 0) >= 0 || !bytes.Contains(data, []byte(l.needle)) ||
			len(data) > maxFile {
			continue
		}
		for _, at := range l.form.FindAllIndex(data, maxTokens) {
			if t := data[at[0]:at[1]]; !isExample(t) && (l.needle != "s." || legacyVault.Match(t)) {
				f.add(l.what, at[0]+bytes.IndexFunc(t, func(r rune) bool { return r > ' ' }))
			}
		}
	}
	return f.found
}

type finder struct {
	data  []byte
	found []token
	at, n int // lines were counted up to here
}

// add takes a token unless one was found in the same line.
func (f *finder) add(what string, at int) {
	if at < f.at {
		f.at, f.n = 0, 0
	}
	f.n += bytes.Count(f.data[f.at:at], []byte("\n"))
	f.at = at
	for _, t := range f.found {
		if t.line == f.n+1 {
			return
		}
	}
	f.found = append(f.found, token{what, f.n + 1})
}

// escaped reports whether the text ends in an escape such as \n, behind which a word begins.
func escaped(before []byte) bool {
	n := len(before)
	return n > 1 && before[n-2] == '\\' && strings.IndexByte("nrt", before[n-1]) >= 0
}

// isExample reports whether a token is one of a documentation's: it says so, or has the same few
// characters throughout.
func isExample(t []byte) bool {
	upper := bytes.ToUpper(t)
	for _, word := range []string{"EXAMPLE", "XXXXXX", "PLACEHOLDER", "YOUR-", "YOUR_", "REPLACE",
		"CHANGEME", "......", "REDACTED"} {
		if bytes.Contains(upper, []byte(word)) {
			return true
		}
	}
	var seen [256]bool
	different := 0
	for _, c := range t {
		if !seen[c] {
			seen[c] = true
			different++
		}
	}
	return different < 5 && len(t) >= 16
}

var privateKey = regexp.MustCompile(
	`^-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[ \t]*(?:\r?\n|$)|(?:\\r)?\\n[A-Za-z0-9+/]{8}| [A-Za-z0-9+/=]{20})`)

// isPrivateKey reports whether a private key in the form of PEM (RFC 7468) begins here, and not
// only its first line in the quotation marks of a program.
func isPrivateKey(data []byte) bool {
	at := privateKey.FindIndex(data[:min(len(data), 120)])
	if at == nil {
		return false
	}
	body := bytes.TrimLeft(data[at[1]:min(len(data), at[1]+80)], " \t\r\n")
	// an example has no more than dots
	return len(body) == 0 || strings.IndexByte(".<*[{$", body[0]) < 0
}

var (
	// RFC 7292, appendix D
	keyBag      = []byte("\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x01")
	shroudedBag = []byte("\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02")
)

// keyStore returns the kind of the key store if the file is one with a private key, or ""; a store
// with certificates only is none.
func keyStore(data []byte) string {
	if len(data) < 24 {
		return ""
	}
	switch magic := binary.BigEndian.Uint32(data); {
	case magic == 0xfeedfeed || magic == 0xcececece:
		// JKS and JCEKS: the tag of the first entry follows the count
		if binary.BigEndian.Uint32(data[8:]) > 0 && binary.BigEndian.Uint32(data[12:]) != 2 ||
			bytes.Contains(data, []byte("\x2b\x06\x01\x04\x01\x2a\x02\x11\x01\x01")) {
			return "a key store of Java with a private key"
		}
	case data[0] == 0x30 && bytes.Contains(data[:24], []byte("\x02\x01\x03\x30")):
		// PKCS #12, version 3
		if bytes.Contains(data, keyBag) || bytes.Contains(data, shroudedBag) {
			return "a PKCS #12 key store with a private key"
		}
	}
	return ""
}
