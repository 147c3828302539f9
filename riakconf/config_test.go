package riakconf

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// quiet is a configuration without a warning.
const quiet = `nodename = riak@127.0.0.1
distributed_cookie = 0123456789abcdef
strong_consistency = on
listener.leader_latch.internal = 127.0.0.1:5323
`

// quietly is quiet with lines added, which are the only ones of their keys.
func quietly(added string) string {
	key := func(line string) string { return strings.TrimSpace(strings.Split(line, "=")[0]) }
	set := map[string]bool{}
	for line := range strings.Lines(added) {
		set[key(line)] = true
	}
	var b strings.Builder
	for line := range strings.Lines(quiet) {
		if set[key(line)] {
			line = "# " + line // the numbers of the others stay
		}
		b.WriteString(line)
	}
	return b.String() + added
}

// mustLoad loads a configuration without problems and warnings: quiet, and
// what is added to it.
func mustLoad(t *testing.T, added string, overrides ...Override) *Config {
	t.Helper()
	path := write(t, "riak.conf", quietly(added))
	c, warnings, err := Load(path, overrides...)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, "warnings", messages(path, warnings))
	return c
}

// loadProblems loads a configuration that has problems.
func loadProblems(t *testing.T, path string, overrides ...Override) []string {
	t.Helper()
	c, _, err := Load(path, overrides...)
	var problems Problems
	if !errors.As(err, &problems) || c != nil {
		t.Fatalf("config %v, error %v, want Problems alone", c, err)
	}
	return messages(path, problems)
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, "")
	want := &Config{
		Path:              c.Path,
		NodeName:          "riak@127.0.0.1",
		NodeHost:          "127.0.0.1",
		Cookie:            "0123456789abcdef",
		StrongConsistency: true,
		Listeners: []Listener{{
			Name: "internal", Key: "listener.leader_latch.internal", Host: "127.0.0.1", Port: 5323,
			Position: Position{c.Path, 4},
		}},
		PlatformDataDir: "/var/lib/riak",
		PlatformLogDir:  "/var/log/riak",
		Log: Log{
			Format:  "text",
			Console: "file", ConsoleLevel: "info", ConsoleFile: "/var/log/riak/console.log",
			ErrorFile:   "/var/log/riak/error.log",
			SyslogIdent: "riak", SyslogFacility: "daemon", SyslogLevel: "info",
			Crash: true, CrashFile: "/var/log/riak/crash.log",
			CrashSize: 10 << 20, CrashRotation: "$D0", CrashKeep: 5,
		},
		ClusterListener: Address{"127.0.0.1", 5324},
		MinimumNodes:    1,
		Timing:          "normal",
		JoinTimeout:     3 * time.Second,
		Voters:          5,
		DeadManSwitch:   true,
		MaxHeld:         20000, MaxPings: 100,
		IdleTimeout: time.Minute,
		MinimumFree: 64 << 20,
	}
	c.places = nil // see TestWhere
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if got, want := c.DataDir(), "/var/lib/riak/leader_latch"; got != want {
		t.Errorf("DataDir is %s, want %s", got, want)
	}
}

// everySetting sets every key of the schema, each to something else than its default.
const everySetting = `
nodename = db@2001:0db8::7
distributed_cookie = a b=c "d" and more
strong_consistency = on
listener.leader_latch.rack\.2 = [2001:db8::7]:0
listener.leader_latch.internal = ::1:5323
listener.leader_latch.a = db7.example.com:5323
erlang.distribution.port_range.maximum = 7999
erlang.distribution.port_range.minimum = 6000
platform_bin_dir = bin
platform_data_dir = ./data
platform_etc_dir = $(platform_data_dir)/etc
platform_lib_dir = ../lib
platform_log_dir = /logs/
ssl.certfile = $(platform_etc_dir)/cert.pem
ssl.keyfile = /nonesuch/key.pem
ssl.cacertfile = ca.pem
log.console = both
log.console.level = debug
log.console.file = ./c.log
log.error.file = $(platform_log_dir)/e.log
log.syslog = on
log.syslog.ident = latch
log.syslog.facility = local3
log.syslog.level = warning
log.crash = off
log.crash.file = x.log
log.crash.maximum_message_size = 1.5KB
log.crash.size = 0
log.crash.rotation = $W0
log.crash.rotation.keep = current
leader_latch.cluster_listener = [::]:7000
leader_latch.minimum_nodes = 2
leader_latch.join = db@10.0.0.1, db@[::1]:7001, db@db9,db@10.0.0.1:7000
leader_latch.timing = quick
leader_latch.join_timeout = 1s500ms
leader_latch.voters = 3
leader_latch.format_level = 1
leader_latch.dead_man_switch = off
leader_latch.fencing.rack\.2 = on
leader_latch.fencing.a = off
leader_latch.log.format = json
leader_latch.log.elections = on
leader_latch.max_connections = 1000
leader_latch.max_held = 30
leader_latch.max_pings = 7
leader_latch.idle_timeout = 5m
leader_latch.minimum_free_space = 1GB
leader_latch.second_cookie = a b=c
leader_latch.extensions.internal = on
leader_latch.extensions.a = off
`

func TestEverySettingArrives(t *testing.T) {
	path := write(t, "riak.conf", everySetting)
	c, warnings, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, "warnings", messages(path, warnings), "riak.conf:49: leader_latch.second_cookie: nodes with this cookie are let in, too")
	base := filepath.Dir(filepath.Dir(path))
	want := &Config{
		Path:              path,
		NodeName:          "db@2001:db8::7",
		NodeHost:          "2001:db8::7",
		Cookie:            `a b=c "d" and more`,
		SecondCookie:      "a b=c",
		StrongConsistency: true,
		Listeners: []Listener{
			{Name: "a", Key: "listener.leader_latch.a", Host: "db7.example.com", Port: 5323, Position: Position{path, 7}},
			{Name: "internal", Key: "listener.leader_latch.internal", Host: "::1", Port: 5323, Fencing: true, Extensions: true, Position: Position{path, 6}},
			{Name: "rack.2", Key: `listener.leader_latch.rack\.2`, Host: "2001:db8::7", Fencing: true, Position: Position{path, 5}},
		},
		PlatformDataDir: base + "/data",
		PlatformLogDir:  "/logs",
		Log: Log{
			Format:  "json",
			Console: "both", ConsoleLevel: "debug", ConsoleFile: base + "/c.log",
			ErrorFile: "/logs/e.log",
			Syslog:    true, SyslogIdent: "latch", SyslogFacility: "local3", SyslogLevel: "warning",
			CrashFile: base + "/x.log", CrashRotation: "$W0",
		},
		ClusterListener: Address{"::", 7000},
		LogElections:    true,
		MinimumNodes:    2,
		Join:            []Node{{"db@10.0.0.1", "10.0.0.1", 7000}, {"db@::1", "::1", 7001}, {"db@db9", "db9", 7000}},
		Timing:          "quick",
		JoinTimeout:     1500 * time.Millisecond,
		Voters:          3,
		FormatLevel:     1,
		MaxConnections:  1000,
		MaxHeld:         30, MaxPings: 7,
		IdleTimeout: 5 * time.Minute,
		MinimumFree: 1 << 30,
		portMaximum: 7999,
		portMinimum: 6000,
	}
	c.places = nil // see TestWhere
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	rows := make(map[string]bool)
	s, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for key := range s.All() {
		k, _ := row(key)
		rows[k.Name] = true
	}
	idle := map[string]string{
		"platform_bin_dir": base + "/bin", "platform_etc_dir": base + "/data/etc", "platform_lib_dir": filepath.Dir(base) + "/lib",
		"ssl.certfile": base + "/data/etc/cert.pem", "ssl.keyfile": "/nonesuch/key.pem", "ssl.cacertfile": base + "/ca.pem",
		"log.crash.maximum_message_size": "",
	}
	for _, e := range s.Effective() {
		path, want := idle[e.Key]
		if k, _ := row(e.Key); e.Idle != (want || k.Foreign) || want && e.Path != path {
			t.Errorf("%+v is shown, want idle %v, %s", e, want, path)
		}
	}
	for _, k := range Keys() {
		if rows[k.Name] == k.Foreign {
			t.Errorf("everySetting: sets %s: %v", k.Name, rows[k.Name])
		}
	}
	if got, want := c.Listeners[1].Address(), "[::1]:5323"; got != want {
		t.Errorf("Address is %s, want %s", got, want)
	}
}

func TestRelativeFoldersWithRelativePath(t *testing.T) {
	path := write(t, "riak.conf", quiet+"platform_data_dir = ./data\n")
	t.Chdir(filepath.Dir(path))
	c, _, err := Load("riak.conf")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.DataDir(), filepath.Join(filepath.Dir(filepath.Dir(path)), "data/leader_latch"); got != want {
		t.Errorf("DataDir is %s, want %s", got, want)
	}
}

// TestClusterAddresses: where a node listens for others, and what they dial.
func TestClusterAddresses(t *testing.T) {
	const (
		three   = "leader_latch.minimum_nodes = 3\n"
		minimum = "erlang.distribution.port_range.minimum = 6000\n"
		maximum = "erlang.distribution.port_range.maximum = 7999\n"
		last    = "erlang.distribution.port_range.maximum = 65535\n"
		own     = "leader_latch.cluster_listener = "
	)
	tests := []struct{ nodename, added, listen, dial string }{
		{"riak@127.0.0.1", "", "127.0.0.1:5324", "127.0.0.1:5324"},
		{"riak@10.0.0.1", "", "10.0.0.1:5324", "10.0.0.1:5324"},
		{"riak@db1.example.com", "", "db1.example.com:5324", "db1.example.com:5324"},
		{"riak@2001:db8::1", "", "[2001:db8::1]:5324", "[2001:db8::1]:5324"},
		{"riak@[2001:db8::1]", "", "[2001:db8::1]:5324", "[2001:db8::1]:5324"},
		{"riak@2001:0DB8:0:0:0:0:0:1", "", "[2001:db8::1]:5324", "[2001:db8::1]:5324"},

		{"riak@10.0.0.1", minimum, "10.0.0.1:6000", "10.0.0.1:6000"},
		{"riak@10.0.0.1", maximum, "10.0.0.1:7999", "10.0.0.1:7999"},
		{"riak@10.0.0.1", last, "10.0.0.1:65535", "10.0.0.1:65535"},
		{"riak@10.0.0.1", minimum + maximum, "10.0.0.1:7999", "10.0.0.1:7999"},
		{"riak@10.0.0.1", "erlang.distribution.port_range.minimum = 0\n", "10.0.0.1:5324", "10.0.0.1:5324"},
		{"riak@10.0.0.1", maximum + own + "10.0.0.1:5400\n", "10.0.0.1:5400", "10.0.0.1:5400"},

		{"riak@203.0.113.1", own + "10.0.0.1:5400\n", "10.0.0.1:5400", "203.0.113.1:5400"},
		{"riak@db1", own + "0.0.0.0:5400\n", "0.0.0.0:5400", "db1:5400"},
		{"riak@10.0.0.1", own + ":::5400\n", "[::]:5400", "10.0.0.1:5400"},
		{"riak@0.0.0.0", own + "10.0.0.1:5400\n", "10.0.0.1:5400", "10.0.0.1:5400"},
		{"riak@::", own + "db1:5400\n", "db1:5400", "db1:5400"},
	}
	for _, tt := range tests {
		c := mustLoad(t, three+"nodename = "+tt.nodename+"\n"+tt.added)
		if got := c.ClusterListener.String(); got != tt.listen {
			t.Errorf("%s %q: listens on %s, want %s", tt.nodename, tt.added, got, tt.listen)
		}
		if got := c.ClusterAddress().String(); got != tt.dial {
			t.Errorf("%s %q: others dial %s, want %s", tt.nodename, tt.added, got, tt.dial)
		}
	}
}

// TestJoinList: a node that is named without a port has the port of this one.
func TestJoinList(t *testing.T) {
	for added, want := range map[string]string{
		"": "",
		"leader_latch.join = riak@db2, riak@db1, riak@db2,riak@db3\n":                       "riak@db2:5324 riak@db1:5324 riak@db3:5324",
		"leader_latch.join = riak@db1:5324,riak@db1,riak@db1:5325\n":                        "riak@db1:5324 riak@db1:5325",
		"leader_latch.join = a@127.0.0.1:1, b@127.0.0.1:1, a@127.0.0.1:2\n":                 "a@127.0.0.1:1 b@127.0.0.1:1 a@127.0.0.1:2",
		"leader_latch.join = riak@2001:db8::1, riak@[2001:0db8::1], riak@[2001:db8::1]:1\n": "riak@[2001:db8::1]:5324 riak@[2001:db8::1]:1",
		"leader_latch.join = riak@db1\nerlang.distribution.port_range.maximum = 7999\n":     "riak@db1:7999",
		"leader_latch.join = riak@db1\nleader_latch.cluster_listener = 127.0.0.1:5400\n":    "riak@db1:5400",
	} {
		var got []string
		for _, n := range mustLoad(t, added).Join {
			got = append(got, n.String())
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%q: %s, want %s", added, got, want)
		}
	}
}

// TestMinimumNodes: a node that others could reach never elects alone by default.
func TestMinimumNodes(t *testing.T) {
	tests := []struct {
		nodename, listeners string
		want                int
	}{
		{"riak@127.0.0.1", "127.0.0.1:1", 1},
		{"riak@127.9.9.9", "127.0.0.1:1 [::1]:1 localhost:1", 1},
		{"riak@localhost", "127.0.0.1:1", 1},
		{"riak@::1", "127.0.0.1:1", 1},
		{"riak@127.0.0.1", "", 1},
		{"riak@127.0.0.1", "0.0.0.0:1", 3},
		{"riak@127.0.0.1", "127.0.0.1:1 10.0.0.1:2", 3},
		{"riak@127.0.0.1", "localhost.localdomain:1", 3},
		{"riak@10.0.0.1", "127.0.0.1:1", 3},
		{"riak@db1", "127.0.0.1:1", 3},
		{"riak@localhost.localdomain", "127.0.0.1:1", 3},
	}
	for _, tt := range tests {
		conf := "nodename = " + tt.nodename + "\n"
		for i, address := range strings.Fields(tt.listeners) {
			conf += "listener.leader_latch." + string(rune('a'+i)) + " = " + address + "\n"
		}
		c, _, err := Load(write(t, "riak.conf", conf))
		if err != nil {
			t.Errorf("%q: %v", conf, err)
		} else if c.MinimumNodes != tt.want {
			t.Errorf("%q: minimum nodes %d, want %d", conf, c.MinimumNodes, tt.want)
		}
	}
	if got := mustLoad(t, "leader_latch.minimum_nodes = 3\n").MinimumNodes; got != 3 {
		t.Errorf("set to 3: %d", got)
	}
}

func TestJoinTimeoutFollowsTiming(t *testing.T) {
	for added, want := range map[string]time.Duration{
		"leader_latch.timing = quick\n":                                3 * time.Second,
		"leader_latch.timing = calm\n":                                 6 * time.Second,
		"leader_latch.timing = calm\nleader_latch.join_timeout = 4s\n": 4 * time.Second,
	} {
		if got := mustLoad(t, added).JoinTimeout; got != want {
			t.Errorf("%q: %v, want %v", added, got, want)
		}
	}
}

// TestWhere: what goes wrong with a value later on can be told like an error of the file.
func TestWhere(t *testing.T) {
	path := write(t, "riak.conf", quiet+"platform_data_dir = ./data\n", "leader-latch.conf", "leader_latch.timing = calm\n")
	c, _, err := Load(path, Override{Key: "leader_latch.voters", Value: "3", Origin: "--voters"})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"platform_data_dir":             path + ":5: platform_data_dir",
		"leader_latch.timing":           filepath.Dir(path) + "/leader-latch.conf:1: leader_latch.timing",
		"leader_latch.voters":           "--voters",
		"leader_latch.cluster_listener": path + ": leader_latch.cluster_listener",
	} {
		if got := c.Where(key); got != want {
			t.Errorf("%s is set at %q, want %q", key, got, want)
		}
	}
}

func TestOverridesWin(t *testing.T) {
	added := "leader_latch.minimum_nodes = 2\nleader_latch.timing = broken\n"
	c := mustLoad(t, added,
		Override{"leader_latch.minimum_nodes", "4", "--minimum-nodes"},
		Override{"leader_latch.timing", "calm", "--timing"},
		Override{"leader_latch.cluster_listener", "[::1]:0", "--cluster-listener"},
		Override{"leader_latch.join", "", "--join"})
	if c.MinimumNodes != 4 || c.Timing != "calm" || c.ClusterListener != (Address{"::1", 0}) || c.JoinTimeout != 6*time.Second || len(c.Join) != 0 {
		t.Errorf("%+v", c)
	}

	path := write(t, "riak.conf", quiet+"leader_latch.voters = 0\n")
	wantLines(t, "problems", loadProblems(t, path,
		Override{"leader_latch.timing", "fast", "--timing"},
		Override{"leader_latch.minimum_nodes", "0", "--minimum-nodes"},
		Override{"leader_latch.cluster_listener", "127.0.0.1:x", "--cluster-listener"},
		Override{"listener.leader_latch.x", "127.0.0.1:1", "--listener"},
		Override{"nonesuch", "1", "--nonesuch"}),
		"riak.conf:5: leader_latch.voters: 0 is below 1",
		"--listener: listener.leader_latch.x can be set in riak.conf only",
		"--nonesuch: nonesuch can be set in riak.conf only",
		`--cluster-listener: "x" is not a port`,
		"--minimum-nodes: 0 is below 1",
		`--timing: "fast" is not possible here; write `)
}

// A level that the service does not write yet is refused, wherever it is set.
func TestFormatLevel(t *testing.T) {
	for value, want := range map[string]string{
		"0":    "0 is below 1",
		"4":    "4 is above 3, the newest level of this version; write 3 or less, take the setting out, or install the version that has level 4",
		"last": `"last" is not a whole number`,
	} {
		path := write(t, "riak.conf", quiet+"leader_latch.format_level = "+value+"\n")
		wantLines(t, value, loadProblems(t, path), "riak.conf:5: leader_latch.format_level: "+want)
		path = write(t, "riak.conf", quiet)
		wantLines(t, value, loadProblems(t, path, Override{"leader_latch.format_level", value, "--format-level"}), "--format-level: "+want)
	}
	if c := mustLoad(t, "leader_latch.format_level = 3\n"); c.FormatLevel != NewestFormatLevel {
		t.Errorf("level %d, want %d", c.FormatLevel, NewestFormatLevel)
	}
}

func TestAllProblemsAtOnceInOrder(t *testing.T) {
	path := write(t,
		"riak.conf", `nodename = riak
leader_latch.voters = 0
leader_latch.minimum_nodes = many
include more.conf
leader_latch.timing = slow
strong_consistency = true
log.console = syslog
log.console.level = warn
log.crash.size = 1TB
erlang.distribution.port_range.minimum = any
platform_data_dir = $(nope)
listener.leader_latch = 127.0.0.1:1
listener.leader_latch.a.b = 127.0.0.1:1
listener.leader_latch.a = 127.0.0.1:99999
listener.leader_latch.b = 127.0.0.1
listener.leader_latch.c = [::1]:7
listener.leader_latch.d = 0:0:0:0:0:0:0:1:7
log.crash.maximum_message_size = much
`,
		"more.conf", "leader_latch.join_timeout = 0s\nleader_latch.fencing.b = yes\n",
		"leader-latch.conf", "leader_latch.join = db1\nleader_latch.max_connections = -1\n")
	wantLines(t, "problems", loadProblems(t, path),
		`riak.conf:1: nodename: "riak" has no @`,
		`riak.conf:2: leader_latch.voters: 0 is below 1`,
		`riak.conf:3: leader_latch.minimum_nodes: "many" is not a whole number`,
		`riak.conf:5: leader_latch.timing: "slow" is not possible here; write quick, normal or calm`,
		`riak.conf:6: strong_consistency: "true" is neither on nor off`,
		`riak.conf:7: log.console: "syslog" is not possible here; write `,
		`riak.conf:8: log.console.level: "warn" is not possible here; write `,
		`riak.conf:9: log.crash.size: "1TB" is not a size`,
		`riak.conf:10: erlang.distribution.port_range.minimum: "any" is not a whole number`,
		`riak.conf:11: platform_data_dir: nothing sets "nope"`,
		`riak.conf:12: listener.leader_latch: a listener has a name of exactly one word`,
		`riak.conf:13: listener.leader_latch.a.b: a listener has a name of exactly one word`,
		`riak.conf:14: listener.leader_latch.a: port 99999 is above 65535`,
		`riak.conf:15: listener.leader_latch.b: "127.0.0.1" has no port`,
		`riak.conf:17: listener.leader_latch.d: [::1]:7 is already taken by listener.leader_latch.c ([::1]:7, riak.conf:16); give`,
		`riak.conf:18: log.crash.maximum_message_size: "much" is not a size`,
		`more.conf:1: leader_latch.join_timeout: "0s" is not a duration`,
		`more.conf:2: leader_latch.fencing.b: "yes" is neither on nor off`,
		`leader-latch.conf:1: leader_latch.join: "db1" has no @`,
		`leader-latch.conf:2: leader_latch.max_connections: -1 is below 0`)
}

func TestProblemsOfOneSetting(t *testing.T) {
	tests := []struct{ added, want string }{
		{"nodename = @127.0.0.1\n", `riak.conf:5: nodename: "@127.0.0.1" has no usable name`},
		{"nodename = riak@\n", `riak.conf:5: nodename: "riak@" has no host`},
		{"nodename = riak@127.0.0.1:5324\n", `riak.conf:5: nodename: "riak@127.0.0.1:5324" has a port; the port of this node is set by leader_latch.cluster_listener`},
		{"nodename = riak@0.0.0.0\n", "riak.conf:5: nodename: 0.0.0.0 is no address that other nodes could reach; put this machine's address behind the @, or set leader_latch.cluster_listener"},
		{"nodename = riak@::\n", "riak.conf:5: nodename: :: is no address"},
		{"nodename = riak@::ffff:0:0\n", "riak.conf:5: nodename: ::ffff:0.0.0.0 is no address"},
		{"nodename = riak@0.0.0.0\nleader_latch.cluster_listener = [::]:1\n", "riak.conf:6: leader_latch.cluster_listener: neither :: nor nodename (riak@0.0.0.0) has an address"},
		{"listener.leader_latch.b = 0.0.0.0:5323\n", "riak.conf:5: listener.leader_latch.b: 0.0.0.0:5323 is already taken by listener.leader_latch.internal (127.0.0.1:5323, "},
		{"listener.leader_latch.b = 127.0.0.1:5324\n", "riak.conf:5: listener.leader_latch.b: 127.0.0.1:5324 is already taken by the cluster listener"},
		{"nodename = riak@db1\nlistener.leader_latch.b = 10.0.0.1:5324\n", "riak.conf:6: listener.leader_latch.b: 10.0.0.1:5324 is already taken by the cluster listener (db1:5324)"},
		{"leader_latch.cluster_listener = 10.0.0.1\n", `riak.conf:5: leader_latch.cluster_listener: "10.0.0.1" has no port; write host:port, for example 10.0.0.1:5324`},
		{"leader_latch.cluster_listener = 10.0.0.1:\n", `riak.conf:5: leader_latch.cluster_listener: "" is not a port; write host:port, for example 10.0.0.1:5324`},
		{"leader_latch.join = riak@10.0.0.1:port\n", `riak.conf:5: leader_latch.join: "port" is not a port; write host:port, for example 10.0.0.1:5324`},
		{"listener.leader_latch.b = 10.0.0.1\n", `riak.conf:5: listener.leader_latch.b: "10.0.0.1" has no port; write host:port, for example 10.0.0.1:5323`},
		{"leader_latch.cluster_listener = 10.0.0.1\nleader_latch.join = riak@db1\n", `riak.conf:5: leader_latch.cluster_listener: "10.0.0.1" has no port`},
		{"leader_latch.cluster_listener = 10.0.0.1:0\nleader_latch.join = riak@::1\n", `riak.conf:6: leader_latch.join: riak@::1 has no port, and this node's own, which it would take, is any free one; write for example riak@[::1]:5324`},
		{"leader_latch.join = riak@db1,db2\n", `riak.conf:5: leader_latch.join: "db2" has no @`},
		{"leader_latch.join = riak@0.0.0.0\n", `riak.conf:5: leader_latch.join: 0.0.0.0 is no address to join a node at`},
		{"leader_latch.cluster_listener = 5324\n", `riak.conf:5: leader_latch.cluster_listener: "5324" has no port; write host:port, for example 127.0.0.1:5324`},
		{"leader_latch.dead_man_switch = 1\n", `riak.conf:5: leader_latch.dead_man_switch: "1" is neither on nor off`},
		{"leader_latch.fencing.internal = On\n", `riak.conf:5: leader_latch.fencing.internal: "On" is neither on nor off`},
		{"leader_latch.extensions.internal = yes\n", `riak.conf:5: leader_latch.extensions.internal: "yes" is neither on nor off`},
		{"leader_latch.extensions.internal = on\nleader_latch.fencing.internal = off\n", "riak.conf:6: leader_latch.fencing.internal: it is off, and leader_latch.extensions.internal (riak.conf:5) is on, which always has fencing tokens; take this line out, or turn that one off"},
		{"leader_latch.idle_timeout = 60\n", `riak.conf:5: leader_latch.idle_timeout: "60" is not a duration`},
	}
	for _, tt := range tests {
		wantLines(t, tt.added, loadProblems(t, write(t, "riak.conf", quietly(tt.added))), tt.want)
	}
	for _, fine := range []string{
		"nodename = riak@db1\nlistener.leader_latch.b = 10.0.0.1:5325\n",
		"nodename = riak@localhost\nlistener.leader_latch.b = 10.0.0.1:5324\n", // bound to loopback only
		"nodename = riak@10.0.0.1\nlistener.leader_latch.b = 10.0.0.2:5324\n",
		"leader_latch.extensions.internal = on\nleader_latch.fencing.internal = on\n",
		"leader_latch.extensions.internal = off\nleader_latch.fencing.internal = off\n",
	} {
		mustLoad(t, "leader_latch.minimum_nodes = 1\n"+fine)
	}
}

// TestRunConfig: the configuration of make run needs no further word.
func TestRunConfig(t *testing.T) {
	path := write(t, "riak.conf", readFile(t, "../packaging/riak.conf.run"))
	c, warnings, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, "warnings", messages(path, warnings))
	run := filepath.Dir(filepath.Dir(path))
	if c.DataDir() != run+"/data/leader_latch" || c.Log.ErrorFile != run+"/log/error.log" {
		t.Errorf("state in %s, errors in %s, want them below %s", c.DataDir(), c.Log.ErrorFile, run)
	}
	if c.MinimumNodes != 1 || c.Log.Console != "console" {
		t.Errorf("%+v", c)
	}
	wantTwoListeners(t, c)
}

// wantTwoListeners: one speaks the plain protocol, and one that of keyed members, too.
func wantTwoListeners(t *testing.T, c *Config) {
	t.Helper()
	var all []string
	for _, l := range c.Listeners {
		all = append(all, fmt.Sprintln(l.Name, l.Address(), l.Fencing, l.Extensions))
	}
	if want := []string{"clients 127.0.0.1:5326 true true\n", "internal 127.0.0.1:5323 false false\n"}; !slices.Equal(all, want) {
		t.Errorf("listeners %q, want %q", all, want)
	}
}

// TestPackagedConfig: what the package's riak.conf has of listeners works as it is when it is
// turned on.
func TestPackagedConfig(t *testing.T) {
	packaged := readFile(t, "../packaging/riak.conf")
	if c, _, err := Load(write(t, "riak.conf", packaged)); err != nil || len(c.Listeners) != 0 {
		t.Fatalf("%v, %v: want no listener", c.Listeners, err)
	}
	on := regexp.MustCompile(`(?m)^## ((listener\.|leader_latch\.extensions\.)\S+ = )`).ReplaceAllString(packaged, "$1")
	path := write(t, "riak.conf", on)
	c, warnings, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, "warnings", messages(path, warnings), "riak.conf:15: distributed_cookie: it is riak")
	wantTwoListeners(t, c)
}

// TestForeignKeysAreLeftAlone: the file belongs to Riak too, whatever it has.
func TestForeignKeysAreLeftAlone(t *testing.T) {
	mustLoad(t, `
ring_size = lots
handoff.ip = not an address
handoff.port = x
jmx = on
listener.http.internal = 127.0.0.1:99999
listener.protobuf.leader_latch = x
log.error.redirect = maybe
leveldb.maximum_memory.percent = 70
latch = x
leader = x
leader_latches_of_another_kind = x
Ring_Size = x
handoff-port = x
`)
}

func TestWarnings(t *testing.T) {
	listener := "listener.leader_latch.internal = 127.0.0.1:5323\n"
	tests := []struct {
		conf string
		want []string
	}{
		{"", []string{
			"riak.conf: distributed_cookie: it is riak, the default that everybody knows; set it to 16 characters or more of your own, the same on all nodes",
			"riak.conf: strong_consistency: it is off, so every JOIN is refused; add the line: strong_consistency = on",
			"riak.conf: no client can connect, as there is no listener; add the line listener.leader_latch.internal = 127.0.0.1:5323",
		}},
		{listener + "nodename = riak@2001:db8::1\nstrong_consistency = off\ndistributed_cookie = riak\n", []string{
			"riak.conf:3: strong_consistency: it is off, so every JOIN is refused; change the line: strong_consistency = on",
			"riak.conf:4: distributed_cookie: it is riak, the default",
		}},
		{quiet + "erlang.distribution.port_range.maximum = 65536\nerlang.distribution.port_range.minimum = -1\n", []string{
			"riak.conf:5: erlang.distribution.port_range.maximum: 65536 is no port from 1 to 65535, and not used for the cluster listener; change it, or set leader_latch.cluster_listener",
			"riak.conf:6: erlang.distribution.port_range.minimum: -1 is no port",
		}},
		{quiet + "erlang.distribution.port_range.maximum = 70000\nleader_latch.cluster_listener = 127.0.0.1:5324\n", nil},
		{quietly("distributed_cookie = 0123456789abcdé\n"), []string{
			"riak.conf:5: distributed_cookie: it has only 15 characters and can be guessed; set it",
		}},
		{quiet + "leader_latch.second_cookie = another\n", []string{
			"riak.conf:5: leader_latch.second_cookie: nodes with this cookie are let in, too; take it out when no node has it as its distributed_cookie any more",
		}},
		{quiet + "leader_latch.second_cookie = 0123456789abcdef\n", []string{
			"riak.conf:5: leader_latch.second_cookie: it is the same as distributed_cookie, and does nothing; take it out",
		}},
		{quiet + `
leader_latch.minimum_node = 3
leader_latch.minimumnodes = 3
leader_latch.colour = red
leader_latch.fencing.nonesuch = on
leader_latch.fencings.internal = on
leader_latch = on
leadr-lach.voters = 3
leaderlatch.join-timeout = 3s
Leader_Latch.timing = calm
listener.leaderlatch.x = 127.0.0.1:1
listener.leader-latch = 127.0.0.1:1
listeners.leader_latch.x = 127.0.0.1:1
leader_laxxh.voters = 3
leader_laxxx.voters = 3
NodeName = x
strong-consistency = on
Platform-Lib-Dir = /lib
leader_latch.extensions.nonesuch = on
leader_latch.extension.internal = on
`, []string{
			"riak.conf:6: leader_latch.minimum_node: this key is not known and does nothing; did you mean leader_latch.minimum_nodes?",
			"riak.conf:7: leader_latch.minimumnodes: this key is not known and does nothing; did you mean leader_latch.minimum_nodes?",
			"riak.conf:8: leader_latch.colour: this key is not known and does nothing$",
			"riak.conf:9: leader_latch.fencing.nonesuch: there is no listener.leader_latch.nonesuch, so this does nothing",
			"riak.conf:10: leader_latch.fencings.internal: this key is not known and does nothing; did you mean leader_latch.fencing.internal?",
			"riak.conf:11: leader_latch: this key is not known and does nothing$",
			"riak.conf:12: leadr-lach.voters: this key is not known and does nothing; did you mean leader_latch.voters?",
			"riak.conf:13: leaderlatch.join-timeout: this key is not known and does nothing; did you mean leader_latch.join_timeout?",
			"riak.conf:14: Leader_Latch.timing: this key is not known and does nothing; did you mean leader_latch.timing?",
			"riak.conf:15: listener.leaderlatch.x: this key is not known and does nothing; did you mean listener.leader_latch.x?",
			"riak.conf:16: listener.leader-latch: this key is not known and does nothing; did you mean listener.leader_latch.internal?",
			"riak.conf:17: listeners.leader_latch.x: this key is not known and does nothing; did you mean listener.leader_latch.x?",
			"riak.conf:18: leader_laxxh.voters: this key is not known and does nothing; did you mean leader_latch.voters?",
			"riak.conf:20: NodeName: this key is not known and does nothing; did you mean nodename?",
			"riak.conf:21: strong-consistency: this key is not known and does nothing; did you mean strong_consistency?",
			"riak.conf:22: Platform-Lib-Dir: this key is not known and does nothing; did you mean platform_lib_dir?",
			"riak.conf:23: leader_latch.extensions.nonesuch: there is no listener.leader_latch.nonesuch, so this does nothing",
			"riak.conf:24: leader_latch.extension.internal: this key is not known and does nothing; did you mean leader_latch.extensions.internal?",
		}},
	}
	for _, tt := range tests {
		path := write(t, "riak.conf", tt.conf)
		_, warnings, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, tt.conf, messages(path, warnings), tt.want...)
	}
}

// TestLoopbackNodename: Riak's default nodename, where clients on other machines are meant to
// be served.
func TestLoopbackNodename(t *testing.T) {
	const warning = "riak.conf:1: nodename: other machines cannot reach this node at 127.0.0.1, so none can be in its cluster, and JOINs are refused until there are 3 nodes; put this machine's address behind the @, or set leader_latch.minimum_nodes = 1 for a node that serves alone$"
	public := "listener.leader_latch.b = 0.0.0.0:5325\n"
	for added, want := range map[string][]string{
		public:                                 {warning},
		"listener.leader_latch.b = db1:5325\n": {warning},
		public + "leader_latch.cluster_listener = 10.0.0.1:5324\n":    {warning},
		public + "nodename = riak@localhost\n":                        {"riak.conf:6: nodename: other machines cannot reach this node at localhost"},
		public + "nodename = riak@10.0.0.1\n":                         nil,
		public + "leader_latch.minimum_nodes = 1\n":                   nil,
		"listener.leader_latch.b = 127.0.0.2:5325\n":                  nil,
		"nodename = riak@127.0.0.2\nleader_latch.minimum_nodes = 3\n": nil, // three on one machine
	} {
		path := write(t, "riak.conf", quietly(added))
		_, warnings, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, added, messages(path, warnings), want...)
	}
}

// TestOneKeyTwice: whoever changes the first of two lines has to learn that it is not the
// one that counts. Files are meant to overrule others, and start scripts to say the same
// again.
func TestOneKeyTwice(t *testing.T) {
	minimum := "leader_latch.minimum_nodes = "
	for _, tt := range []struct {
		files []string
		want  []string
	}{
		{[]string{"riak.conf", quiet + minimum + "3\n" + minimum + "2\n"},
			[]string{"riak.conf:6: leader_latch.minimum_nodes: line 5 sets it too, to another value, and this line wins; take one of them out$"}},
		{[]string{"riak.conf", quiet + "listener.leader_latch.internal = 127.0.0.1:7\n"},
			[]string{"riak.conf:5: listener.leader_latch.internal: line 4 sets it too"}},
		{[]string{"riak.conf", quiet + minimum + "3\n" + minimum + "3\n" + minimum + "1\n"},
			[]string{"riak.conf:7: leader_latch.minimum_nodes: line 6 sets it too"}},
		{[]string{"riak.conf", quiet, "leader-latch.conf", minimum + "3\n" + minimum + "1\n"},
			[]string{"leader-latch.conf:2: leader_latch.minimum_nodes: line 1 sets it too"}},
		{[]string{"riak.conf", quiet + minimum + "3\n" + minimum + "3\n"}, nil},
		{[]string{"riak.conf", quiet + minimum + "3\n", "leader-latch.conf", minimum + "1\n"}, nil},
		{[]string{"riak.conf", quiet + minimum + "3\n" + minimum + "1\n", "leader-latch.conf", minimum + "3\n"}, nil},
		{[]string{"riak.conf", quiet + minimum + "3\ninclude a\n", "a", minimum + "1\n"}, nil},
		{[]string{"riak.conf", quiet + "ring_size = 8\nring_size = 16\nhandoff.port = 1\nhandoff.port = 2\n"}, nil},
	} {
		path := write(t, tt.files...)
		_, warnings, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, strings.Join(tt.files, "\n"), messages(path, warnings), tt.want...)
	}
	path := write(t, "riak.conf", quiet+minimum+"3\n"+minimum+"2\n")
	_, warnings, err := Load(path, Override{Key: "leader_latch.minimum_nodes", Value: "1", Origin: "--minimum-nodes"})
	if err != nil || len(warnings) > 0 {
		t.Errorf("a flag overrules both: %v, %v", warnings, err)
	}
}

// TestNumberOfVoters: the last of an even number is of no use.
func TestNumberOfVoters(t *testing.T) {
	for voters, want := range map[string][]string{
		"1": nil, "3": nil, "5": nil,
		"2": {"riak.conf:5: leader_latch.voters: 2 voters bear no more dead ones than 1 do, 0; write an odd number, 1 or 3$"},
		"4": {"riak.conf:5: leader_latch.voters: 4 voters bear no more dead ones than 3 do, 1; write an odd number, 3 or 5$"},
	} {
		path := write(t, "riak.conf", quiet+"leader_latch.voters = "+voters+"\n")
		_, warnings, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, voters+" voters", messages(path, warnings), want...)
	}
}

// TestJoinListWithoutCommas is read as it is meant, and told of.
func TestJoinListWithoutCommas(t *testing.T) {
	for list, want := range map[string][]string{
		"riak@a, riak@b":         nil,
		"riak@a,riak@b":          nil,
		"riak@a ,, riak@b ,":     nil,
		"riak@a riak@b":          {"riak.conf:5: leader_latch.join: there is no comma between riak@a and riak@b, which are read as two nodes; write one$"},
		"riak@a, riak@b\triak@c": {"riak.conf:5: leader_latch.join: there is no comma between riak@b and riak@c, which are read as two nodes; write one$"},
	} {
		path := write(t, "riak.conf", quiet+"leader_latch.join = "+list+"\n")
		c, warnings, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, list, messages(path, warnings), want...)
		if len(c.Join) != strings.Count(list, "@") {
			t.Errorf("%s: read as %v", list, c.Join)
		}
	}
}

func TestNotAllOfVeryManyStraysAreTold(t *testing.T) {
	var added strings.Builder
	for i := range maxStrays + 10 {
		fmt.Fprintf(&added, "leader_latch.voter%d = 1\n", i)
	}
	_, warnings, err := Load(write(t, "riak.conf", quiet+added.String()))
	if err != nil || len(warnings) != maxStrays {
		t.Errorf("%d warnings, %v", len(warnings), err)
	}
}

func TestWarningsComeWithErrorsToo(t *testing.T) {
	path := write(t, "riak.conf", "nodename = riak\nstrong_consistency = yes\n")
	_, warnings, err := Load(path)
	if err == nil {
		t.Error("no error")
	}
	wantLines(t, "warnings, none of which is about what has an error", messages(path, warnings),
		"riak.conf: distributed_cookie: it is riak",
		"riak.conf: no client can connect")
}

func TestProblemsAsText(t *testing.T) {
	problems := Problems{
		{Position: Position{"riak.conf", 41}, Key: "listener.leader_latch.internal", Text: "port 99999 is above 65535"},
		{Position: Position{File: "riak.conf"}, Text: "there is no such file"},
	}
	want := "riak.conf:41: listener.leader_latch.internal: port 99999 is above 65535\nriak.conf: there is no such file"
	if got := problems.Error(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestEffectiveShowsWhatIsInEffect, also where a default depends on other settings.
func TestEffectiveShowsWhatIsInEffect(t *testing.T) {
	effective := func(conf string) map[string]Setting {
		s, err := Read(write(t, "riak.conf", conf))
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[string]Setting)
		for _, e := range s.Effective() {
			all[e.Key] = e
		}
		return all
	}
	all := effective("leader_latch.timing = calm\nnodename = riak@10.0.0.1\nring_size = 64\n")
	for _, want := range []Setting{
		{Key: "leader_latch.timing", Value: "calm"},
		{Key: "leader_latch.join_timeout", Value: "6s", Default: true},
		{Key: "leader_latch.minimum_nodes", Value: "3", Default: true},
		{Key: "leader_latch.cluster_listener", Value: "10.0.0.1:5324", Default: true},
		{Key: "leader_latch.voters", Value: "5", Default: true},
		{Key: "log.console.file", Value: "/var/log/riak/console.log", Path: "/var/log/riak/console.log", Default: true},
		{Key: "ring.state_dir", Value: "/var/lib/riak/ring", Default: true, Idle: true},
		{Key: "platform_lib_dir", Value: "/usr/lib/riak/lib", Path: "/usr/lib/riak/lib", Default: true, Idle: true},
		{Key: "ring_size", Value: "64", Idle: true},
	} {
		if got := all[want.Key]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if e, listed := all["leader_latch.join"]; listed {
		t.Errorf("%+v has no default", e)
	}
	all = effective("nodename = nonsense\nleader_latch.voters = nonsense\n") // types are not judged
	if got := all["leader_latch.voters"]; got.Value != "nonsense" {
		t.Errorf("%+v", got)
	}
	if e, listed := all["leader_latch.cluster_listener"]; listed {
		t.Errorf("%+v cannot be known", e)
	}
}

func TestWords(t *testing.T) {
	for key, want := range map[string][]string{
		"a":         {"a"},
		"a.b-c._":   {"a", "b-c", "_"},
		`a\.b.c\.`:  {`a\.b`, `c\.`},
		`\.\..a\.a`: {`\.\.`, `a\.a`},
	} {
		if got := words(key); !slices.Equal(got, want) {
			t.Errorf("%q is %q, want %q", key, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0},
		{"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"ab", "ba", 2},
		{"xabc", "abc", 1}, {"abc", "xabc", 1}, {"abc", "abcx", 1}, {"abcx", "abc", 1},
	} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// FuzzConfig looks for settings on which the making of a configuration panics
// or hangs, that give one in which something is out of its range, or whose
// problems name a line that does not exist.
func FuzzConfig(f *testing.F) {
	addEdgeCases(f)
	f.Add(everySetting)
	f.Add("leader_latch.cluster_listener = db1:0\nleader_latch.join = a@b, c@[::1]:5\nnodename = riak@0.0.0.0\nlistener.leader_latch = x\n")
	f.Fuzz(func(t *testing.T, text string) {
		src := &source{path: "riak.conf", name: "riak.conf"}
		list, _ := parse(src, text)
		s := newSettings(src, slices.DeleteFunc(list, isInclude))
		problems := s.expand()
		b := newBuilder(s.hold(), nil)
		b.build()
		problems = append(problems, b.problems...)
		if s.position(keyNodename).Line == 0 { // there may be a problem with the default
			problems = slices.DeleteFunc(problems, func(p Problem) bool { return p.Key == keyNodename })
		}
		checkProblems(t, text, problems)
		checkProblems(t, text, slices.DeleteFunc(b.warnings, func(p Problem) bool { return p.Line == 0 })) // of the file as a whole
		listed := make(map[string]bool)
		for _, e := range s.Effective() {
			if keyLen(e.Key) != len(e.Key) || listed[e.Key] {
				t.Errorf("%q is listed twice, or no key", e.Key)
			}
			listed[e.Key] = true
		}
		if len(problems) == 0 {
			checkRanges(t, b.config)
		}
	})
}

// checkRanges checks what the comments of Config promise.
func checkRanges(t *testing.T, c *Config) {
	t.Helper()
	n, err := ParseNode(c.NodeName)
	if err != nil || n.Name != c.NodeName || n.Host != c.NodeHost || n.Port != 0 {
		t.Errorf("nodename %q at %q is %+v, %v", c.NodeName, c.NodeHost, n, err)
	}
	for _, a := range []Address{c.ClusterAddress(), c.ClusterListener} {
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("the cluster's address %+v is %+v, %v", a, again, err)
		}
	}
	if unspecified(c.ClusterAddress().Host) {
		t.Errorf("others are to dial %v", c.ClusterAddress())
	}
	for i, n := range c.Join {
		if again, err := ParseNode(n.String()); err != nil || again != n || n.Port == 0 {
			t.Errorf("to join %+v, which is %+v, %v", n, again, err)
		}
		if slices.Contains(c.Join[:i], n) {
			t.Errorf("to join %+v twice", n)
		}
	}
	for i, l := range c.Listeners {
		if l.Name == "" || l.Position.Line == 0 || l.Port < 0 || l.Port > 65535 || c.ClusterListener.leavesNoRoomFor(l.address()) {
			t.Errorf("listener %+v, cluster listener %v", l, c.ClusterListener)
		}
		if i > 0 && c.Listeners[i-1].Name >= l.Name {
			t.Errorf("listeners %v", c.Listeners)
		}
	}
	for _, path := range []string{c.DataDir(), c.PlatformLogDir, c.Log.ConsoleFile, c.Log.ErrorFile, c.Log.CrashFile} {
		if !filepath.IsAbs(path) {
			t.Errorf("%q is not absolute", path)
		}
	}
	if c.MinimumNodes < 1 || c.Voters < 1 || c.MaxConnections < 0 || c.JoinTimeout <= 0 || c.IdleTimeout <= 0 ||
		!slices.Contains([]string{"quick", "normal", "calm"}, c.Timing) || !slices.Contains(levels, c.Log.ConsoleLevel) {
		t.Errorf("%+v", c)
	}
}
