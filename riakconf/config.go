package riakconf

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Config is a configuration that was checked: plain values, no keys. It
// does not change any more.
type Config struct {
	Path string // of riak.conf, as given to [Load]

	NodeName string // name@host, where the host is NodeHost
	NodeHost string // a name, or a numeric address in its canonical form, without brackets
	Cookie   string

	SecondCookie string // accepted beside Cookie; "": none is

	StrongConsistency bool
	Listeners         []Listener // in order of their names

	// Folders, absolute.
	PlatformDataDir string
	PlatformLogDir  string

	Log          Log
	LogElections bool // each change of a group's leader has a line

	// ClusterListener is where other nodes' connections are taken. Its host
	// may be a name, or an address that this machine does not have; its port
	// may be 0, any free one, if nobody is to dial it. What others dial is
	// ClusterAddress.
	ClusterListener Address
	MinimumNodes    int           // from 1
	Join            []Node        // in order, each once, each with a port
	Timing          string        // quick, normal or calm
	JoinTimeout     time.Duration // above 0
	Voters          int           // from 1
	FormatLevel     int           // from 1 to NewestFormatLevel; 0: none is set
	DeadManSwitch   bool
	MaxConnections  int           // 0: to be derived
	MaxHeld         int           // from 1
	MaxPings        int           // from 1
	IdleTimeout     time.Duration // above 0
	MinimumFree     int64         // bytes

	portMaximum, portMinimum int // of Riak's distribution; 0 if not set, and any number is possible

	places map[string]string // of the schema's keys that are no pattern; see Where
}

// Where says where a key of the schema is set, as an error about its value begins:
// FILE:LINE: KEY, or FILE: KEY where no line sets it, or the flag that does.
func (c *Config) Where(key string) string { return c.places[key] }

// A Listener is an address that clients connect to.
type Listener struct {
	Name       string // the last word of its key
	Key        string // as in riak.conf
	Host       string // a name, or a numeric address without brackets
	Port       int    // 0 to 65535; 0 is any free one
	Fencing    bool   // answer with fencing tokens
	Extensions bool   // speak the lines of keyed members too; Fencing is on then
	Position   Position
}

// Address is host:port, an IPv6 address in brackets.
func (l Listener) Address() string { return l.address().String() }

func (l Listener) address() Address { return Address{l.Host, l.Port} }

// remote reports whether clients on other machines may connect to it.
func (l Listener) remote() bool { return !Loopback(l.Host) }

// A Log says what is logged where (riak.conf rules 57 to 61). Files are
// absolute, sizes in bytes, those below 0 like 0. A level is one of debug, info, notice, warning,
// error, critical, alert, emergency and none.
type Log struct {
	Format string // text or json, of the console and the files

	Console      string // off, file, console or both
	ConsoleLevel string // for both
	ConsoleFile  string
	ErrorFile    string // error and above, whatever Console is

	Syslog         bool
	SyslogIdent    string
	SyslogFacility string
	SyslogLevel    string

	Crash         bool
	CrashFile     string
	CrashSize     int64
	CrashRotation string
	CrashKeep     int
}

// DataDir is the folder of this service's own state, in which it keeps
// everything that it writes except logs.
func (c *Config) DataDir() string { return filepath.Join(c.PlatformDataDir, "leader_latch") }

// ClusterAddress is where other nodes reach this one: at nodename's host, or,
// if that is 0.0.0.0 or ::, at the host of an explicit cluster listener.
func (c *Config) ClusterAddress() Address {
	a := Address{c.NodeHost, c.ClusterListener.Port}
	if unspecified(a.Host) {
		a.Host = c.ClusterListener.Host
	}
	return a
}

const shortCookie = 16 // characters; below, a warning

// A builder makes a Config of settings, and collects what is wrong.
type builder struct {
	settings  *Settings
	overrides map[string]Override
	config    *Config
	problems  []Problem
	warnings  []Problem
}

func newBuilder(s *Settings, overrides []Override) *builder {
	b := &builder{
		settings:  s,
		overrides: make(map[string]Override),
		config:    &Config{Path: s.main.path, places: make(map[string]string)},
	}
	for _, o := range overrides {
		if k, known := row(o.Key); !known || !k.judged() {
			b.problems = append(b.problems, Problem{
				Position: Position{File: o.Origin},
				Text:     fmt.Sprintf("%s can be set in riak.conf only", o.Key),
			})
		}
		b.overrides[o.Key] = o
	}
	return b
}

// build fills in the config: first every key by its row of the schema, then
// what depends on more than one.
func (b *builder) build() {
	for _, k := range schema {
		if !k.judged() {
			continue
		}
		b.config.places[k.Name] = b.place(k.Name)
		if v, set := b.value(k.Name, k); set && !k.idle {
			b.store(k, v)
		}
	}
	b.listeners()
	b.cluster()
	b.minimumNodes()
	b.voters()
	b.formatLevel()
	if _, set := b.text(keyJoinTimeout); !set {
		b.config.JoinTimeout = 3 * time.Second
		if b.config.Timing == "calm" {
			b.config.JoinTimeout = 6 * time.Second
		}
	}
	b.advise()
	b.strays()
}

// text is the value of a key as text: of an override, else of the files, else
// the default. None of them counts as not set, and so does a value that could
// not be found out.
func (b *builder) text(key string) (value string, set bool) {
	if o, ok := b.overrides[key]; ok {
		return o.Value, true
	}
	if b.settings.broken[key] {
		return "", false
	}
	if value, set = b.settings.Get(key); set {
		return value, true
	}
	value, set = b.settings.defaults[key]
	return value, set
}

// value is the value of a key as the type of its row, if it is set and fits.
func (b *builder) value(key string, k Key) (v any, ok bool) {
	s, set := b.text(key)
	if !set {
		return nil, false
	}
	v, err := k.Type.parse(s)
	if err != nil {
		b.problem(key, "%v", err)
		return nil, false
	}
	return v, true
}

// store puts a value where its row says.
func (b *builder) store(k Key, v any) {
	switch to := k.field(b.config).(type) {
	case *string:
		*to = v.(string)
		if k.Type.kind == kindFile || k.Type.kind == kindFolder {
			path, err := b.settings.absolute(v.(string))
			if err != nil {
				b.problem(k.Name, "a relative path, and the working folder cannot be found out (%v); write the path in full", err)
			}
			*to = path
		}
	case *bool:
		*to = v.(bool)
	case *int:
		*to = int(v.(int64))
	case *int64:
		*to = v.(int64)
	case *time.Duration:
		*to = v.(time.Duration)
	case *Address:
		*to = v.(Address)
	case *[]Node:
		*to = v.([]Node)
	default:
		panic(fmt.Sprintf("riakconf: the schema has a field of type %T for %s", to, k.Name))
	}
}

// where is the place of a key's value, and the key itself unless a flag names
// it.
func (b *builder) where(key string) (Position, string) {
	if o, ok := b.overrides[key]; ok {
		return Position{File: o.Origin}, ""
	}
	return b.settings.position(key), key
}

// place is where as one text.
func (b *builder) place(key string) string {
	at, key := b.where(key)
	if key == "" {
		return at.String()
	}
	return at.String() + ": " + key
}

func (b *builder) problem(key, format string, args ...any) {
	at, key := b.where(key)
	b.problems = append(b.problems, Problem{Position: at, Key: key, Text: fmt.Sprintf(format, args...)})
}

func (b *builder) warn(key, format string, args ...any) {
	at, key := b.where(key)
	b.warnings = append(b.warnings, Problem{Position: at, Key: key, Text: fmt.Sprintf(format, args...)})
}

// listeners reads the latch listeners and what they speak.
func (b *builder) listeners() {
	c := b.config
	fencing, extensions := b.switches(fencingPrefix), b.switches(extensionsPrefix)
	for word, on := range extensions {
		if tokens, set := fencing[word]; on && set && !tokens {
			b.problem(fencingPrefix+word, "it is off, and %s%s (%s) is on, which always has fencing tokens; take this line out, or turn that one off",
				extensionsPrefix, word, b.settings.position(extensionsPrefix+word))
		}
	}
	for _, set := range b.settings.list {
		if set.key != strings.TrimSuffix(listenerPrefix, ".") && !strings.HasPrefix(set.key, listenerPrefix) {
			continue
		}
		k, known := row(set.key)
		if !known { // riak.conf rule 52
			b.problem(set.key, "a listener has a name of exactly one word; write %sinternal = host:port, and a dot in the name as \\.", listenerPrefix)
			continue
		}
		v, ok := b.value(set.key, k)
		if !ok {
			continue
		}
		a := v.(Address)
		word := strings.TrimPrefix(set.key, listenerPrefix)
		l := Listener{
			Name: unescape(word), Key: set.key,
			Host: a.Host, Port: a.Port,
			Fencing:    fencing[word] || extensions[word],
			Extensions: extensions[word],
			Position:   set.position(),
		}
		if other := slices.IndexFunc(c.Listeners, func(o Listener) bool { return o.address().overlap(a) }); other >= 0 {
			o := c.Listeners[other]
			b.problem(set.key, "%s is already taken by %s (%s, %s); give one of them another port", l.Address(), o.Key, o.Address(), o.Position)
			continue
		}
		c.Listeners = append(c.Listeners, l)
	}
	slices.SortFunc(c.Listeners, func(a, b Listener) int { return cmp.Compare(a.Name, b.Name) })
}

// switches reads the keys of a prefix that are on or off for a listener each, by its word.
func (b *builder) switches(prefix string) map[string]bool {
	on := make(map[string]bool)
	for _, set := range b.settings.list {
		word, ok := strings.CutPrefix(set.key, prefix)
		if !ok {
			continue
		}
		k, known := row(set.key)
		if !known {
			continue // strays warns of it
		}
		if v, ok := b.value(set.key, k); ok {
			on[word] = v.(bool)
		}
		if _, exists := b.settings.Get(listenerPrefix + word); !exists {
			b.warn(set.key, "there is no %s%s, so this does nothing; name a listener that there is", listenerPrefix, word)
		}
	}
	return on
}

// cluster finds out where nodes talk to each other.
func (b *builder) cluster() {
	c := b.config
	n, err := ParseNode(c.NodeName)
	if err != nil {
		return // the nodename has its own problem
	}
	c.NodeName, c.NodeHost = n.Name, n.Host
	_, explicit := b.text(keyClusterListener)
	if !explicit {
		if unspecified(n.Host) {
			b.problem(keyNodename, "%s is no address that other nodes could reach; put this machine's address behind the @, or set %s",
				n.Host, keyClusterListener)
			return
		}
		c.ClusterListener = Address{n.Host, b.defaultPort()}
	}
	for _, l := range c.Listeners {
		if c.ClusterListener.leavesNoRoomFor(l.address()) {
			b.problem(l.Key, "%s is already taken by the cluster listener (%s); choose another port here or for %s",
				l.Address(), c.ClusterListener, keyClusterListener)
		}
	}
	if explicit && unspecified(n.Host) && unspecified(c.ClusterListener.Host) {
		b.problem(keyClusterListener, "neither %s nor nodename (%s) has an address that other nodes could reach; set one of them to this machine's address",
			c.ClusterListener.Host, c.NodeName)
	}
	b.join()
}

// defaultPort is the default port of the cluster listener. Riak takes any
// number for its ports, so one that is none here is no error.
func (b *builder) defaultPort() int {
	for _, p := range []struct {
		key  string
		port int
	}{
		{keyPortMaximum, b.config.portMaximum},
		{keyPortMinimum, b.config.portMinimum},
	} {
		switch {
		case 0 < p.port && p.port <= 65535:
			return p.port
		case p.port != 0:
			b.warn(p.key, "%d is no port from 1 to 65535, and not used for the cluster listener; change it, or set %s", p.port, keyClusterListener)
		}
	}
	return clusterPort
}

// join gives the nodes to join that are named without a port the port that
// this node has itself, and drops those that are named again.
func (b *builder) join() {
	c := b.config
	if text, _ := b.text(keyJoin); len(c.Join) > 1 {
		for part := range strings.SplitSeq(text, ",") {
			if nodes := strings.Fields(part); len(nodes) > 1 {
				b.warn(keyJoin, "there is no comma between %s and %s, which are read as two nodes; write one", nodes[0], nodes[1])
				break
			}
		}
	}
	var list []Node
	for _, n := range c.Join {
		if n.Port == 0 {
			n.Port = c.ClusterListener.Port
		}
		if n.Port == 0 && c.ClusterListener.Host != "" { // else that has a problem of its own
			b.problem(keyJoin, "%s has no port, and this node's own, which it would take, is any free one; write for example %s",
				n.Name, Node{n.Name, n.Host, clusterPort})
		}
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	c.Join = list
}

// minimumNodes is 1 by default only where the node can be nothing but a
// development node: all of it literally on loopback addresses.
func (b *builder) minimumNodes() {
	c := b.config
	if _, set := b.text(keyMinimumNodes); set {
		return
	}
	c.MinimumNodes = 3
	if Loopback(c.NodeHost) && !slices.ContainsFunc(c.Listeners, Listener.remote) {
		c.MinimumNodes = 1
	}
}

// voters warns of a number of which one is of no use.
func (b *builder) voters() {
	if n := b.config.Voters; n > 0 && n%2 == 0 {
		b.warn(keyVoters, "%d voters bear no more dead ones than %d do, %d; write an odd number, %d or %d", n, n-1, n/2-1, n-1, n+1)
	}
}

// formatLevel refuses a level that this program does not write.
func (b *builder) formatLevel() {
	if level := b.config.FormatLevel; level > NewestFormatLevel {
		b.problem(keyFormatLevel, "%d is above %d, the newest level of this version; write %d or less, take the setting out, or install the version that has level %d",
			level, NewestFormatLevel, NewestFormatLevel, level)
	}
}

// advise warns of what works, but hardly as the operator means it.
func (b *builder) advise() {
	c := b.config
	if cookie, set := b.text(keyCookie); set {
		cure := fmt.Sprintf("set it to %d characters or more of your own, the same on all nodes", shortCookie)
		switch n := len([]rune(cookie)); {
		case cookie == defaultCookie:
			b.warn(keyCookie, "it is %s, the default that everybody knows; %s", defaultCookie, cure)
		case n < shortCookie:
			b.warn(keyCookie, "it has only %d characters and can be guessed; %s", n, cure)
		}
	}
	switch c.SecondCookie {
	case "":
	case c.Cookie:
		b.warn(keySecondCookie, "it is the same as %s, and does nothing; take it out", keyCookie)
	default:
		b.warn(keySecondCookie, "nodes with this cookie are let in, too; take it out when no node has it as its %s any more", keyCookie)
	}
	if value, _ := b.text(keyStrongConsistency); value == "off" {
		cure := "change"
		if _, set := b.settings.Get(keyStrongConsistency); !set {
			cure = "add"
		}
		b.warn(keyStrongConsistency, "it is off, so every JOIN is refused; %s the line: %s = on", cure, keyStrongConsistency)
	}
	if Loopback(c.NodeHost) && c.MinimumNodes > 1 && slices.ContainsFunc(c.Listeners, Listener.remote) {
		b.warn(keyNodename, "other machines cannot reach this node at %s, so none can be in its cluster, and JOINs are refused until there are %d nodes; put this machine's address behind the @, or set %s = 1 for a node that serves alone",
			c.NodeHost, c.MinimumNodes, keyMinimumNodes)
	}
	b.twice()
	isListener := func(s setting) bool { return strings.HasPrefix(s.key, listenerPrefix) }
	if !slices.ContainsFunc(b.settings.list, isListener) {
		host := cmp.Or(c.NodeHost, "127.0.0.1")
		b.warnings = append(b.warnings, Problem{
			Position: Position{File: c.Path},
			Text: fmt.Sprintf("no client can connect, as there is no listener; add the line %sinternal = %s",
				listenerPrefix, Address{host, clientPort}),
		})
	}
}

// twice warns of keys of this service that one file sets to two values: whoever changes
// the first line sees no effect.
func (b *builder) twice() {
	for _, set := range b.settings.list {
		lost, twice := b.settings.overruled[set.key]
		if _, flag := b.overrides[set.key]; twice && !flag {
			b.warn(set.key, "line %d sets it too, to another value, and this line wins; take one of them out", lost.line)
		}
	}
}
