package riakconf

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Key is one row of the schema.
type Key struct {
	Name    string // $name stands for exactly one word (riak.conf rule 52)
	Type    Type
	Default string // as it would stand in the file; "" is none, or see Note
	Note    string // how the default comes about where it is not a fixed text
	Help    string // one line
	Foreign bool   // Riak's alone: known for references and for Effective, never judged

	secret  bool                   // no flag sets it: everybody on a machine sees those
	idle    bool                   // its value has to fit, and has no effect but on references
	field   func(*Config) any      // where its value goes; nil if it is idle, or config.go sees to it
	derived func(c *Config) string // the default, where it depends on other settings
}

// Flag is the name of the flag of serve that sets the key, without dashes, or
// "" if there is none: the settings of this service's own have one, Riak's,
// secrets and those for each listener have none.
func (k Key) Flag() string {
	name, own := strings.CutPrefix(k.Name, ownPrefix)
	if !own || k.secret || strings.Contains(name, "$") {
		return ""
	}
	return strings.ReplaceAll(name, "_", "-")
}

// judged reports whether a value that does not fit is refused, by the row alone.
func (k Key) judged() bool { return k.field != nil || k.idle }

// Keys is the schema: every key that this service reads, in the order in
// which a reader would want them, Riak's before its own.
func Keys() []Key { return slices.Clone(schema) }

// The parts of keys that occur outside the table.
const (
	ownPrefix        = "leader_latch."
	listenerPrefix   = "listener.leader_latch."
	fencingPrefix    = "leader_latch.fencing."
	extensionsPrefix = "leader_latch.extensions."

	keyNodename          = "nodename"
	keyCookie            = "distributed_cookie"
	keyStrongConsistency = "strong_consistency"
	keyPortMaximum       = "erlang.distribution.port_range.maximum"
	keyPortMinimum       = "erlang.distribution.port_range.minimum"
	keySecondCookie      = "leader_latch.second_cookie"
	keyClusterListener   = "leader_latch.cluster_listener"
	keyMinimumNodes      = "leader_latch.minimum_nodes"
	keyJoin              = "leader_latch.join"
	keyJoinTimeout       = "leader_latch.join_timeout"
	keyVoters            = "leader_latch.voters"
	keyFormatLevel       = "leader_latch.format_level"

	defaultCookie = "riak"
)

// NewestFormatLevel is the highest leader_latch.format_level: the newest level of formats
// that the service writes.
const NewestFormatLevel = 3

var (
	levels     = []string{"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency", "none"}
	facilities = []string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "clock", "authpriv", "ftp", "cron",
		"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}
)

var schema = []Key{
	// Riak's keys that have a meaning here.
	{Name: keyNodename, Type: nodeType, Default: "riak@127.0.0.1",
		Help:  "the node's name in the cluster; other nodes reach it at the host behind the @",
		field: func(c *Config) any { return &c.NodeName }},
	{Name: keyCookie, Type: textType, Default: defaultCookie,
		Help:  "the secret that all nodes of a cluster share",
		field: func(c *Config) any { return &c.Cookie }},
	{Name: keyStrongConsistency, Type: flagType, Default: "off",
		Help:  "on: the node elects; off: it runs, but refuses every JOIN",
		field: func(c *Config) any { return &c.StrongConsistency }},
	{Name: listenerPrefix + "$name", Type: addressType, Note: "none",
		Help: "where clients connect: one address for each name"},
	{Name: keyPortMaximum, Type: numberType, Note: "none",
		Help:  "the default port of the cluster listener",
		field: func(c *Config) any { return &c.portMaximum }},
	{Name: keyPortMinimum, Type: numberType, Note: "none",
		Help:  "the default port of the cluster listener if no maximum is set",
		field: func(c *Config) any { return &c.portMinimum }},
	{Name: "platform_bin_dir", Type: folderType, Default: "/usr/sbin",
		Help: "Riak's programs; only values with $(platform_bin_dir) use it",
		idle: true},
	{Name: "platform_data_dir", Type: folderType, Default: "/var/lib/riak",
		Help:  "data; this service keeps its own in the folder leader_latch below it",
		field: func(c *Config) any { return &c.PlatformDataDir }},
	{Name: "platform_etc_dir", Type: folderType, Default: "/etc/riak",
		Help: "configuration; only values with $(platform_etc_dir) use it",
		idle: true},
	{Name: "platform_lib_dir", Type: folderType, Default: "/usr/lib/riak/lib",
		Help: "Riak's libraries; only values with $(platform_lib_dir) use it",
		idle: true},
	{Name: "platform_log_dir", Type: folderType, Default: "/var/log/riak",
		Help:  "log files",
		field: func(c *Config) any { return &c.PlatformLogDir }},
	{Name: "ssl.certfile", Type: fileType, Note: "none",
		Help: "Riak's TLS certificate; only values with $(ssl.certfile) use it",
		idle: true},
	{Name: "ssl.keyfile", Type: fileType, Note: "none",
		Help: "its private key; only values with $(ssl.keyfile) use it",
		idle: true},
	{Name: "ssl.cacertfile", Type: fileType, Note: "none",
		Help: "the certificates of its authority; only values with $(ssl.cacertfile) use it",
		idle: true},

	// Logs (riak.conf rules 57 to 61).
	{Name: "log.console", Type: oneOf("off", "file", "console", "both"), Default: "file",
		Help:  "where the log goes: log.console.file, the console, both or nowhere",
		field: func(c *Config) any { return &c.Log.Console }},
	{Name: "log.console.level", Type: oneOf(levels...), Default: "info",
		Help:  "the lowest level that this log has; none: no messages",
		field: func(c *Config) any { return &c.Log.ConsoleLevel }},
	{Name: "log.console.file", Type: fileType, Default: "$(platform_log_dir)/console.log",
		Help:  "the log file",
		field: func(c *Config) any { return &c.Log.ConsoleFile }},
	{Name: "log.error.file", Type: fileType, Default: "$(platform_log_dir)/error.log",
		Help:  "the log file for errors and worse, whatever log.console says",
		field: func(c *Config) any { return &c.Log.ErrorFile }},
	{Name: "log.syslog", Type: flagType, Default: "off",
		Help:  "on: messages go to syslog too",
		field: func(c *Config) any { return &c.Log.Syslog }},
	{Name: "log.syslog.ident", Type: textType, Default: "riak",
		Help:  "the name of the service in syslog",
		field: func(c *Config) any { return &c.Log.SyslogIdent }},
	{Name: "log.syslog.facility", Type: oneOf(facilities...), Default: "daemon",
		Help:  "the facility in syslog",
		field: func(c *Config) any { return &c.Log.SyslogFacility }},
	{Name: "log.syslog.level", Type: oneOf(levels...), Default: "info",
		Help:  "the lowest level that goes to syslog",
		field: func(c *Config) any { return &c.Log.SyslogLevel }},
	{Name: "log.crash", Type: flagType, Default: "on",
		Help:  "on: log.crash.file has what Go prints when the process crashes",
		field: func(c *Config) any { return &c.Log.Crash }},
	{Name: "log.crash.file", Type: fileType, Default: "$(platform_log_dir)/crash.log",
		Help:  "the file for crashes, rotated when the service starts",
		field: func(c *Config) any { return &c.Log.CrashFile }},
	{Name: "log.crash.maximum_message_size", Type: sizeType, Default: "64KB",
		Help: "not used: a crash is written in full",
		idle: true},
	{Name: "log.crash.size", Type: sizeType, Default: "10MB",
		Help:  "log.crash.file is rotated when it has this size; 0: never for its size",
		field: func(c *Config) any { return &c.Log.CrashSize }},
	{Name: "log.crash.rotation", Type: textType, Default: "$D0",
		Help:  "$D...: log.crash.file is rotated when it is of another day; other schedules are not used",
		field: func(c *Config) any { return &c.Log.CrashRotation }},
	{Name: "log.crash.rotation.keep", Type: Type{kind: kindKeep}, Default: "5",
		Help:  "how many rotated crash logs are kept; current: none",
		field: func(c *Config) any { return &c.Log.CrashKeep }},

	// Riak's keys that an operator may look for beside these.
	foreign("log.error.messages_per_second", "100"),
	foreign("log.error.redirect", "on"),
	foreign("handoff.ip", "0.0.0.0"),
	foreign("handoff.port", "8099"),
	foreign("ring.state_dir", "$(platform_data_dir)/ring"),
	foreign("tls_protocols.sslv3", "off"),
	foreign("tls_protocols.tlsv1", "off"),
	foreign("tls_protocols.tlsv1.1", "off"),
	foreign("tls_protocols.tlsv1.2", "on"),

	// Settings of this service's own.
	{Name: keySecondCookie, Type: textType, Note: "none",
		Help:   "nodes with this distributed_cookie are let in, too, while the cookie is changed node by node",
		secret: true,
		field:  func(c *Config) any { return &c.SecondCookie }},
	{Name: keyClusterListener, Type: Type{kind: kindAddress, port: clusterPort}, Note: "nodename's host, port 5324 (or erlang.distribution.port_range.maximum, .minimum)",
		Help:  "where nodes talk to each other",
		field: func(c *Config) any { return &c.ClusterListener },
		derived: func(c *Config) string {
			if c.ClusterListener.Host == "" {
				return ""
			}
			return c.ClusterListener.String()
		}},
	{Name: keyMinimumNodes, Type: integer(1, math.MaxInt32), Note: "3; 1 if nodename and all listeners are on loopback addresses",
		Help:    "a cluster refuses every JOIN until it has once had so many nodes",
		field:   func(c *Config) any { return &c.MinimumNodes },
		derived: func(c *Config) string { return strconv.Itoa(c.MinimumNodes) }},
	{Name: keyJoin, Type: nodesType, Note: "none",
		Help:  "nodes to join on the very first start",
		field: func(c *Config) any { return &c.Join }},
	{Name: "leader_latch.timing", Type: oneOf("quick", "normal", "calm"), Default: "normal",
		Help:  "how soon the members of a silent node are replaced: after 1.0, 2.4 or 7 seconds",
		field: func(c *Config) any { return &c.Timing }},
	{Name: keyJoinTimeout, Type: duration(time.Millisecond), Note: "3s; 6s with leader_latch.timing = calm",
		Help:    "the longest time until a JOIN is answered",
		field:   func(c *Config) any { return &c.JoinTimeout },
		derived: func(c *Config) string { return strconv.FormatInt(int64(c.JoinTimeout/time.Second), 10) + "s" }},
	{Name: keyVoters, Type: integer(1, math.MaxInt32), Default: "5",
		Help:  "how many nodes vote; further nodes follow",
		field: func(c *Config) any { return &c.Voters }},
	{Name: keyFormatLevel, Type: integer(1, math.MaxInt32), Note: "none",
		Help:  "the highest level of formats to which the cluster may rise while this node is a member, so that nodes can go back to a version of that level; it never lowers the level",
		field: func(c *Config) any { return &c.FormatLevel }},
	{Name: "leader_latch.dead_man_switch", Type: flagType, Default: "on",
		Help:  "on: the kernel kills a process that is stopped or stalls for too long, so that its connections close",
		field: func(c *Config) any { return &c.DeadManSwitch }},
	{Name: fencingPrefix + "$name", Type: flagType, Default: "off",
		Help: "on: the listener of that name answers LEADER <name> <token>"},
	{Name: extensionsPrefix + "$name", Type: flagType, Default: "off",
		Help: "on: clients of the listener of that name may be keyed members, and it answers LEADER <name> <token>"},
	{Name: "leader_latch.log.format", Type: oneOf("text", "json"), Default: "text",
		Help:  "json: what goes to the console and to log files is one JSON object a line; syslog gets text",
		field: func(c *Config) any { return &c.Log.Format }},
	{Name: "leader_latch.log.elections", Type: flagType, Default: "off",
		Help:  "on: each change of a group's leader has a line in the log, at info",
		field: func(c *Config) any { return &c.LogElections }},
	{Name: "leader_latch.max_connections", Type: integer(0, math.MaxInt32), Default: "0",
		Help:  "the most client connections; 0: as many as the limit of open files and the timing allow",
		field: func(c *Config) any { return &c.MaxConnections }},
	{Name: "leader_latch.max_held", Type: integer(1, math.MaxInt32), Default: "20000",
		Help:  "with so many keyed members held whose connections have ended the node takes no further ones; those that come back it takes",
		field: func(c *Config) any { return &c.MaxHeld }},
	{Name: "leader_latch.max_pings", Type: integer(1, 10000), Default: "100",
		Help:  "how many PINGs of a connection are answered in a second; further ones wait",
		field: func(c *Config) any { return &c.MaxPings }},
	{Name: "leader_latch.idle_timeout", Type: duration(time.Millisecond), Default: "60s",
		Help:  "the longest time that a connection may take to join; then it is closed",
		field: func(c *Config) any { return &c.IdleTimeout }},
	{Name: "leader_latch.minimum_free_space", Type: sizeType, Default: "64MB",
		Help:  "with less free space on the disk of its data the node does not start, or stops in order",
		field: func(c *Config) any { return &c.MinimumFree }},
}

func foreign(name, value string) Key {
	return Key{Name: name, Type: textType, Default: value, Foreign: true, Help: "Riak's; not used here"}
}

// row is the row of a key, which may be one that a $name stands for.
func row(key string) (Key, bool) {
	name := key
	for _, prefix := range []string{listenerPrefix, fencingPrefix, extensionsPrefix} {
		if word, ok := strings.CutPrefix(key, prefix); ok && word != "" && wordLen(word) == len(word) {
			name = prefix + "$name"
		}
	}
	k, known := rows()[name]
	return k, known
}

// rows are the rows by name.
var rows = sync.OnceValue(func() map[string]Key {
	byName := make(map[string]Key, len(schema))
	for _, k := range schema {
		byName[k.Name] = k
	}
	return byName
})
