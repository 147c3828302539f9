package servicelog

import (
	"log/slog"
	"sync/atomic"
	"time"

	"leaderlatch/ensemble/diskthread"
)

// A sink writes entries to one place. Only the goroutine of its queue
// calls it.
type sink interface {
	// write writes one entry. With an error, that entry is lost.
	write(entry) error

	// tend looks after the place between entries: every tendEvery, and with
	// reopen when SIGHUP asks for it.
	tend(reopen bool)

	close()
}

// queue hands entries to a sink on a goroutine of its own, run: who logs
// may hold a lock that a client's life hangs on, and must not wait for a disk
// that stalls or a full pipe. Entries that find the queue full are lost, like
// those that cannot be written; their number is written as soon as one can be.
type queue struct {
	level slog.Level
	sink  sink
	json  *objects                    // as entries are wanted, for its own
	disk  *diskthread.Thread          // on which the sink is opened, and run; nil: it needs none
	warn  func(msg string, err error) // to all places, this one too

	entries chan entry
	lost    atomic.Int64
	reopen  chan struct{}
	quit    chan struct{}
	done    chan struct{}

	failing bool // the last entry was lost
	warned  time.Time
}

const (
	queueLength = 4096
	tendEvery   = time.Minute
)

func newQueue(level slog.Level, s sink, warn func(string, error)) *queue {
	return &queue{
		level: level, sink: s, warn: warn,
		entries: make(chan entry, queueLength),
		reopen:  make(chan struct{}, 1),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// add queues an entry. It does not wait.
func (q *queue) add(e entry) {
	select {
	case q.entries <- e:
	default:
		q.lost.Add(1)
	}
}

// askToReopen has the sink opened again before the next entry that is added.
func (q *queue) askToReopen() {
	select {
	case q.reopen <- struct{}{}:
	default: // asked already
	}
}

// start runs the queue, on its thread if it has one: a disk that hangs may hold that.
func (q *queue) start() {
	go func() {
		q.disk.Do(func() error {
			q.run()
			return nil
		})
		q.disk.Close()
	}()
}

// run writes what is added until quit is closed, then what is queued.
func (q *queue) run() {
	defer close(q.done)
	defer q.sink.close()
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-q.entries:
			select {
			case <-q.reopen:
				q.sink.tend(true)
			default:
			}
			q.write(e)
		case <-q.reopen:
			q.sink.tend(true)
		case <-tick.C:
			q.sink.tend(false)
		case <-q.quit:
			for len(q.entries) > 0 {
				q.write(<-q.entries)
			}
			return
		}
	}
}

func (q *queue) write(e entry) {
	if err := q.sink.write(e); err != nil {
		q.lost.Add(1)
		q.failed(err)
		return
	}
	q.failing = false
	n := q.lost.Swap(0)
	if n == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "the log could not be written in time", 0)
	r.AddAttrs(slog.Int64("lines_lost", n))
	loss := (&lineHandler{json: q.json}).entry(r)
	if err := q.sink.write(loss); err != nil {
		q.lost.Add(n)
		q.failed(err)
	}
}

// failed tells the other places, once in a while, that this one takes nothing.
func (q *queue) failed(err error) {
	if !q.failing && time.Since(q.warned) >= time.Minute {
		q.warned = time.Now()
		q.warn("log lines are lost", err)
	}
	q.failing = true
}
