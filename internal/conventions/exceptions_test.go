package conventions_test

// The breaches that are known. An entry goes when its area is adapted.
var (
	sentinelTexts = []exception{
		{where: "nginxsync/internal/tool", reason: "texts to be shortened"},
		{where: "nginxsync/route", reason: "texts to be shortened"},
	}
	sentinelPlaces = []exception{
		{where: "nginxsync/internal/tool", reason: "sentinels stand inside of sentences"},
	}
	bareContextErrors = []exception{}
	systemClocks      = []exception{
		{where: "envconfig/activate.go", reason: "to ask the clock of the configuration"},
	}
	otherCases        = []exception{}
	otherWatches      = []exception{}
	otherConstructors = []exception{}
	withoutSuite      = []exception{
		{where: "nginxsync/bundle/verify.go", reason: "its test is to run the suite"},
		{where: "vip/provision", reason: "a suite for drivers is to be written"},
	}
)
