package agenthttp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/sluice-deploy/sluice/internal/httpproblem"
	"github.com/sluice-deploy/sluice/nginxsync"
)

// ParseListen returns the network and the address of a place where the interface is served: the
// absolute path of a unix socket behind "unix:", or a loopback address with a port.
func ParseListen(text string) (network, addr string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if !filepath.IsAbs(path) || len(path) > 107 {
			return "", "", fmt.Errorf("%.128q: want unix: and an absolute path of at most 107 "+
				"bytes: %w", text, nginxsync.ErrInvalid)
		}
		return "unix", path, nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || !at.Addr().IsLoopback() {
		return "", "", fmt.Errorf("%.128q: want unix:/path/of/a.sock or a loopback address with a "+
			"port, such as 127.0.0.1:9180: %w", text, nginxsync.ErrInvalid)
	}
	return "tcp", text, nil
}

// Client asks a Handler. It is safe for concurrent use.
type Client struct {
	http  http.Client
	base  string
	token string // of a remote one
}

// NewClient makes a client for a place as ParseListen takes it. It sends nothing yet.
func NewClient(listen string) (*Client, error) {
	network, addr, err := ParseListen(listen)
	if err != nil {
		return nil, err
	}
	c := &Client{base: "http://" + addr}
	if network == "unix" {
		c.base = "http://agent"
	}
	c.http.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, addr)
		}}
	return c, nil
}

// Get asks for a path with a query and decodes the answer into the pointer into.
func (c *Client) Get(ctx context.Context, path string, query url.Values, into any) error {
	return c.do(ctx, http.MethodGet, path+"?"+query.Encode(), nil, into)
}

// Post sends a value as JSON and decodes the answer into the pointer into.
func (c *Client) Post(ctx context.Context, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, text, into)
}

// do sends a request. An answer that is a problem is an error with its detail, and
// nginxsync.ErrNotFound or ErrInvalid in its chain where the problem says so. /healthz is decoded
// with each status.
func (c *Client) do(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("the agent does not answer: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 512<<20))
	if err != nil {
		return fmt.Errorf("the agent's answer: %w", err)
	}
	if resp.Header.Get("Content-Type") != "application/json" {
		return problem(resp, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("the agent's answer: %w", err)
	}
	return nil
}

// problem is the error in an answer.
func problem(resp *http.Response, text []byte) error {
	var p httpproblem.Problem
	if err := json.Unmarshal(text, &p); err != nil || p.Detail == "" {
		return fmt.Errorf("the agent answers %s", resp.Status)
	}
	for _, rule := range rules {
		if rule.Kind == p.Code {
			return fmt.Errorf("%s: %w", strings.TrimSuffix(p.Detail, ": "+rule.Err.Error()),
				rule.Err)
		}
	}
	return errors.New(p.Detail)
}
