package story

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
	"strconv"
	"time"
)

// client calls the server's API as any other client would.
type client struct {
	base string // http://host:port/api/v1
	http http.Client
}

// problem is an answer of 400 and more.
type problem struct {
	Status  int      `json:"status"`
	Detail  string   `json:"detail"`
	Reasons []string `json:"reasons"`
	Missing []string `json:"missing"`
}

func (p *problem) Error() string { return fmt.Sprintf("%d: %s", p.Status, p.Detail) }

// call sends in, if it is not nil, as JSON and decodes the answer into out, if it is not nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	return c.send(ctx, method, path, body, out)
}

func (c *client) send(ctx context.Context, method, path string, body io.Reader, out any) error {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 400 {
		p := &problem{Status: response.StatusCode}
		if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(p); err != nil {
			return fmt.Errorf("%s %s: %s", method, path, response.Status)
		}
		return p
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(out)
}

// answer holds the sample service's answer, and the fields that Nginx adds.
type answer struct {
	Cluster, Version, Environment, Digest, Greeting, VIP, Host, URI, Served string

	Status int         `json:"-"`
	Header http.Header `json:"-"`
}

// visit asks Nginx at addr for a page of host, like a tester whose hosts file has addr for that
// name. Each visit is a connection of its own.
func visit(ctx context.Context, addr netip.AddrPort, host, path string) (answer, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr.String())
		},
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return answer{}, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{Status: response.StatusCode, Header: response.Header}
	if response.StatusCode != http.StatusOK {
		return a, errors.New(strconv.Itoa(response.StatusCode) + " from http://" + host + path +
			" at " + addr.String())
	}
	return a, json.NewDecoder(response.Body).Decode(&a)
}
