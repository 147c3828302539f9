package main

import (
	"fmt"
	"io"
	"strings"
)

// A logLine is a line of the service's log that an operator may ask about.
type logLine struct {
	lines string // as they begin in the log, each in backticks, or words about them
	means string
	do    string // by a person; empty: nothing
}

// logLines is the one source of what the documents and the man page say of the log: all
// warnings and errors, and the lines of an ordinary life that are asked about.
var logLines = []logLine{
	{"`starting`, `started`", "the state is read, and the cluster talked to; clients are served", ""},
	{"`elections are active`, `session opened`", "with both, JOINs are answered from here on", ""},
	{"`elections are not active yet`", "the cluster is smaller than `leader_latch.minimum_nodes` and has always been", "join more nodes, or set `leader_latch.minimum_nodes` to how many there shall be"},
	{"`session lost: closing its connections`", "renewals were not committed in time: no majority, or the disk or the process stalled; the node opens a new session by itself", "if it comes again: a machine with less to do, a faster disk, or `leader_latch.timing` = calm on all nodes"},
	{"`raft leader`, `follows the raft leader`", "which node appends to the log; no client notices when that changes", ""},
	{"`the process of the raft leader has ended: standing for election`", "this node is to append to the log in its place", "if nobody has stopped that node: see there why it has ended"},
	{"`no raft leader`", "a majority of the nodes cannot be reached, or is just electing one", "if it lasts: start the nodes that are down, or mend the network; `leader-latch recover` where they are lost for good"},
	{"`a node does not answer`, `answers again`", "seen by the raft leader", "if it stays silent: look at that node and the network; `cluster force-remove` if it is lost for good"},
	{"`a node has been silent for too long: expiring its session`", "it is dead or cut off; groups whose leader was connected to it are led by others from here on, but those of keyed leaders that have come back elsewhere", "look at that node and the network"},
	{"`this node is in no cluster yet, trying on`", "the node is joining a cluster, and says what it waits for", "what the reason says; `cluster leave` gives it up"},
	{"`this node's cluster has been given up`", "another member was recovered without this node (`leader-latch recover`): this node is a stranger there", "what the reason says"},
	{"`the cluster was recovered`", "by `leader-latch recover`: JOINs are refused until the leases of the lost nodes have ended, for 7 s at least", "start the lost nodes with an empty state folder only"},
	{"`refused a connection to the cluster port`", "with the reason: another cookie, another cluster, a client at the wrong port, a node that was removed", "the same `distributed_cookie` on all nodes; clients to the port of a `listener.leader_latch`; stop what does not belong there"},
	{"`a node has another cookie`", "that node and this one do not let each other in", "the same `distributed_cookie` on all nodes, or, while it is changed, the step before on the node that is behind"},
	{"`took the cookies of riak.conf`", "by `cluster cookie`, and which step of a change that was; none: it had these", ""},
	{"`the cluster port cannot accept connections, trying again`, `connections cannot be accepted, trying again`", "mostly too many open files, in this process or on the machine", "raise `LimitNOFILE` of the unit, or fs.file-max"},
	{"`a new node takes the place of one of the same name, which is dead`", "a machine was replaced under its old name", ""},
	{"`nodes have different leader_latch.timing`", "each judges the others by its own", "make it the same on all"},
	{"`the formats of what nodes write have a new level`", "after an upgrade of all nodes, and at the first start of a new cluster: from here on none can go back to an older version", ""},
	{"`leader_latch.format_level has no effect`", "the cluster writes a higher level already, and that never falls", "take the key out"},
	{"`leader changed`", "with `leader_latch.log.elections` = on: a group's leader, by the state that this node applied", ""},
	{"`too many changes of leaders at once`", "as many lines of `leader changed` are missing as this line says", "look at the logs of the other nodes, or at `groups`"},
	{"`JOIN waits`", "two clients have one name; the second waits until the first leaves; the line names the node to which the first is connected", "if clients shall be different members: different names"},
	{"`JOIN refused`, `OBSERVE refused`", "with the reason, as far as this node knows it", "what the reason says"},
	{"`a leader is to step down`", "by `leader-latch step-down`, with the group and the token of its leadership", ""},
	{"`a client speaks another protocol`", "with the reason: the PROXY protocol, TLS or HTTP at the port of a `listener.leader_latch`; it is answered `ERROR` as any other line is", "what the reason says"},
	{"`connection limit reached`", "as many clients are connected as this node takes", "raise `leader_latch.max_connections` or the limit of open files, or send clients to other nodes"},
	{"`fewer connections are served than leader_latch.max_connections says`", "it names the limit that is lower, and the number to set", "set it, or lower `leader_latch.max_connections`"},
	{"`idle connections take more memory than they need`", "the kernel does not let the process watch them together", "raise fs.epoll.max_user_watches"},
	{"`stuck reader closed`", "a client did not take what it was told", "look at that client"},
	{"`connection is not a TCP connection`, `connection has no descriptor`", "a fault of this program", "report it, with the line"},
	{"`the disk hangs: no raft leader until it answers`", "a write of the log waits for the disk; the node ends if that lasts", "look at the disk of the state folder"},
	{"`the newest snapshot cannot be read`", "the node goes on from the one before it, or takes a new one", "if it comes again, replace the disk"},
	{"`old snapshots cannot be removed`", "the state folder grows meanwhile", "look at the disk, its free space and the owner of the state folder"},
	{"`Raft goes on with its settings`", "a change of settings while it runs was refused; the node serves on", "restart the node when that suits"},
	{"`a node sends proposals that cannot be read`, `refused a proposal of another node`", "that node is of another version, or faulty", "look at that node's version in `cluster status`"},
	{"`the data folder ... was removed, moved away or replaced`", "part of `cannot serve`, at most 5 s after the removal: the node has closed its clients' connections and ended with exit code 3, because no restart would find what it writes there", "put the folder back, or decide that it is lost; then start the node"},
	{"`the admin socket was removed, and has been made again`, `the admin socket was removed, and cannot be made again yet`", "somebody, or something that cleans up, has removed `admin.sock`; commands fail until it is there again", "keep cleaners out of the state folder"},
	{"`should this process be killed while its disk hangs`", "the kernel forbids what would close the connections at once in that case", "allow it, as the error says, where a leader must never be believed too long"},
	{"`configuration: `", "a setting that is probably a mistake, with file, line and cure", "what it says; `leader-latch chkconfig` says it again"},
	{"`log file cannot be rotated and goes on growing`, `log file cannot be opened again; the old one stays in use`", "the log folder has another owner, or is gone", "give the folder to the user of the service; then SIGHUP"},
	{"`the log could not be written in time`", "a full disk, a pipe that nobody reads or a syslog that hangs has cost lines", "look at the place that is named"},
	{"`the process before did not end in order`", "the first line of a start: the process before was killed, crashed, lost its machine or had its data folder taken away", "look for the cause in crash.log, the journal and the kernel's log"},
	{"`waiting for another process to let go of the data folder`", "the other process is still ending, or two processes were started on one folder; the second gives up after 5 s", "start one only, or give each a `platform_data_dir`"},
	{"no line at the end, and the process was killed", "it was stopped or stalled beyond its lease, and the dead-man's switch closed its connections (`leader_latch.dead_man_switch`); it starts anew", "if it comes again: a machine with less to do, a faster disk, or `leader_latch.timing` = calm on all nodes"},
	{"`cannot serve`", "the process ends, and why; with exit code 3 the unit does not start it again", "after exit code 3: do what the error says, then start it"},
}

// texts are the beginnings of log lines that the entry names, without backticks. Where
// one has "...", something stands between.
func (l logLine) texts() (all []string) {
	for i, part := range strings.Split(l.lines, "`") {
		if i%2 == 1 {
			all = append(all, part)
		}
	}
	return all
}

// manLogLines writes the lines that ask a person for something.
func manLogLines(w io.Writer) {
	manSection(w, "LOG LINES", "These lines ask for an action. Each begins so, behind its time and level.")
	plain := strings.NewReplacer("`", "").Replace
	for _, l := range logLines {
		if l.do != "" {
			manItem(w, plain(l.lines), fmt.Sprintf("%s. To do: %s.", upperFirst(plain(l.means)), plain(l.do)))
		}
	}
}

func upperFirst(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
