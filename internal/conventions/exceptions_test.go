package conventions_test

// The breaches that are known. An entry goes when its area is adapted.
var (
	sentinelTexts     = []exception{}
	sentinelPlaces    = []exception{}
	bareContextErrors = []exception{}
	systemClocks      = []exception{
		{where: "nginxsync/door/deadline.go", reason: "the deadlines of sockets are on the " +
			"system's clock"},
		{where: "nginxsync/relay/handler.go", reason: "the deadline of a socket is on the " +
			"system's clock; the Now of the package is that of its source"},
		{where: "vip/viphttp/list.go", reason: "the deadline of a socket is on the system's clock"},
		{where: "vip/watch.go", reason: "the pace of wake-ups is elapsed time, which a test's " +
			"clock does not move"},
	}
	otherCases = []exception{
		{where: "envconfig/check/sarif.go", reason: "SARIF names the member $schema"},
		{where: "builder/assemble/attest.go", reason: "in-toto names the member _type"},
		{where: "builder/internal/sbom/spdx.go", reason: "SPDX names the member SPDXID"},
	}
	otherWatches      = []exception{}
	otherConstructors = []exception{}
	withoutSuite      = []exception{}
)
