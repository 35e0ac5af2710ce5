package pod

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/builder"
	"github.com/sluice-deploy/sluice/builder/internal/push"
)

// Texts of BuildKit 0.34. A text that none of them matches is a failure of the infrastructure.
var (
	atLine     = regexp.MustCompile(`(?m)^Dockerfile:(\d+)$`)
	source     = regexp.MustCompile(`(?m)^ +\d+ \| >>> (.*)$`)
	command    = regexp.MustCompile(`did not complete successfully: exit code: (\d+)`)
	parseError = regexp.MustCompile(`dockerfile parse error on line (\d+)`)
	httpStatus = regexp.MustCompile(
		`(?:unexpected status|status code|response status)[^:]*: ?(?:\S+://\S+: )?(\d{3})\b`)
	plainStatus = regexp.MustCompile(`: (401|403|404|408|413|429|5\d\d) [A-Z]`)
	// a code of the registry's answer: BuildKit gives it in place of the status
	code = regexp.MustCompile(`: (unauthorized|denied|toomanyrequests|too many requests|` +
		`unavailable): `)
	away = regexp.MustCompile(`dial tcp|no such host|connection refused|i/o timeout|` +
		`connection reset|TLS handshake|failed to do request`)
	refused = regexp.MustCompile(`insufficient_scope|authorization failed|pull access denied`)
	noImage = regexp.MustCompile(`(?m)failed to resolve source metadata for \S+: \S+: not found`)
	noFile  = regexp.MustCompile(`": not found|failed to compute cache key|cannot copy to|` +
		`cannot replace|not a directory|file exists`)
	noSpace   = regexp.MustCompile(`no space left on device`)
	errorText = regexp.MustCompile(`(?m)^error: (?:failed to solve: )?(.*)$`)
)

// statusOf has the status that goes with a code: distribution-spec, error codes.
var statusOf = map[string]int{"unauthorized": 401, "denied": 403, "toomanyrequests": 429,
	"too many requests": 429, "unavailable": 503}

// faultOf types a failed build by the text of buildctl. killed is the number of the build's
// processes that the kernel has killed for want of memory.
func faultOf(text string, killed int64) *builder.Failure {
	f := &builder.Failure{Message: strings.TrimSpace(text)}
	if m := errorText.FindStringSubmatch(text); m != nil {
		f.Message = m[1]
	}
	if m := atLine.FindStringSubmatch(text); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
	}
	if m := source.FindStringSubmatch(text); m != nil {
		f.Instruction = strings.TrimSpace(m[1])
	}
	exit := command.FindStringSubmatch(text)
	if exit != nil {
		f.Evidence = append(f.Evidence, "exit code "+exit[1])
	}
	if killed > 0 {
		f.Evidence = append(f.Evidence, fmt.Sprintf("the kernel killed %d processes of the build "+
			"for want of memory", killed))
	}
	status := httpStatus.FindStringSubmatch(text)
	if status == nil {
		status = plainStatus.FindStringSubmatch(text)
	}
	switch {
	case killed > 0:
		memory(f)
	case noSpace.MatchString(text):
		f.Reason, f.Hint = builder.ReasonDisk, "allow the build more disk, or make it smaller"
	case exit != nil:
		f.Reason, f.Hint = builder.ReasonCommand, "look at the output of the command in the log"
	case status != nil:
		code, _ := strconv.Atoi(status[1])
		push.OfStatus(f, code)
	case code.MatchString(text):
		push.OfStatus(f, statusOf[code.FindStringSubmatch(text)[1]])
	case refused.MatchString(text):
		push.OfStatus(f, 403)
		f.Evidence = nil
	case noImage.MatchString(text):
		push.OfStatus(f, 404)
		f.Evidence = nil
	case away.MatchString(text):
		push.Away(f)
	case parseError.MatchString(text) || f.Line > 0 && noFile.MatchString(text):
		if m := parseError.FindStringSubmatch(text); m != nil {
			f.Line, _ = strconv.Atoi(m[1])
		}
		f.Reason, f.Hint = builder.ReasonDockerfile,
			"correct the Dockerfile or the files that it names"
	default:
		f.Reason, f.Retryable = builder.ReasonInfrastructure, true
		f.Hint = "try again; if it fails again, look at the log of the build"
	}
	return f
}

func memory(f *builder.Failure) {
	f.Reason, f.Hint = builder.ReasonMemory, "allow the build more memory, or let it need less"
}
