package check

// fixes holds the advice for each rule, in one sentence.
var fixes = map[string]string{
	RuleFile: "add the file below the environment's directory, or name the required ones " +
		"in envconfig.json",
	RuleSyntax: "mend the line; the file was read on behind it",
	RuleKey: "add the key to the environment, or accept the difference in " +
		"envconfig-check.json with a reason",
	RuleType: "give the key values of one type in all environments",
	RulePlaceholder: "write the value of this environment, or a reference such as ${NAME} " +
		"with the action render",
	RuleLeak: "give the environment a value of its own, or declare the owners in " +
		"envconfig-check.json",
	RuleSecret: "take the value out of the file and of git's history, change it at its " +
		"issuer, and refer to it as ${file:/run/secrets/NAME} with the action render",
	RuleMode:   "chmod 0644 the file, or 0640, in all environments",
	RuleSchema: "give the key a value that the schema allows",
	RuleCommand: "start the service through envconfig: ENTRYPOINT [\"/sbin/envconfig\", " +
		"\"--\", …]",
	RuleAllow:  "remove the entry, or give it a new last day and a reason that still holds",
	RuleSource: "remove the file or rename it",
}

// Fix returns the advice for the finding.
func (f Finding) Fix() string { return fixes[f.Rule] }
