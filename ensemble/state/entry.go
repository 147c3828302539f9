package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

// What a Raft log entry holds. Decided once: an entry that is written stays
// readable for as long as the log may hold it.
//
//	entry   = version(1 byte) at(uvarint, Unix milliseconds) count(uvarint) op*
//	op      = kind(1 byte) [reason(1 byte)] fields in the order of the struct
//	string  = length(uvarint) bytes
//	integer = uvarint; durations in nanoseconds
//
// Version 1 has the operations up to Remove, version 2 Raise and Lift too, version 3 KeyedJoin
// and StepDown. From version 3 on an Open, Leave, End or Expire may be of its kind with
// [withReason]: its reason follows then, and By only then. Which version is written, the level
// says (level.go).

const (
	// MaxOps is how many operations one entry may hold. A position in the
	// log (see [Position]) leaves ten bits for the operation's number.
	MaxOps = 1 << PositionBits

	// MaxBytes bounds an entry, so that one does not keep the others
	// waiting on disk and network.
	MaxBytes = 64 << 10

	// maxString bounds every string on decoding. Names of groups and clients
	// have at most 255 bytes; node names and addresses are host names.
	maxString = 1024

	PositionBits = 10
)

// ErrFormat is wrapped by errors about data of a version that this program
// does not read: it was written by a newer one.
var ErrFormat = errors.New("written by a newer version of leader-latch")

// ErrCorrupt is wrapped by errors about bytes that no version writes.
var ErrCorrupt = errors.New("damaged data")

// Position is the place of an operation in the replicated log: the index of
// its entry and its number within that, so that no two operations share one.
type Position uint64

func PositionOf(index uint64, op int) Position {
	return Position(index<<PositionBits | uint64(op))
}

// NodeID names a node for ever; it is random and lies in its data folder.
type NodeID string

// Incarnation is one life of a node's session: the position of its Open.
type Incarnation Position

// MemberID names one membership for ever: the incarnation that proposed its
// Join and that Join's number in it.
type MemberID struct {
	Incarnation Incarnation
	Seq         uint64
}

// Entry is what one Raft log entry holds: operations that take effect one
// after the other.
type Entry struct {
	At  time.Time // wall clock of the proposer, for people to read; decides nothing
	Ops []Op
}

// Op is an operation of the replicated state machine: one of [Found], [Open],
// [Join], [KeyedJoin], [Leave], [StepDown], [Renew], [End], [Expire], [Activate], [Remove],
// [Raise] and [Lift].
type Op interface {
	encode(*encoder) // its kind, and its fields
}

type opKind byte

// The kinds as they are on disk.
const (
	kindFound    opKind = 1
	kindActivate opKind = 2
	kindOpen     opKind = 3
	kindRenew    opKind = 4
	kindJoin     opKind = 5
	kindLeave    opKind = 6
	kindEnd      opKind = 7
	kindExpire   opKind = 8
	kindRemove   opKind = 9
	kindRaise    opKind = 10 // from entries of version 2 on
	kindLift     opKind = 11 // likewise
	kindKeyed    opKind = 12 // from entries of version 3 on
	kindStepDown opKind = 13 // likewise

	withReason opKind = 0x40 // likewise; added to a kind
)

// since is the version of entries from which on they have operations of a kind.
func (k opKind) since() byte {
	switch k {
	case kindRaise, kindLift:
		return levels[2].entry
	case kindKeyed, kindStepDown, kindOpen | withReason, kindLeave | withReason, kindEnd | withReason, kindExpire | withReason:
		return levels[KeyedLevel].entry
	}
	return levels[FirstLevel].entry
}

type (
	// Found gives the cluster its identity. Only the first one counts.
	Found struct {
		Cluster   string
		TokenBase uint64
	}

	// Activate lets elections begin, for good.
	Activate struct{}

	// Open begins an incarnation of a node's session (DESIGN.md, rule 1).
	// Reason is that of the end of the session before: the process is a new one, or it has
	// lost its session.
	Open struct {
		Node    NodeID
		Counter uint64 // above that of every Open before, fsynced by the node before it is used
		Boot    string // the machine's boot, so that a restart on it may end the session before at once
		Lease   time.Duration
		Expiry  time.Duration // S: silent for so long, the session may be expired
		Name    string        // the node's name for people
		Address string        // where other nodes reach it
		Reads   uint64        // the newest level that the node reads, and lets the cluster rise to
		Reason  Reason
	}

	// Renew is a sign of life; its acceptance prolongs the node's lease.
	Renew struct {
		Incarnation Incarnation
		Seq         uint64
	}

	// Join makes Client the last member of Group.
	Join struct {
		Incarnation   Incarnation
		Seq           uint64
		Group, Client string
	}

	// KeyedJoin makes Client a keyed member of Group, the last one; or, if Client is one
	// already with the same key, moves that to this session: its place, its token and its
	// hold stay, and the hold may become longer.
	KeyedJoin struct {
		Join
		Key  Key
		Hold time.Duration // as the proposing node grants it
	}

	// Leave ends the membership that the Join numbered Join began, or moved to this session.
	// It never names a client: another one may have the name by then. Nor does it end a
	// membership that has moved since, be it to another connection of the same node.
	Leave struct {
		Incarnation Incarnation
		Seq         uint64
		Join        uint64
		Reason      Reason
	}

	// StepDown makes the keyed member that the Join numbered Join began, or moved to this
	// session, the last one of its group, if it has a hold, leads with Token, and another one
	// follows. A member that has moved since leads on: its new node has made promises of its own.
	StepDown struct {
		Incarnation Incarnation
		Seq         uint64
		Join        uint64
		Token       uint64
	}

	// End ends the node's own session and all its memberships but the keyed ones.
	End struct {
		Incarnation Incarnation
		Seq         uint64
		Reason      Reason
	}

	// Expire ends the session of a silent node, or one that has keyed members only, with
	// all its memberships, if Renewal is still its last sign of life (DESIGN.md, rule 4): the
	// number of the last Renew that was accepted, or of the last Join that moved a member to it.
	Expire struct {
		Incarnation Incarnation
		Renewal     uint64
		Reason      Reason
		By          NodeID // who has found it silent
	}

	// Remove says that a node is no member of the cluster any more, for ever.
	// Its session, if it has one, is left to end by itself or by Expire.
	Remove struct{ Node NodeID }

	// Raise raises the level of what is written. It is the first operation that is
	// written so. From KeyedLevel on it does nothing unless all nodes that are no member any
	// more were removed, and the others have sessions that announce the level.
	Raise struct{ Level uint64 }

	// Lift has every token from here on be above these, which another cluster may have
	// given.
	Lift struct{ Tokens uint64 }
)

func (o Found) encode(e *encoder) {
	e.kind(kindFound)
	e.string(o.Cluster)
	e.uint(o.TokenBase)
}
func (Activate) encode(e *encoder) { e.kind(kindActivate) }
func (o Open) encode(e *encoder) {
	e.reasoned(kindOpen, o.Reason)
	e.string(string(o.Node))
	e.uint(o.Counter)
	e.string(o.Boot)
	e.uint(uint64(o.Lease))
	e.uint(uint64(o.Expiry))
	e.string(o.Name)
	e.string(o.Address)
	e.uint(o.Reads)
}
func (o Renew) encode(e *encoder) {
	e.kind(kindRenew)
	e.uint(uint64(o.Incarnation))
	e.uint(o.Seq)
}
func (o Join) encode(e *encoder) {
	e.kind(kindJoin)
	o.fields(e)
}
func (o Join) fields(e *encoder) {
	e.uint(uint64(o.Incarnation))
	e.uint(o.Seq)
	e.string(o.Group)
	e.string(o.Client)
}
func (o KeyedJoin) encode(e *encoder) {
	e.kind(kindKeyed)
	o.fields(e)
	e.key(o.Key)
	e.uint(uint64(o.Hold))
}
func (o Leave) encode(e *encoder) {
	e.reasoned(kindLeave, o.Reason)
	e.uint(uint64(o.Incarnation))
	e.uint(o.Seq)
	e.uint(o.Join)
}
func (o StepDown) encode(e *encoder) {
	e.kind(kindStepDown)
	e.uint(uint64(o.Incarnation))
	e.uint(o.Seq)
	e.uint(o.Join)
	e.uint(o.Token)
}
func (o End) encode(e *encoder) {
	e.reasoned(kindEnd, o.Reason)
	e.uint(uint64(o.Incarnation))
	e.uint(o.Seq)
}
func (o Expire) encode(e *encoder) {
	with := e.reasoned(kindExpire, o.Reason)
	e.uint(uint64(o.Incarnation))
	e.uint(o.Renewal)
	if with {
		e.string(string(o.By))
	}
}
func (o Remove) encode(e *encoder) {
	e.kind(kindRemove)
	e.string(string(o.Node))
}
func (o Raise) encode(e *encoder) {
	e.kind(kindRaise)
	e.uint(o.Level)
}
func (o Lift) encode(e *encoder) {
	e.kind(kindLift)
	e.uint(o.Tokens)
}

// decodeOp reads an operation of an entry of a version. A Raise to a level above newest is
// not read.
func decodeOp(d *decoder, version byte, newest uint64) (Op, error) {
	k := opKind(d.byte())
	if version < k.since() {
		return nil, fmt.Errorf("an operation of kind %d in an entry of version %d: %w", k, version, ErrCorrupt)
	}
	var why Reason
	switch k {
	case kindOpen | withReason, kindLeave | withReason, kindEnd | withReason, kindExpire | withReason:
		k &^= withReason
		if why = Reason(d.byte()); why == 0 {
			d.fail("no reason")
		}
	}
	switch k {
	case kindFound:
		return Found{Cluster: d.string(), TokenBase: d.uint()}, d.err
	case kindActivate:
		return Activate{}, d.err
	case kindOpen:
		return Open{
			Node:    NodeID(d.string()),
			Counter: d.uint(),
			Boot:    d.string(),
			Lease:   time.Duration(d.uint()),
			Expiry:  time.Duration(d.uint()),
			Name:    d.string(),
			Address: d.string(),
			Reads:   d.uint(),
			Reason:  why,
		}, d.err
	case kindRenew:
		return Renew{Incarnation: d.incarnation(), Seq: d.uint()}, d.err
	case kindJoin:
		return d.join(), d.err
	case kindKeyed:
		return KeyedJoin{Join: d.join(), Key: d.key(), Hold: time.Duration(d.uint())}, d.err
	case kindLeave:
		return Leave{Incarnation: d.incarnation(), Seq: d.uint(), Join: d.uint(), Reason: why}, d.err
	case kindStepDown:
		return StepDown{Incarnation: d.incarnation(), Seq: d.uint(), Join: d.uint(), Token: d.uint()}, d.err
	case kindEnd:
		return End{Incarnation: d.incarnation(), Seq: d.uint(), Reason: why}, d.err
	case kindExpire:
		o := Expire{Incarnation: d.incarnation(), Renewal: d.uint(), Reason: why}
		if why != 0 {
			o.By = NodeID(d.string())
		}
		return o, d.err
	case kindRemove:
		return Remove{Node: NodeID(d.string())}, d.err
	case kindRaise:
		o := Raise{Level: d.uint()}
		if d.err == nil && o.Level > newest {
			return nil, fmt.Errorf("formats of level %d: %w", o.Level, ErrFormat)
		}
		return o, d.err
	case kindLift:
		return Lift{Tokens: d.uint()}, d.err
	default:
		if d.err != nil {
			return nil, d.err
		}
		return nil, fmt.Errorf("operation of kind %d: %w", k, ErrFormat)
	}
}

// SeqOf is the number of an operation of a session in that; 0: it has none.
func SeqOf(op Op) uint64 {
	switch op := op.(type) {
	case Renew:
		return op.Seq
	case Join:
		return op.Seq
	case KeyedJoin:
		return op.Seq
	case Leave:
		return op.Seq
	case StepDown:
		return op.Seq
	case End:
		return op.Seq
	}
	return 0
}

// SizeOf is an upper bound of the bytes of an operation in an entry.
func SizeOf(op Op) int {
	const integers = 32
	switch op := op.(type) {
	case Join:
		return integers + len(op.Group) + len(op.Client)
	case KeyedJoin:
		return integers + len(op.Group) + len(op.Client) + len(op.Key) + binary.MaxVarintLen64
	case StepDown:
		return integers + binary.MaxVarintLen64
	}
	return integers
}

// Encode gives the bytes of a log entry as a level has them. It panics at an operation that the
// level does not have.
func Encode(level uint64, entry Entry) []byte {
	e := &encoder{buf: make([]byte, 0, 16+48*len(entry.Ops)), version: levels[level].entry}
	e.byte(e.version)
	e.uint(uint64(max(0, entry.At.UnixMilli())))
	e.uint(uint64(len(entry.Ops)))
	for _, op := range entry.Ops {
		op.encode(e)
	}
	return e.buf
}

// Decode reads a log entry. Its error wraps [ErrFormat] if this program does not
// know the entry's version, or one of its operations.
func Decode(b []byte) (Entry, error) { return decode(b, NewestLevel) }

// decode reads an entry as a program does that reads levels up to newest.
func decode(b []byte, newest uint64) (Entry, error) {
	d := &decoder{buf: b}
	version := d.byte()
	if d.err == nil && (version == 0 || version > levels[newest].entry) {
		return Entry{}, fmt.Errorf("log entry of version %d: %w", version, ErrFormat)
	}
	entry := Entry{At: time.UnixMilli(int64(d.uint()))}
	n := d.uint()
	if n > MaxOps {
		return Entry{}, fmt.Errorf("log entry of %d operations: %w", n, ErrCorrupt)
	}
	if d.err == nil {
		entry.Ops = make([]Op, 0, min(n, uint64(len(d.buf)))) // an operation has a byte at least
	}
	for range n {
		op, err := decodeOp(d, version, newest)
		if err != nil {
			return Entry{}, fmt.Errorf("log entry: %w", err)
		}
		entry.Ops = append(entry.Ops, op)
	}
	if err := d.end(); err != nil {
		return Entry{}, fmt.Errorf("log entry: %w", err)
	}
	return entry, nil
}

// encoder and decoder write and read the primitives of entries and snapshots.
type encoder struct {
	buf     []byte
	version byte // of the entry or the snapshot
}

func (e *encoder) byte(b byte)   { e.buf = append(e.buf, b) }
func (e *encoder) uint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *encoder) bool(v bool) {
	if v {
		e.byte(1)
	} else {
		e.byte(0)
	}
}
func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.buf = append(e.buf, s...)
}
func (e *encoder) key(k Key) { e.buf = append(e.buf, k[:]...) }

// kind writes a kind. It panics at one that entries of this version do not have: such an entry
// in the log would stop every node for good, and this node alone has done wrong.
func (e *encoder) kind(k opKind) {
	if k.since() > e.version {
		panic(fmt.Sprintf("state: an operation of kind %d in an entry of version %d", k, e.version))
	}
	e.byte(byte(k))
}

// reasoned writes a kind, with the reason if there is one and the entry can have it.
func (e *encoder) reasoned(k opKind, why Reason) (with bool) {
	if with = why != 0 && e.version >= (k|withReason).since(); with {
		e.kind(k | withReason)
		e.byte(byte(why))
	} else {
		e.kind(k)
	}
	return with
}

// decoder keeps its first error; after it all values are zero.
type decoder struct {
	buf  []byte
	err  error
	from io.Reader // nil: all is in buf
	page []byte    // of which buf is a part then
}

// maxRecord is more than what is read between two calls of fill can have.
const maxRecord = 8 << 10

// fill reads on, so that a record is whole in the buffer if it is whole at all.
func (d *decoder) fill() {
	if d.from == nil || d.err != nil || len(d.buf) >= maxRecord {
		return
	}
	if d.page == nil {
		d.page = make([]byte, snapshotPage)
	}
	rest := copy(d.page, d.buf)
	n, err := io.ReadFull(d.from, d.page[rest:])
	d.buf = d.page[:rest+n]
	switch err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		d.from = nil
	default:
		d.err, d.buf = err, nil
	}
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", what, ErrCorrupt)
	}
	d.buf = nil
}

func (d *decoder) byte() byte {
	if len(d.buf) == 0 {
		d.fail("ends early")
		return 0
	}
	b := d.buf[0]
	d.buf = d.buf[1:]
	return b
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.buf)
	if n <= 0 {
		d.fail("bad integer")
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) bool() bool {
	b := d.byte()
	if b > 1 {
		d.fail("bad truth value")
	}
	return b == 1
}

func (d *decoder) string() string {
	n := d.uint()
	if n > maxString || n > uint64(len(d.buf)) {
		d.fail("bad length")
		return ""
	}
	s := string(d.buf[:n])
	d.buf = d.buf[n:]
	return s
}

func (d *decoder) incarnation() Incarnation { return Incarnation(d.uint()) }

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > math.MaxUint32 {
		d.fail("bad number")
		return 0
	}
	return uint32(v)
}

func (d *decoder) join() Join {
	return Join{Incarnation: d.incarnation(), Seq: d.uint(), Group: d.string(), Client: d.string()}
}

func (d *decoder) key() (k Key) {
	if len(d.buf) < len(k) {
		d.fail("ends early")
		return Key{}
	}
	d.buf = d.buf[copy(k[:], d.buf):]
	return k
}

// end is the decoder's error, or that bytes are left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.buf) > 0 {
		d.fail("bytes left over")
	}
	return d.err
}
