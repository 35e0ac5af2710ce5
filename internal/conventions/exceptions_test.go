package conventions_test

// The breaches that are known. An entry goes when its area is adapted.
var (
	sentinelTexts = []exception{
		{where: "envconfig/entry/resolve.go", reason: "texts to be shortened"},
		{where: "envconfig/internal/place/errors.go", reason: "texts to be shortened"},
		{where: "nginxsync/internal/tool", reason: "texts to be shortened"},
		{where: "nginxsync/route", reason: "texts to be shortened"},
		{where: "vip", reason: "texts to be shortened"},
	}
	sentinelPlaces = []exception{
		{where: "envconfig", reason: "sentinels stand inside of sentences"},
		{where: "nginxsync/internal/tool", reason: "sentinels stand inside of sentences"},
		{where: "vip", reason: "sentinels stand inside of sentences"},
	}
	bareContextErrors = []exception{
		{where: "vip", reason: "to return the cause"},
	}
	systemClocks = []exception{
		{where: "envconfig/activate.go", reason: "to ask the clock of the configuration"},
	}
	otherCases   = []exception{}
	otherWatches = []exception{
		{where: "vip/watch.go", reason: "the parameter is to be renamed"},
	}
	otherConstructors = []exception{}
	withoutSuite      = []exception{
		{where: "nginxsync/bundle/verify.go", reason: "its test is to run the suite"},
		{where: "vip/provision", reason: "a suite for drivers is to be written"},
	}
)
