package agenthttp

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-deploy/sluice/internal/names"
	"github.com/sluice-deploy/sluice/nginxsync"
	"github.com/sluice-deploy/sluice/nginxsync/conf"
	"github.com/sluice-deploy/sluice/nginxsync/route"
)

// Explanation has the instances that answer on a VIP, and the reasons.
type Explanation struct {
	Nginx string     `json:"nginx"`
	VIP   netip.Addr `json:"vip"`
	// empty when no cluster answers
	Cluster string `json:"cluster"`
	// of an answer by Nginx itself; else 0
	Status int `json:"status"`
	// "overlay", "branch NAME" or "baseline"; empty when no row names the cluster
	Scope string `json:"scope"`
	// that Nginx serves
	Generation nginxsync.Generation `json:"generation"`
	// of the instances, each once
	Versions  []string   `json:"versions"`
	Instances []Instance `json:"instances"`
	Why       []string   `json:"why"` // the steps that lead there, in order
}

// Instance is nginxsync.Instance in JSON.
type Instance struct {
	ID      string         `json:"id"`
	Addr    netip.AddrPort `json:"addr"`
	Weight  int            `json:"weight"`
	Version string         `json:"version"`
	Backup  bool           `json:"backup"`
}

// explain answers from the routes that Nginx serves, not from the desired ones.
func (h *Handler) explain(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	t, err := h.target(query.Get("nginx"))
	if err != nil {
		return err
	}
	vip, err := netip.ParseAddr(query.Get("vip"))
	if err != nil {
		return fmt.Errorf("parameter vip: %.64q: want an address: %w", query.Get("vip"),
			nginxsync.ErrInvalid)
	}
	out := Explanation{Nginx: t.Name, VIP: vip.Unmap().WithZone(""), Cluster: query.Get("cluster"),
		Versions: []string{}, Instances: []Instance{}, Why: []string{}}
	switch url := query.Get("url"); {
	case url != "" && out.Cluster != "", url == "" && out.Cluster == "":
		return fmt.Errorf("want parameter url or cluster, one of them: %w", nginxsync.ErrInvalid)
	case url != "" && t.Tree == nil:
		return fmt.Errorf("url: the configuration of Nginx %s is not known: name its tree in the "+
			"agent's configuration, or ask for a cluster: %w", t.Name, nginxsync.ErrInvalid)
	}
	ctx, cancel := within(r.Context(), h.cfg.Timeout)
	defer cancel()
	routes, err := t.Driver.Routes(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errUnavailable)
	}
	out.Generation = routes.Generation
	// Nginx looks whether the address takes requests before it looks at the URL.
	if at := routes.Snapshot.Resolve(out.VIP, ""); at.Status == http.StatusGone {
		out.Status = at.Status
		out.Why = append(out.Why, strings.Join(at.Why, "; ")+": 410")
		reply(w, http.StatusOK, out)
		return nil
	}
	if url := query.Get("url"); url != "" {
		if err := out.route(r, t, url); err != nil {
			return err
		}
	}
	if out.Cluster != "" {
		out.serve(routes, t.Agent.Status())
	}
	reply(w, http.StatusOK, out)
	return nil
}

// route follows the URL through the configuration to a cluster.
func (e *Explanation) route(r *http.Request, t Target, url string) error {
	tree, err := t.Tree(r.Context())
	if err != nil {
		return fmt.Errorf("configuration of Nginx %s: %w", t.Name, err)
	}
	header := http.Header{}
	for _, line := range r.URL.Query()["header"] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("parameter header: %.64q: want Name: value: %w", line,
				nginxsync.ErrInvalid)
		}
		header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	answer, err := route.Explain(tree, route.Request{URL: url, Addr: e.VIP, Header: header,
		Method: r.URL.Query().Get("method")})
	if answer != nil {
		for _, step := range answer.Steps {
			e.Why = append(e.Why, step.String())
		}
		for _, step := range answer.Unless {
			e.Why = append(e.Why, step.At.String()+": unless "+step.Text)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %w", strings.Join(append(e.Why, url), "; "), err,
			nginxsync.ErrInvalid)
	}
	e.Status = answer.Status
	if answer.Upstream != "" {
		e.Cluster = cluster(tree, answer.Upstream)
		if e.Cluster == "" {
			e.Why = append(e.Why, fmt.Sprintf("%s is no cluster: its servers are those of the "+
				"configuration", answer.Upstream))
		}
	}
	return nil
}

// balanced finds the cluster in an upstream with the code of luadriver.Snippets.
var balanced = regexp.MustCompile(`\.balance\(("[^"]*")`)

// cluster is the cluster of an upstream: that which the driver balances there, else its name in
// lower case when it is the name of a cluster. Empty when there is no such upstream.
func cluster(tree *conf.Tree, upstream string) string {
	for u := range tree.Find("http", "upstream") {
		if !strings.EqualFold(u.Arg(0), upstream) {
			continue
		}
		for d := range u.Find("balancer_by_lua_block") {
			if m := balanced.FindStringSubmatch(d.Text()); m != nil {
				if name, err := strconv.Unquote(m[1]); err == nil {
					return name
				}
			}
		}
		if name := strings.ToLower(upstream); names.Cluster(name) == nil {
			return name
		}
	}
	return ""
}

// serve fills in the instances of the cluster on the VIP.
func (e *Explanation) serve(routes nginxsync.Routes, status nginxsync.Status) {
	add := func(format string, args ...any) { e.Why = append(e.Why, fmt.Sprintf(format, args...)) }
	decision := routes.Snapshot.Resolve(e.VIP, e.Cluster)
	list, overlay := decision.Instances, routes.Snapshot.Overlays[e.VIP]
	_, overlaid := overlay[e.Cluster]
	switch {
	case overlaid && len(list) == 0:
		e.Scope = "overlay"
		add("the overlay of VIP %s names cluster %s without an instance: 503", e.VIP, e.Cluster)
	case overlaid:
		e.Scope = "overlay"
		add("the overlay of VIP %s names cluster %s: its %d instances answer", e.VIP, e.Cluster,
			len(list))
	default:
		if len(overlay) > 0 {
			add("the overlay of VIP %s does not name cluster %s", e.VIP, e.Cluster)
		} else {
			add("VIP %s has no overlay", e.VIP)
		}
		e.Scope = decision.From
		from := "the baseline"
		if strings.HasPrefix(decision.From, "branch ") {
			from = decision.From + " of the VIP"
		}
		if len(list) > 0 {
			add("%s has %d instances of cluster %s", from, len(list), e.Cluster)
		} else {
			add("%s has no instance of cluster %s: 503", from, e.Cluster)
		}
	}
	seen := map[string]bool{}
	for _, in := range list {
		e.Instances = append(e.Instances, Instance(in))
		if !seen[in.Version] {
			seen[in.Version] = true
			e.Versions = append(e.Versions, in.Version)
		}
	}
	if len(list) == 0 {
		e.Status = http.StatusServiceUnavailable
	}
	if status.Desired != routes.Generation {
		add("the agent is bringing Nginx from generation %s to %s", routes.Generation,
			status.Desired)
	}
	concerns := func(vip netip.Addr, branch, cluster string) bool {
		return cluster == e.Cluster && (!vip.IsValid() || vip == e.VIP) &&
			(branch == "" || slices.Contains(routes.Snapshot.Scopes[e.VIP].Branches, branch))
	}
	for _, held := range status.Held {
		if concerns(held.VIP, held.Branch, held.Cluster) {
			add("held: %s", held)
		}
	}
	for _, aside := range status.SetAside {
		if concerns(aside.VIP, aside.Branch, aside.Cluster) {
			add("set aside: %s", aside)
		}
	}
}
