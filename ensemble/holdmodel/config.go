package main

// A rule is one that a case can take away. HOLDS.md says what they are for.
type rule uint64

const (
	tight           rule = 1 << iota // ALIVE is never longer than the formula
	offHold                          // e comes off hold too
	holdFromJoin                     // a hold runs from the acceptance of the own Join, if that is later
	moveRenews                       // a Move counts for Expire
	openSpares                       // an Open spares keyed members
	endSpares                        // an End spares keyed members
	leaveById                        // a Leave names the member by id
	fromSending                      // e counts from the sending of the renewal
	clockFactor                      // the promise is shortened by the error of the clocks
	promiseAlone                     // a client with hold believes no longer than its promise
	closesFirst                      // a client ends its old connection before it JOINs again
	longestExpiry                    // Expire waits for the longest of S and the holds in the session
	resets                           // a client with fin=end that goes on ends connections by resets
	finBefore                        // a FIN counts only if it was read before the node began to end the connection
	holdStays                        // a Move never lowers the hold
	sameKey                          // a Move needs the key
	byMember                         // a node compares members by session and id
	dropsPromises                    // LEAVE ends the client's own belief
	nodeEndHolds                     // where the node ends a connection it waits before the Leave
	nodeEndLeaves                    // where the node ends a connection there is a Leave at all
	stuckCloses                      // a client that sends no PING is closed
	watchersToo                      // observers are closed when the lease is over
	positions                        // NO_LEADER carries a position, and clients drop what is older
	refusesJoins                     // a node that stops refuses JOINs
	endLast                          // a node that stops ends its session after its connections
	handsOver                        // a node that stops hands over Raft's leadership first
	stepSilent                       // during a step-down PING is answered ALIVE 0
	stepWaits                        // the operation of a step-down waits for what was promised
	stepDownById                     // it names the member by id
	stepUntilDone                    // ALIVE 0 until the own state has applied it
	stepClosesPlain                  // a plain leader is closed first, and leaves
	stepClosesZero                   // so is a keyed one without hold
	leaderFirst                      // ALIVE is written after the newest LEADER of the own state
	levelFirst                       // keyed JOINs are refused before the level
	raiseIsJudged                    // the state refuses a Raise that not all members have announced
	waitForBoot                      // an Open of another boot waits until the old session is expired
	freshExpirer                     // a new raft leader expires nobody for 2R
	rolled                           // the next node is stopped when all others have a session
	allMoved                         // and no orphaned session has members
	holdByPromise                    // a client with hold counts by its promises, not by its connection
	asksBind                         // after an ALREADY_JOINED a client without hold stays for W, unless its FIN is read
	moveBinds                        // and after a Move
	oldEnds                          // a client without hold that has moved stays until its connection before is closed
	gate                             // no PING is answered after the lease: the second wall, not needed for P2
)

func without(r rule) bool { return cfg.without&r != 0 }

// A client is one process: a name and a key, or a plain one.
type client struct {
	name   int8
	keyed  bool
	hold   int8 // of its first JOIN
	later  int8 // of its later JOINs, if that is another
	finEnd bool // it said fin=end
}

// A config is the setting of a case: the cluster, its clocks, what may happen how often, and the
// rule that is missing.
type config struct {
	nodes   int             // processes
	id      [maxNodes]int8  // node of a process: two processes of one id have copies of a folder
	boot    [maxNodes]int8  // of the machine
	off     [maxNodes]bool  // not running at the beginning
	old     [maxNodes]bool  // of the version before, which reads no keyed JOIN
	level   int8            // at the beginning
	rate    [maxNodes]int16 // of each node's clock
	clientR int16           // of the clients' clocks
	expireR int16           // of the raft leader's clock: the fastest that may be
	num     int16           // the factor (1-rho)/(1+rho) is num/den
	den     int16
	L, C, S [maxNodes]int16 // by node
	until   int16           // the time at which a run ends
	clients []client        // the first one leads at the beginning, the others join if they may
	joined  int             // so many of them are members at the beginning, on process 0
	budget  budget          // how often things may happen
	lines   bool            // LEADER lines are played, and P1 is checked
	only    property        // check this one alone; 0: all
	without rule            //
	timed   bool            // everything happens in time, see timed.go
	T       times           // in timed cases
	leaves  bool            // LEAVE may be sent
	waits   bool            // LEAVE is held back for S after a Move: the other cure of fB
	unread  bool            // the first LEADER is not read at the beginning
	asks    bool            // keyed clients without hold send JOIN again
	emptyX  bool            // sessions without members are expired too
}

// budget counts what may still happen.
type budget struct {
	Renew, Join, Close, Break, Kick, Crash, Stop, Pause, Open, Ping, Snap, Step, Raise, Old, Reboot, Watch, Hang int8
}

var cfg config

func (c *config) ids() int {
	n := 0
	for i := range c.nodes {
		n = max(n, int(c.id[i])+1)
	}
	return n
}

// base is two nodes with equal clocks, and one keyed client with hold.
func base() config {
	c := config{nodes: 2, id: [maxNodes]int8{0, 1, 2}, level: 1, clientR: 1, expireR: 1, num: 1, den: 1, until: 6, joined: 1}
	c.clients = []client{{keyed: true, hold: 2}}
	for i := range maxNodes {
		c.rate[i], c.L[i], c.C[i], c.S[i] = 1, 2, 1, 3
	}
	return c
}

// wide is three nodes whose clocks run as 9:11:10, so that rho is 0.1, and every fault.
func wide(c *config) {
	c.nodes = 3
	c.rate = [maxNodes]int16{9, 11, 10}
	c.clientR, c.expireR, c.num, c.den = 9, 11, 9, 11
	for i := range maxNodes {
		c.L[i], c.C[i], c.S[i] = 20, 10, 48
	}
	c.clients[0].hold = 40
	c.until = 16
	c.budget = budget{Renew: 5, Join: 3, Ping: 4, Break: 2, Close: 1, Kick: 1, Crash: 1, Stop: 1, Pause: 1, Open: 2, Snap: 1, Reboot: 1}
}
