package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"leaderlatch/ensemble"
	"leaderlatch/riakconf"
)

// clusterWords are what cluster can do, as usage and errors have it.
const clusterWords = "join NODE | leave [NODE] | force-remove NODE | cookie | status"

var clusterCommand = command{
	name:  "cluster",
	args:  clusterWords,
	short: "form and change the cluster",
	long: `join NODE           has the node of this machine join the cluster of NODE
                    (riak@host, or riak@host:port where its cluster port is
                    another than this node's). Its own state is set aside; it
                    must not have other nodes. A cluster without a majority is
                    not joined, and the node stays as it is. If it is not let in
                    within --timeout, it goes on asking; leave gives that up.
leave [NODE]        has the node, or another one that lives, leave in order: its
                    clients are closed and their groups led by others before it
                    goes. It then runs on, alone.
force-remove NODE   takes out a node that is dead. Should it come back, it stops
                    with exit code 3. One that is up is refused, as leave has it
                    go in order, unless --yes is given.
cookie              has the node take distributed_cookie and
                    leader_latch.second_cookie from riak.conf, without a restart.
                    If any member would be cut off, it keeps those that it has,
                    and names each such member.
status              lists the members: which are up, which vote, which is the
                    raft leader, which level of formats each reads and allows, and
                    which version of the program it runs; and whether nodes can
                    still go back to an older one. The same as member-status.

Without a majority nothing is begun, and that is said within 5 s.
Returns when it is done, so that the next command finds it so, and with 1 when it
is not within --timeout.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		timeout := timeoutFlag(fs)
		asJSON := fs.Bool("json", false, "of status: print JSON")
		yes := fs.Bool("yes", false, "of force-remove: also a node that is up")
		return func(ctx context.Context, config string, args []string) int {
			if len(args) == 0 {
				return e.usageError("cluster", "what to do is missing, one of %s", choices(strings.Split(clusterWords, " | ")...))
			}
			ctx, cancel := context.WithTimeout(ctx, *timeout)
			defer cancel()
			switch what, args := args[0], args[1:]; {
			case *yes && what != "force-remove":
				return e.usageError("cluster", "--yes is for force-remove")
			case what == "status" && len(args) == 0:
				return e.clusterStatus(ctx, config, *asJSON)
			case *asJSON:
				return e.usageError("cluster", "--json is for status")
			case what == "join" && len(args) == 1:
				return e.clusterJoin(ctx, config, args[0])
			case what == "leave" && len(args) <= 1:
				return e.clusterChange(ctx, config, "leave", append(args, "")[0], "has left the cluster", nil)
			case what == "cookie" && len(args) == 0:
				return e.clusterCookie(ctx, config)
			case what == "force-remove" && len(args) == 1:
				allowed := refuseUp
				if *yes {
					allowed = nil
				}
				return e.clusterChange(ctx, config, "force-remove", args[0], "was removed from the cluster", allowed)
			case what == "join" || what == "force-remove":
				return e.usageError("cluster", "%s needs one node, as in cluster %s riak@192.0.2.1", what, what)
			case what == "status" || what == "leave" || what == "cookie":
				return e.usageError("cluster", "unknown argument %q", args[len(args)-1])
			default:
				return e.usageError("cluster", "unknown word %q, write %s", what, choices(strings.Split(clusterWords, " | ")...))
			}
		}
	},
}

var memberStatusCommand = command{
	name:  "member-status",
	short: "list the nodes of the cluster",
	long: `Lists the members of the cluster: which are up, which vote, which is the raft
leader, which level of formats each reads and allows, and which version of the
program it runs; and whether nodes can still go back to an older one. A node
that does not answer within a second is down.`,
	setup: func(e *env, fs *pflag.FlagSet) func(context.Context, string, []string) int {
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, config string, args []string) int {
			if len(args) > 0 {
				return e.usageError("member-status", "unknown argument %q", args[0])
			}
			ctx, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			return e.clusterStatus(ctx, config, *asJSON)
		}
	},
}

func (e *env) clusterJoin(ctx context.Context, config, to string) int {
	n, err := riakconf.ParseNode(to)
	if err != nil {
		return e.usageError("cluster", "%v", err)
	}
	conf, code := e.load(config)
	if conf == nil {
		return code
	}
	if n.Port == 0 {
		n.Port = conf.ClusterListener.Port
	}
	if at := conf.ClusterAddress().Host; riakconf.Loopback(at) && !riakconf.Loopback(n.Host) {
		fmt.Fprintf(e.stderr, "warning: %s: other machines cannot reach this node at %s, so it would be a member that is down; put this machine's address behind the @\n", conf.Where("nodename"), at)
	}
	a := newAdmin(conf)
	said, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(said)
		e.sayWaits(ctx, a, done)
	}()
	err = a.post(ctx, "/cluster/join", withPatience(ctx, url.Values{"node": {n.Name}, "address": {placeOf(n).Address}}), nil)
	close(done)
	<-said
	if err != nil {
		return e.orderError(err)
	}
	fmt.Fprintf(e.stdout, "Success: %s has joined the cluster of %s\n", conf.NodeName, n.Name)
	return exitOK
}

// waitsQuietly is how long a join may take before the command says what it waits for.
const waitsQuietly = 3 * time.Second

// sayWaits says what keeps the node from being let in, once for each reason, until done.
func (e *env) sayWaits(ctx context.Context, a *admin, done <-chan struct{}) {
	said := ""
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-time.After(waitsQuietly):
		}
		var c ensemble.Cluster
		if err := a.get(ctx, "/cluster", nil, &c); err != nil || c.Joining == "" || c.Waits == "" || c.Waits == said {
			continue
		}
		said = c.Waits
		fmt.Fprintf(e.stderr, "waiting: %s\nCtrl-C ends the wait; the node goes on asking until leader-latch cluster leave\n", oneLine(said))
	}
}

// refuseUp refuses to remove a member that is up: its clients would be thrown off, and its
// process ends for good. Where a removal cannot be at all, the node says so.
func refuseUp(c ensemble.Cluster, node string) error {
	for _, m := range c.Members {
		if m.Name == node && m.Up && c.Majority && len(c.Members) > 1 {
			return fmt.Errorf("%s is up; cluster leave %s has it go in order, and cluster force-remove --yes %s removes it all the same", node, node, node)
		}
	}
	return nil
}

// oneLine is a text of several reasons, a line each, as one.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

// clusterChange orders a change about a node, "" for the local one. If the cluster as it
// is has to allow it, allowed gives an error where it does not.
func (e *env) clusterChange(ctx context.Context, config, what, node, done string, allowed func(c ensemble.Cluster, node string) error) int {
	if node != "" {
		n, err := riakconf.ParseNode(node)
		if err != nil {
			return e.usageError("cluster", "%v", err)
		}
		node = n.Name
	}
	conf, code := e.load(config)
	if conf == nil {
		return code
	}
	a := newAdmin(conf)
	if allowed != nil {
		var c ensemble.Cluster
		if err := a.get(ctx, "/cluster", nil, &c); err != nil {
			return e.orderError(err)
		}
		if err := allowed(c, node); err != nil {
			return e.fail(exitFailed, err)
		}
	}
	if err := a.post(ctx, "/cluster/"+what, withPatience(ctx, url.Values{"node": {node}}), nil); err != nil {
		return e.orderError(err)
	}
	if node == "" {
		node = conf.NodeName
	}
	fmt.Fprintf(e.stdout, "Success: %s %s\n", node, done)
	return exitOK
}

// orderError prints why an order was not carried out, or is not yet.
func (e *env) orderError(err error) int {
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("the node does not say within --timeout what came of it; cluster status tells how it is")
	}
	return e.nodeError(err)
}

func (e *env) clusterStatus(ctx context.Context, config string, asJSON bool) int {
	conf, code := e.load(config)
	if conf == nil {
		return code
	}
	var c ensemble.Cluster
	if err := newAdmin(conf).get(ctx, "/cluster", nil, &c); err != nil {
		return e.nodeError(err)
	}
	print := func() error { return printCluster(e.stdout, c) }
	if asJSON {
		print = func() error { return e.printJSON(c) }
	}
	if err := print(); err != nil {
		return e.fail(exitFailed, err)
	}
	for _, hint := range clusterHints(c, conf.NodeName) {
		fmt.Fprintln(e.stderr, hint)
	}
	return exitOK
}

// clusterHints is what an operator may want to do about the cluster of the node self.
func clusterHints(c ensemble.Cluster, self string) (hints []string) {
	isIn := func(m ensemble.ClusterMember) bool { return m.Name == self && m.Session }
	if c.Joining != "" && !slices.ContainsFunc(c.Members, isIn) { // else it has been let in, and notes that just now
		hints = append(hints, fmt.Sprintf("this node asks to be let into the cluster of %s, and goes on asking; leader-latch cluster leave gives that up", c.Joining))
	}
	if c.Waits != "" && !c.Majority {
		hints = append(hints, "it waits: "+oneLine(c.Waits))
	}
	if len(c.Members) > 0 && !c.Majority {
		hints = append(hints, "no majority of the voters follows one raft leader: nobody is elected")
	}
	hints = append(hints, whyDown(c)...)
	for _, node := range slices.Sorted(maps.Keys(c.Away)) {
		hints = append(hints, fmt.Sprintf("keyed members of %s, which was stopped or started again, have not come back yet: %d", node, c.Away[node]))
	}
	for _, m := range c.Members {
		if m.Timing != "" && m.Timing != c.Members[0].Timing && c.Members[0].Timing != "" {
			hints = append(hints, fmt.Sprintf("leader_latch.timing differs: %s on %s, %s on %s; make it the same", c.Members[0].Timing, c.Members[0].Name, m.Timing, m.Name))
			break
		}
	}
	return hints
}

// whyDown is of each member that is down why it does not answer.
func whyDown(c ensemble.Cluster) (all []string) {
	for _, m := range c.Members {
		if m.Silent != "" {
			all = append(all, m.Name+" does not answer: "+oneLine(m.Silent))
		}
	}
	return all
}

func printCluster(w io.Writer, c ensemble.Cluster) error {
	if len(c.Members) == 0 {
		fmt.Fprintln(w, "This node is in no cluster yet.")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tSTATE\tVOTES\tROLE\tADDRESS\tREADS\tVERSION")
	for _, m := range c.Members {
		state, votes, role := "up", "yes", "follower"
		if !m.Up {
			state, role = "down", "--"
		}
		if !m.Voter {
			votes = "no"
		}
		if m.RaftLeader {
			role = "raft leader"
		}
		reads, version := "--", "--"
		switch {
		case m.Allows > 0 && m.Allows < m.Reads:
			reads = fmt.Sprintf("%d, held at %d", m.Reads, m.Allows)
		case m.Reads > 0:
			reads = strconv.FormatUint(m.Reads, 10)
		}
		if m.Up {
			version = cmp.Or(m.Version, "older")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, state, votes, role, m.Address, reads, version)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", formatsText(c))
	return err
}

// formatsText says at which level the formats are, and what follows for going back.
func formatsText(c ensemble.Cluster) string {
	switch {
	case c.Newest == 0:
		return "This node runs an older version, which does not say at which level the formats are."
	case c.Level >= c.Newest:
		return fmt.Sprintf("The formats have level %d, the newest: no node can go back to an older version.", c.Level)
	}
	text := fmt.Sprintf("The formats have level %d of %d: every node can still go back to a version that has level %d.", c.Level, c.Newest, c.Level)
	var holding []string
	for _, m := range c.Members {
		if slices.Contains(c.Holding, m.Name) {
			holding = append(holding, m.Name+" ("+holds(m, c.Level)+")")
		}
	}
	if len(holding) > 0 {
		text += fmt.Sprintf(" That ends when all nodes are up, read level %d and allow it; not yet: %s.", c.Level+1, strings.Join(holding, ", "))
	}
	return text
}

// holds is why the level does not rise because of a member.
func holds(m ensemble.ClusterMember, level uint64) string {
	switch {
	case !m.Up:
		return "down"
	case m.Reads <= level:
		return "older version"
	case m.Allows > 0 && m.Allows <= level:
		return "leader_latch.format_level"
	}
	return "no session yet"
}
