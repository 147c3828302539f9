package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"leaderlatch/ensemble/clusterport"
	"leaderlatch/riakconf"
)

// cookies are the secrets of the cluster port: that by which a node proves itself, and
// another one that it accepts while the cookie is changed.
type cookies struct {
	Cookie string `json:"cookie"`
	Second string `json:"second,omitempty"`
}

// maxCookies bounds what a command tells of them.
const maxCookies = 64 << 10

func cookiesOf(conf *riakconf.Config) cookies {
	c := cookies{conf.Cookie, conf.SecondCookie}
	if c.Second == c.Cookie {
		c.Second = ""
	}
	return c
}

// key gives the key of the cluster port.
func (c cookies) key(derive func(cookie string) (*clusterport.Key, error)) (*clusterport.Key, error) {
	key, err := derive(c.Cookie)
	if err != nil || c.Second == "" {
		return key, err
	}
	second, err := derive(c.Second)
	if err != nil {
		return nil, err
	}
	return key.Accepting(second), nil
}

// step says which step of a change leads from these cookies to others, by the numbers that
// packaging/OPERATING.md gives the steps.
func (c cookies) step(to cookies) string {
	switch {
	case to == c:
		return "none: the node had these"
	case to.Cookie == c.Cookie && to.Second != "":
		return "1: it accepts another one, too"
	case to == cookies{c.Second, c.Cookie}:
		return "2: it uses the other one"
	case to.Cookie == c.Cookie:
		return "3: it accepts the other one no more"
	}
	return "several at once"
}

// clusterCookie has the node take the cookies that riak.conf has now.
func (e *env) clusterCookie(ctx context.Context, config string) int {
	conf, warnings, err := riakconf.Load(config)
	if err != nil {
		return e.problems(exitPermanent, nil, err)
	}
	e.warnings(warnings) // the node has not seen this file: what is taken may not be what was meant
	body, err := json.Marshal(cookiesOf(conf))
	if err != nil {
		return e.fail(exitFailed, err)
	}
	if err := newAdmin(conf).send(ctx, "/cluster/cookie", withPatience(ctx, url.Values{}), bytes.NewReader(body)); err != nil {
		return e.orderError(err)
	}
	fmt.Fprintf(e.stdout, "Success: %s has the cookie of %s\n", conf.NodeName, conf.Path)
	return exitOK
}
