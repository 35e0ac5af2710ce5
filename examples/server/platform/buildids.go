package platform

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/sluice-deploy/sluice/builder/builds"
	"github.com/sluice-deploy/sluice/internal/names"
)

// buildID leads from an id that a caller has chosen to the record of its build. The keys of records
// are numbers, so that they are in the order of submission.
type buildID struct {
	Key string `json:"key"`
	// of the request, unlike that of another request under the same id
	Sum string `json:"sum"`
}

// numbered are the ids that the server gives.
var numbered = regexp.MustCompile(`^b[0-9]{6,}$`)

func checkBuildID(id string) error {
	switch {
	case id == "":
		return nil
	case numbered.MatchString(id):
		return fmt.Errorf("id %s: the server gives the ids of this form: want another one", id)
	}
	if err := names.Task(id); err != nil {
		return fmt.Errorf("id: %w", err)
	}
	return nil
}

func checkTeam(team string) error {
	if team == "" {
		return nil
	}
	if err := names.Cluster(team); err != nil {
		return fmt.Errorf("team: %w", err)
	}
	return nil
}

// policies are the policies of the builds of one cluster.
var policies = map[string]builds.Policy{"": builds.Parallel, "parallel": builds.Parallel,
	"serial": builds.Serial, "latestOnly": builds.LatestOnly}

func checkPolicy(policy string) error {
	if _, found := policies[policy]; !found {
		return fmt.Errorf("policy %s: want parallel, serial or latestOnly", names.Quote(policy))
	}
	return nil
}

// sum names the content of the request. The actor does not count.
func (r BuildRequest) sum() string {
	r.Actor = ""
	data, _ := json.Marshal(r) // of texts: never fails
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// buildRecord returns the record of a build and its key, or ErrNotFound.
func (p *Platform) buildRecord(id string) (key string, build Build, err error) {
	key = id
	named, found, err := p.buildIDs.get(id)
	if err != nil {
		return "", Build{}, err
	}
	if found {
		key = named.Key
	}
	build, found, err = p.builds.get(key)
	if err == nil && (!found || build.ID != id) {
		return "", Build{}, fmt.Errorf("build %s: %w", names.Quote(id), ErrNotFound)
	}
	return key, build, err
}
