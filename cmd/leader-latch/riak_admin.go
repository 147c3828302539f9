package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"leaderlatch/cmd/leader-latch/status"
)

func riakAdmin() riakProgram {
	return riakProgram{
		name:    "riak-admin",
		short:   "Riak's commands for operators",
		unknown: exitFailed,
		commands: []riakCommand{
			{"ensemble-status", "[<ensemble>]", "print the report on the consensus system", (*riak).ensembleStatus},
			{"member-status", "", "list the nodes of the cluster", printRing((*status.Ring).MemberStatus)},
			{"ring-status", "", "say who makes changes, and which nodes are down", printRing((*status.Ring).RingStatus)},
			{"cluster status", "", "list the nodes of the cluster in short", printRing((*status.Ring).ClusterStatus)},
			{"cluster join", "<node>", "stage that this node joins the cluster of another", stage("join")},
			{"cluster leave", "[<node>]", "stage that this node, or another, leaves", stage("leave")},
			{"cluster force-remove", "<node>", "stage that a dead node is removed", stage("force-remove")},
			{"cluster plan", "", "show the staged changes; needed before commit", stage("plan")},
			{"cluster commit", "", "carry the staged changes out", stage("commit")},
			{"cluster clear", "", "forget the staged changes", stage("clear")},
			{"services", "", "[leader_latch] if a JOIN would succeed", (*riak).services},
			{"wait-for-service", "<service> [<node>]", "wait until leader_latch is up", (*riak).waitForService},
			{"test", "", "join a group at this node's first listener", (*riak).test},
		},
		elsewhere: elsewhere([]string{
			"backup", "restore", "reip", "js-reload", "erl-reload", "ringready", "transfers", "down", "vnode-status",
			"aae-status", "diag", "stat", "status", "transfer-limit", "reformat-indexes", "top", "downgrade-objects",
			"security", "bucket-type", "repair-2i", "search", "handoff", "set", "show", "describe", "cluster-info",
			"cluster partitions", "cluster partition", "cluster partition-count",
		}, map[string]string{
			"join":                  "use riak-admin cluster join",
			"leave":                 "use riak-admin cluster leave",
			"remove":                "use riak-admin cluster leave, or cluster force-remove for a node that is dead",
			"force-remove":          "use riak-admin cluster force-remove",
			"cluster replace":       "let the new node join and the old one leave; there are no data to move",
			"cluster force-replace": "let the new node join, and force-remove the old one",
			"down":                  "a dead node needs no mark; it is removed by riak-admin cluster force-remove",
			"status":                "use riak-admin ensemble-status, or leader-latch groups",
		}),
	}
}

func (r *riak) ensembleStatus(ctx context.Context, args []string) int {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var s ensembleStatus
	if err := r.node.get(ctx, "/ensemble-status", nil, &s); err != nil {
		return r.failed(err)
	}
	print := s.Report.Summary
	if len(args) == 1 {
		print = func(w io.Writer) error { return s.Report.Detail(w, args[0]) }
	}
	return r.failed(print(r.stdout))
}

// failed prints an error, if it is one, as riak-admin does, and gives the code.
func (r *riak) failed(err error) int {
	var refused *adminError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &refused): // the node runs, and failed
		fmt.Fprintf(r.stderr, "RPC to '%s' failed: %v\n", r.conf.NodeName, err)
		return exitFailed
	}
	return r.nodeError(err)
}

// printRing is a command that prints the membership.
func printRing(print func(*status.Ring, io.Writer) error) func(*riak, context.Context, []string) int {
	return func(r *riak, ctx context.Context, _ []string) int {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		var ring status.Ring
		if err := r.node.get(ctx, "/ring", nil, &ring); err != nil {
			return r.failed(err)
		}
		return r.failed(print(&ring, r.stdout))
	}
}

// stage is a command that the node answers, with the one that keeps what is staged.
func stage(what string) func(*riak, context.Context, []string) int {
	return func(r *riak, ctx context.Context, args []string) int {
		query := url.Values{}
		if len(args) == 1 {
			query.Set("node", args[0])
		}
		ctx, cancel := context.WithTimeout(ctx, time.Minute) // a commit waits for the cluster
		defer cancel()
		var a stagingAnswer
		if err := r.node.post(ctx, "/staging/"+what, query, &a); err != nil {
			return r.failed(err)
		}
		io.WriteString(r.stdout, a.Text)
		if a.Reason != "" {
			fmt.Fprintln(r.stderr, a.Reason)
		}
		return a.Code
	}
}

const theService = "leader_latch"

// ready asks whether a JOIN succeeds within the time.
func (r *riak) ready(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within+askTimeout)
	defer cancel()
	return r.node.get(ctx, "/wait", url.Values{"timeout": {within.String()}}, nil)
}

func (r *riak) services(ctx context.Context, _ []string) int {
	if !r.running(ctx) {
		return r.notResponding()
	}
	up := theService
	if r.ready(ctx, time.Second) != nil {
		up = ""
	}
	fmt.Fprintf(r.stdout, "[%s]\n", up)
	return exitOK
}

// waitForService waits as long as it takes, as Riak does.
func (r *riak) waitForService(ctx context.Context, args []string) int {
	if args[0] != theService {
		fmt.Fprintf(r.stdout, "There is no service %s here, only %s\n", args[0], theService)
		return exitFailed
	}
	const pause = 3 * time.Second
	for {
		begun := time.Now()
		if r.ready(ctx, pause) == nil {
			fmt.Fprintf(r.stdout, "%s is up\n", theService)
			return exitOK
		}
		fmt.Fprintf(r.stdout, "%s is not up: []\n", theService)
		select {
		case <-time.After(pause - time.Since(begun)):
		case <-ctx.Done():
			return exitFailed
		}
	}
}

// test does what a client does: it joins a group of its own at the first
// listener and must become its leader.
func (r *riak) test(ctx context.Context, _ []string) int {
	if !r.running(ctx) {
		fmt.Fprintln(r.stderr, "Node is not running!")
		return exitFailed
	}
	if err := r.joinOnce(ctx); err != nil {
		fmt.Fprintf(r.stdout, "Failed: %v\n", err)
		return exitFailed
	}
	fmt.Fprintf(r.stdout, "Successfully completed 1 read/write cycle to '%s'\n", r.conf.NodeName)
	return exitOK
}

func (r *riak) joinOnce(ctx context.Context) error {
	if len(r.conf.Listeners) == 0 {
		return fmt.Errorf("%s has no listener.leader_latch.<name> line", r.conf.Path)
	}
	address := r.conf.Listeners[0].Address()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(askTimeout))
	me := fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano())
	fmt.Fprintf(c, "JOIN %s %s\n", me, me)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no answer from %s: %w", address, err)
	}
	if words := strings.Fields(line); !slices.Contains([]int{2, 3}, len(words)) || words[0] != "LEADER" || words[1] != me {
		return fmt.Errorf("%s answers %q", address, strings.TrimSpace(line))
	}
	return nil
}
