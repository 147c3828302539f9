package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"leaderlatch/riakconf"
)

// askTimeout bounds what a running node answers at once.
const askTimeout = 10 * time.Second

// retryAsking is the pause between attempts to reach a node that does not run.
const retryAsking = 100 * time.Millisecond

// errNodeDown is that no node runs on the data folder.
var errNodeDown = errors.New("node is not running")

// admin asks the node that runs on this machine.
type admin struct {
	conf   *riakconf.Config
	client *http.Client
}

func newAdmin(conf *riakconf.Config) *admin {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		short, done, err := shortPath(conf.DataDir())
		if err != nil {
			return nil, err
		}
		defer done()
		var d net.Dialer
		return d.DialContext(ctx, "unix", short)
	}
	return &admin{conf, &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// get asks for a path and reads the answer into v: JSON, or text for a
// *string. errNodeDown is returned if no node runs.
func (a *admin) get(ctx context.Context, path string, query url.Values, v any) error {
	return a.ask(ctx, http.MethodGet, path, query, nil, v)
}

// post is get for what changes the node.
func (a *admin) post(ctx context.Context, path string, query url.Values, v any) error {
	return a.ask(ctx, http.MethodPost, path, query, nil, v)
}

// send is post of what is too secret for a query.
func (a *admin) send(ctx context.Context, path string, query url.Values, body io.Reader) error {
	return a.ask(ctx, http.MethodPost, path, query, body, nil)
}

func (a *admin) ask(ctx context.Context, method, path string, query url.Values, body io.Reader, v any) error {
	u := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return errNodeDown
	case errors.Is(err, syscall.ENOTDIR):
		return checkDataDir(a.conf)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("may not talk to the node by %s: run this as root or as the user that the service runs as", filepath.Join(a.conf.DataDir(), adminSocket))
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("the node does not answer in time: look at its process, its log and its disk")
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return errors.New("the node has ended before it answered; what was asked may have been done")
	case err != nil:
		return fmt.Errorf("ask the node: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return &adminError{resp.StatusCode, string(answer)}
	}
	if text, ok := v.(*string); ok {
		*text = string(answer)
		return nil
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(answer, v)
}

// adminError is a node's refusal, in its own words.
type adminError struct {
	status int
	text   string
}

func (e *adminError) Error() string { return strings.TrimSpace(e.text) }

// withPatience adds to a query how long the node may take: less than ctx, so that its reason
// gets here in time.
func withPatience(ctx context.Context, query url.Values) url.Values {
	if end, ok := ctx.Deadline(); ok {
		query.Set("timeout", (time.Until(end) * 9 / 10).String())
	}
	return query
}
