package main

import (
	"fmt"
	"math/rand/v2"
	"regexp/syntax"
	"strings"
	"testing/fstest"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/sluice-deploy/sluice/envconfig"
	"github.com/sluice-deploy/sluice/envconfig/check"
)

// samples is how many tokens are made of each rule.
const samples = 5

// recall reads the rules of gitleaks (its config/gitleaks.toml), makes tokens that their regular
// expressions match, and counts the rules whose tokens package check finds under a neutral key, or,
// where the rule itself looks for a name beside the token, as the rule wants it.
func recall(file string, verbose bool) error {
	var config struct {
		Rules []struct {
			ID, Regex, Path string
			Keywords        []string
		}
	}
	if _, err := toml.DecodeFile(file, &config); err != nil {
		return err
	}
	rules, found := 0, 0
	r := rand.New(rand.NewPCG(1, 2))
	for _, rule := range config.Rules {
		if rule.Regex == "" || rule.Path != "" {
			continue
		}
		tree, err := syntax.Parse(rule.Regex, syntax.Perl)
		if err != nil {
			return fmt.Errorf("%s: %w", rule.ID, err)
		}
		secret := capture(tree)
		hits, last := 0, ""
		for range samples {
			var b strings.Builder
			write(&b, r, secret)
			last = b.String()
			if strings.HasPrefix(rule.Regex, besideName) {
				last = rule.Keywords[0] + " = \"" + last + "\""
			}
			if isFound(last) {
				hits++
			}
		}
		if rules++; hits*2 > samples {
			found++
		} else if verbose {
			fmt.Printf("missed: %s: %.120q\n", rule.ID, last)
		}
	}
	fmt.Printf("of %d rules of gitleaks, the tokens of %d are found\n", rules, found)
	return nil
}

// besideName begins the rules that look for the issuer's name beside a token.
const besideName = `(?i)[\w.-]{0,50}?`

// capture is the group of an expression that is the secret, or all of it.
func capture(e *syntax.Regexp) *syntax.Regexp {
	if e.Op == syntax.OpCapture {
		return e
	}
	for _, sub := range e.Sub {
		if sub.Op == syntax.OpConcat || sub.Op == syntax.OpCapture {
			if c := capture(sub); c != sub || c.Op == syntax.OpCapture {
				return c
			}
		}
	}
	return e
}

// isFound reports whether a secret is found in a file that holds the text, alone or as a value.
func isFound(text string) bool {
	content := "value = \"" + text + "\"\n"
	if strings.ContainsAny(text, "=:") {
		content = text + "\n"
	}
	image := fstest.MapFS{"envs/production/app.conf": {Data: []byte(content), Mode: 0o644}}
	manifest, err := envconfig.Scan(image)
	if err != nil {
		return false
	}
	report, err := check.Run(image, manifest, check.Config{}, time.Now())
	if err != nil {
		return false
	}
	for _, f := range report.Findings {
		if f.Rule == check.RuleSecret {
			return true
		}
	}
	return false
}

// write writes a text that the expression matches.
func write(b *strings.Builder, r *rand.Rand, e *syntax.Regexp) {
	switch e.Op {
	case syntax.OpLiteral:
		text := string(e.Rune)
		if e.Flags&syntax.FoldCase != 0 {
			text = strings.ToLower(text)
		}
		b.WriteString(text)
	case syntax.OpCharClass:
		b.WriteRune(pick(r, e.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte("aZ3"[r.IntN(3)])
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range e.Sub {
			write(b, r, sub)
		}
	case syntax.OpAlternate:
		write(b, r, e.Sub[r.IntN(len(e.Sub))])
	case syntax.OpQuest, syntax.OpStar: // as few as it may be
	case syntax.OpPlus:
		for range 1 + r.IntN(20) {
			write(b, r, e.Sub[0])
		}
	case syntax.OpRepeat:
		most := e.Max
		if most < 0 {
			most = e.Min + 20
		}
		n := e.Min
		if e.Min > 0 {
			n += r.IntN(most - e.Min + 1)
		}
		for range n {
			write(b, r, e.Sub[0])
		}
	}
}

// pick returns a character of a class, a visible one if there is any.
func pick(r *rand.Rand, pairs []rune) rune {
	var all []rune
	for i := 0; i+1 < len(pairs); i += 2 {
		for c := max(pairs[i], '!'); c <= min(pairs[i+1], '~'); c++ {
			if c != '"' && c != '\'' && c != '`' && c != '\\' {
				all = append(all, c)
			}
		}
	}
	if len(all) == 0 {
		return pairs[0]
	}
	return all[r.IntN(len(all))]
}
