package story

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

type deployment struct{ Cluster, Environment, Task, Version, Digest, Actor string }

type task struct {
	Task, State string
	VIP         netip.Addr
	Clusters    []struct{ Cluster, Version, Digest string }
	Instances   []struct {
		ID      string
		Addr    netip.AddrPort
		Version string
		Digest  string
	}
	CoolUntil string `json:"coolUntil"`
}

type nginx struct {
	Port    int
	Workers []struct {
		PID      int
		Verified bool
	}
}

func (n nginx) pids() string {
	var pids []string
	for _, w := range n.Workers {
		pids = append(pids, fmt.Sprint(w.PID))
	}
	slices.Sort(pids)
	return strings.Join(pids, " ")
}

var environments = []string{"test", "sandbox", "production", "stable"}

func (t *teller) baseline(ctx context.Context) error {
	var status nginx
	if err := t.api.call(ctx, "GET", "/nginx", nil, &status); err != nil {
		return err
	}
	t.plain = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(status.Port))
	for _, cluster := range []string{"hello_web", "greet_api"} {
		if err := t.mustBuild(ctx, cluster, "v1"); err != nil {
			return err
		}
	}
	_, err := t.promote(ctx, "hello_web", "v1", "stable", "any")
	t.refused("deploy hello_web v1 to stable at once, past the others", err, 422, "production")
	for _, environment := range environments {
		for _, cluster := range []string{"hello_web", "greet_api"} {
			d, err := t.promote(ctx, cluster, "v1", environment, "any")
			t.step(fmt.Sprintf("deploy %s v1 to %s", cluster, environment), d.Version+" "+d.Digest,
				err,
				want{"digest", d.Digest, t.digests[cluster+" v1"]})
			if err != nil {
				return err
			}
		}
	}
	t.visit(ctx, "the plain address, /", t.plain, "/", answer{Cluster: "hello_web", Version: "v1",
		Environment: "stable"})
	t.visit(ctx, "the plain address, /api/hi", t.plain, "/api/hi", answer{Cluster: "greet_api",
		Version: "v1", Environment: "stable", URI: "/hi"})
	return nil
}

func (t *teller) sideBySide(ctx context.Context) error {
	for _, version := range []string{"v2", "v3"} {
		if err := t.mustBuild(ctx, "hello_web", version); err != nil {
			return err
		}
	}
	for _, asked := range [][2]string{{"search-redesign", "v2"}, {"login-fix", "v3"}} {
		name, version := asked[0], asked[1]
		var started task
		err := t.api.call(ctx, "POST", "/tasks", map[string]string{"task": name,
			"cluster": "hello_web", "version": version, "actor": "bob"}, &started)
		t.step(fmt.Sprintf("start the task %s: hello_web %s on a VIP", name, version), "VIP "+
			started.VIP.String(), err,
			want{"state", started.State, "leased"})
		if err != nil {
			return err
		}
		t.vips[version] = netip.AddrPortFrom(started.VIP, t.plain.Port())
	}
	a, b := t.vips["v2"], t.vips["v3"]
	t.visit(ctx, "VIP A, /", a, "/", answer{Cluster: "hello_web", Version: "v2",
		Environment: "test", VIP: a.Addr().String()})
	t.visit(ctx, "VIP B, /", b, "/", answer{Cluster: "hello_web", Version: "v3",
		Environment: "test", VIP: b.Addr().String()})
	t.visit(ctx, "VIP A, /api/hi", a, "/api/hi", answer{Cluster: "greet_api", Version: "v1",
		Environment: "stable", VIP: a.Addr().String()})
	t.visit(ctx, "VIP B, /api/hi", b, "/api/hi", answer{Cluster: "greet_api", Version: "v1",
		Environment: "stable", VIP: b.Addr().String()})
	t.visit(ctx, "the plain address, /", t.plain, "/", answer{Cluster: "hello_web", Version: "v1",
		Environment: "stable"})
	t.visit(ctx, "VIP A, a link from before the redesign (rewrite)", a, "/old/page?q=1",
		answer{Cluster: "hello_web", Version: "v2", URI: "/new/page?q=1"})
	t.visit(ctx, "VIP B, a list page (regex location with headers of its own)", b,
		"/flats/list-7.html", answer{Cluster: "hello_web", Version: "v3", VIP: b.Addr().String()})
	t.cached(ctx, a, b)
	for _, vip := range []netip.AddrPort{a, b} {
		var on task
		err := t.api.call(ctx, "GET", "/vips/"+vip.Addr().String(), nil, &on)
		if err == nil && (len(on.Clusters) != 1 || len(on.Instances) != 1) {
			err = fmt.Errorf("%d clusters and %d instances", len(on.Clusters), len(on.Instances))
		}
		if err != nil {
			t.step("who is on "+vip.Addr().String(), nil, err)
			continue
		}
		c, i := on.Clusters[0], on.Instances[0]
		t.step("who is on "+vip.Addr().String(), fmt.Sprintf("task %s: %s %s %s, instance %s at %s",
			on.Task, c.Cluster, c.Version, c.Digest, i.ID, i.Addr), nil,
			want{"VIP of " + c.Version, t.vips[c.Version], vip},
			want{"digest", c.Digest, t.digests["hello_web "+c.Version]}, want{"instance's digest",
				i.Digest, c.Digest})
	}
	return nil
}

// cached asks both VIPs twice for a page that Nginx caches: each must keep its own.
func (t *teller) cached(ctx context.Context, a, b netip.AddrPort) {
	var seen []string
	var err error
	for range 2 {
		for _, vip := range []netip.AddrPort{a, b} {
			got, visitErr := visit(ctx, vip, Host, "/cached/page")
			err = errors.Join(err, visitErr)
			seen = append(seen, got.Version+" "+got.Header.Get("X-Cache-Status"))
		}
	}
	t.step("a cached page, on VIP A and B and again on A and B", strings.Join(seen, ", "), err,
		want{"what was answered", strings.Join(seen, ", "), "v2 MISS, v3 MISS, v2 HIT, v3 HIT"})
}

func (t *teller) restart(ctx context.Context) error {
	var before, after nginx
	var on task
	err := errors.Join(t.api.call(ctx, "GET", "/nginx", nil, &before),
		t.api.call(ctx, "GET", "/vips/"+t.vips["v2"].Addr().String(), nil, &on))
	if err == nil && len(on.Instances) != 1 {
		err = fmt.Errorf("%d instances on the VIP of v2", len(on.Instances))
	}
	if err != nil {
		return err
	}
	old := on.Instances[0]
	var fresh struct {
		ID   string
		Addr netip.AddrPort
	}
	err = t.api.call(ctx, "POST", "/instances/"+old.ID+"/restart?actor=bob", nil, &fresh)
	t.step("restart "+old.ID, fmt.Sprintf("from %s to %s", old.Addr, fresh.Addr), err,
		want{"other port", fresh.Addr != old.Addr, true})
	if err != nil {
		return err
	}
	t.visit(ctx, "the next request on VIP A", t.vips["v2"], "/", answer{Cluster: "hello_web",
		Version: "v2", Environment: "test"})
	err = t.api.call(ctx, "GET", "/nginx", nil, &after)
	t.step("worker processes of Nginx, before and after", before.pids()+" and "+after.pids(), err,
		want{"pids", after.pids(), before.pids()})
	return nil
}

func (t *teller) promotion(ctx context.Context) error {
	digest := t.digests["hello_web v2"]
	for _, environment := range environments[1:] {
		d, err := t.promote(ctx, "hello_web", "v2", environment, "any")
		t.step("promote hello_web v2 to "+environment, d.Version+" "+d.Digest, err,
			want{"digest", d.Digest, digest})
		if err != nil {
			return err
		}
	}
	var instances []struct {
		Cluster, Environment, Task, Version string
		Addr                                netip.AddrPort
	}
	if err := t.api.call(ctx, "GET", "/instances", nil, &instances); err != nil {
		return err
	}
	for _, environment := range environments {
		asked := false
		for _, i := range instances {
			if asked || i.Cluster != "hello_web" || i.Version != "v2" ||
				i.Environment != environment {
				continue
			}
			asked = true
			a, err := visit(ctx, i.Addr, i.Addr.String(), "/")
			t.step("ask the instance in "+environment, fmt.Sprintf("%q, digest %s", a.Greeting,
				a.Digest), err,
				want{"greeting", a.Greeting, "welcome from " + environment},
				want{"digest", a.Digest, digest})
		}
		if !asked {
			t.step("ask the instance in "+environment, nil, errors.New("there is none of v2"))
		}
	}
	t.visit(ctx, "the plain address, /", t.plain, "/", answer{Cluster: "hello_web", Version: "v2",
		Environment: "stable"})
	return t.rollback(ctx)
}

// rollback puts v1 back as the baseline, and v2 again.
func (t *teller) rollback(ctx context.Context) error {
	var d deployment
	err := t.api.call(ctx, "POST", "/rollbacks", map[string]string{
		"cluster": "hello_web", "environment": "stable", "digest": t.digests["hello_web v1"],
		"expect": t.digests["hello_web v2"], "actor": "ann", "reason": "a try",
	}, &d)
	t.step("roll hello_web back in stable", d.Version+" "+d.Digest, err,
		want{"digest", d.Digest, t.digests["hello_web v1"]})
	t.visit(ctx, "the plain address, /", t.plain, "/", answer{Cluster: "hello_web", Version: "v1",
		Environment: "stable"})
	_, err = t.promote(ctx, "hello_web", "v2", "stable", t.digests["hello_web v2"])
	t.refused("deploy v2 to stable in the belief that v2 is there", err, 409, "ann")
	// The rollback holds v2 back until a person has looked at it.
	if err := t.api.call(ctx, "POST", "/releases", map[string]string{"cluster": "hello_web",
		"digest": t.digests["hello_web v2"], "actor": "ann", "reason": "it was a try"},
		nil); err != nil {
		return err
	}
	d, err = t.promote(ctx, "hello_web", "v2", "stable", t.digests["hello_web v1"])
	t.step("deploy v2 to stable, knowing that v1 is there", d.Version+" "+d.Digest, err,
		want{"digest", d.Digest, t.digests["hello_web v2"]})
	return err
}

func (t *teller) refusals(ctx context.Context) error {
	if err := t.mustBuild(ctx, "hello_web", "v4", "production"); err != nil {
		return err
	}
	for _, environment := range environments[:2] {
		d, err := t.promote(ctx, "hello_web", "v4", environment, "any")
		t.step("deploy hello_web v4 to "+environment, d.Version+" "+d.Digest, err)
	}
	_, err := t.promote(ctx, "hello_web", "v4", "production", "any")
	t.refused("promote hello_web v4 to production", err, 422, "app/conf/app.properties")
	b, err := t.build(ctx, "hello_web", "v2", "v5")
	t.step("build something else under the name v2", b.Error, err, want{"state", b.State, "failed"},
		want{"names the digest that v2 stands for", strings.Contains(b.Error,
			t.digests["hello_web v2"]), true})
	var on task
	err = t.api.call(ctx, "POST", "/tasks", map[string]string{"task": "search-redesign",
		"cluster": "hello_web", "version": "v3", "actor": "bob"}, &on)
	t.refused("start the task search-redesign again, with v3", err, 409, "v2")
	return nil
}

func (t *teller) finish(ctx context.Context) error {
	vip := t.vips["v3"]
	var done task
	err := t.api.call(ctx, "DELETE", "/tasks/login-fix?actor=bob", nil, &done)
	t.step("finish the task login-fix", fmt.Sprintf("VIP %s is %s until %s", done.VIP, done.State,
		done.CoolUntil), err, want{"state", done.State, "cooling"})
	a, err := visit(ctx, vip, Host, "/")
	if a.Status == http.StatusGone {
		err = nil
	}
	reason := a.Header.Get("X-Sluice-Reason")
	t.step("its VIP, / : the task has ended", fmt.Sprintf("http://%s/ at %s: %d %s", Host, vip,
		a.Status, reason), err, want{"status", a.Status, http.StatusGone},
		want{"names the task and its version", strings.Contains(reason, "task=login-fix") &&
			strings.Contains(reason, "version=hello_web:v3"), true})
	t.visit(ctx, "the other task's VIP, /", t.vips["v2"], "/", answer{Cluster: "hello_web",
		Version: "v2", Environment: "test"})
	return t.table(ctx)
}

// table shows clusters × environments × versions.
func (t *teller) table(ctx context.Context) error {
	var overview struct {
		Environments []string
		Clusters     []struct {
			Cluster     string
			Deployments map[string][]deployment
		}
	}
	if err := t.api.call(ctx, "GET", "/environments", nil, &overview); err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("%-10s", "") + row(overview.Environments)}
	cells := map[string]string{}
	for _, c := range overview.Clusters {
		var columns []string
		for _, environment := range overview.Environments {
			var versions []string
			for _, d := range c.Deployments[environment] {
				shown := d.Version
				if d.Task != "" {
					shown += " (" + d.Task + ")"
				}
				versions = append(versions, shown)
			}
			cells[c.Cluster+" "+environment] = strings.Join(versions, ", ")
			columns = append(columns, strings.Join(versions, ", "))
		}
		lines = append(lines, fmt.Sprintf("%-10s", c.Cluster)+row(columns))
	}
	t.step("the table", strings.Join(lines, "\n"), nil,
		want{"hello_web in production", cells["hello_web production"], "v2"},
		want{"hello_web in stable", cells["hello_web stable"], "v2"},
		want{"greet_api in stable", cells["greet_api stable"], "v1"})
	return nil
}

func row(columns []string) string {
	var b strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&b, "  %-28s", c)
	}
	return strings.TrimRight(b.String(), " ")
}

func (t *teller) promote(ctx context.Context, cluster, version, environment,
	expect string) (deployment, error) {
	var d deployment
	err := t.api.call(ctx, "POST", "/promotions", map[string]string{
		"cluster": cluster, "version": version, "environment": environment, "expect": expect,
		"actor": "ann",
	}, &d)
	return d, err
}

// visit asks Nginx and compares the fields that expected has.
func (t *teller) visit(ctx context.Context, asked string, addr netip.AddrPort, path string,
	expected answer) {
	a, err := visit(ctx, addr, Host, path)
	wants := []want{{"cluster", a.Cluster, expected.Cluster},
		{"version", a.Version, expected.Version},
		{"the version that Nginx names", a.Header.Get("X-Sluice-Version"), expected.Version}}
	if expected.Environment != "" {
		wants = append(wants, want{"environment", a.Environment, expected.Environment})
	}
	if expected.VIP != "" {
		wants = append(wants, want{"VIP", a.VIP, expected.VIP})
	}
	if expected.URI != "" {
		wants = append(wants, want{"URI", a.URI, expected.URI})
	}
	t.step(asked, fmt.Sprintf("http://%s%s at %s: %s %s in %s, %q", Host, path, addr, a.Cluster,
		a.Version, a.Environment, a.Greeting), err, wants...)
}

// refused is a step that must fail with the status, and with the word in its reason.
func (t *teller) refused(asked string, err error, status int, word string) {
	var p *problem
	if !errors.As(err, &p) {
		t.step(asked, nil, fmt.Errorf("it was not refused as it should be: %w", errors.Join(err)))
		return
	}
	t.step(asked, fmt.Sprintf("refused (%d): %s", p.Status, p.Detail), nil,
		want{"status", p.Status, status}, want{"names " + word,
			strings.Contains(p.Detail+strings.Join(p.Missing, " "), word), true})
}
