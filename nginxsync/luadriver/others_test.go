//go:build linux

package luadriver_test

import (
	"testing"

	"github.com/sluice-deploy/sluice/internal/testbed/nginx"
)

// The tests whose outcome is up to Nginx run on the Nginx of other releases of Debian too.
func TestOthers(t *testing.T) {
	t.Parallel()
	nginx.Others(t, "TestDriver", "TestQUICServesTheVersionOfTheVIP",
		"TestAddedHeadersAreInherited", "TestNothingIsWrittenInProduction",
		"TestNamesOfSecretsRouteAsInProduction", "TestStreamAndMailByRule",
		"TestTransformIsFaithful", "TestTargetsAreFaithful", "TestTargetsByPlace",
		"TestVersionsDoNotMix", "TestKeptPagesFollowTheRoutes", "TestLimitsFollowTheRoutes",
		"TestMixedVersionsAreNotKept", "TestDefaultCacheKeyIsNginxs",
		"TestVersionIsThatOfTheAnswer", "TestReasonIsThatOfTheAnswer",
		"TestNoInstanceIsTheSameAnswerInEachProtocol",
		"TestProgramsOfTheTreeStillRun", "TestServersOfTheDriverInheritNothing",
		"TestPurgesGiveWay", "TestOldAndNewWorkersOfAReload",
		"TestRoutesSurviveReloadAndWorkerKill", "TestSecretsStayInProduction",
		"TestNothingReachesProduction", "TestPushWakesWorkers",
		"TestPagesOfSubrequestsFollowTheRoutes",
		"TestPurgesAreOfOneVIP", "TestKeysOfExcludedMethods", "TestCachesWithoutKey",
		"TestNoInstanceIsTheSameAnswerByHTTP2", "TestDirectivesOfLaterVersions",
		"TestMapsOfTargetsFitTheSizesOfTheTree", "TestKeysOfZonesStayApart",
		"TestBaggageOfTheTree", "TestRequestFollowsAPushWhileItsBodyComes", "TestHashesChooseAsNginx",
		"TestFailuresCountAsInNginx", "TestNextAnswerIsNoFailure", "TestTargetSetAnewIsFaithful",
		"TestKeyVariables", "TestKeptPagesOfOtherProtocolsFollowTheRoutes",
		"TestMaxConnsAsInNginx", "TestTriesAreThoseOfNginx", "TestWorkersShareRequestsInFlight",
		"TestWorkersShareTurns", "TestWorkersShareFailures", "TestKilledWorkerHasNoRequests")
}
