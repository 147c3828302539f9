// Package servicelog is the log of the service. It goes to as many places as riak.conf
// names (riak.conf rules 57 to 62). A record becomes an entry (line.go). Each place has a
// queue of its own for entries (queue.go), so that one that is stuck holds up neither
// who logs nor the others. The places:
//
//	console.go  stderr: a terminal, or the journal
//	file.go     log.console.file and log.error.file, rotated
//	syslog.go   the local syslog
//	crash.go    what the Go runtime prints when the process crashes
//
// An entry is a line like Riak's, or a JSON object (json.go).
//
// Start at [Open].
package servicelog

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"leaderlatch/ensemble/diskthread"
	"leaderlatch/riakconf"
)

// Log is an open log. All its methods but Close may be called from all goroutines.
type Log struct {
	*slog.Logger

	// OnConsole says that errors are seen on [Places].Console.
	OnConsole bool

	check   func(folder string) error
	queues  []*queue
	crash   *crashFile         // nil if log.crash is off
	disk    *diskthread.Thread // of the file of crashes
	early   []func()           // warnings of things before there was a log
	hangups chan os.Signal
}

// Places is what riak.conf does not say of the places.
type Places struct {
	Console io.Writer // stderr
	Journal string    // $JOURNAL_STREAM: the device and inode of what systemd reads, if it does
	Syslog  string    // the socket of the local syslog

	// Check refuses a folder in which files must not be made. It gets the folder of
	// each file before it is opened.
	Check func(folder string) error
}

// Rotation of the log files, not to be configured (riak.conf rule 60).
const (
	fileSize = 10 << 20 // bytes
	fileKeep = 5
)

// Open opens the log where riak.conf wants it. From then on SIGHUP opens
// its files again. An error names the key, the file and the cure.
func Open(c riakconf.Log, places Places) (*Log, error) {
	l := &Log{check: places.Check, hangups: make(chan os.Signal, 1)}
	opened := false
	defer func() {
		if !opened {
			l.discard()
		}
	}()
	toConsole := c.Console == "console" || c.Console == "both"
	toFile := c.Console == "file" || c.Console == "both"
	level, on := levelNamed(c.ConsoleLevel)
	if toConsole && on {
		l.OnConsole = true
		q := l.add("log.console", level, &consoleSink{places.Console, isJournal(places.Console, places.Journal)})
		q.disk = diskthread.Start() // stderr may be a file
	}
	if toFile && on {
		if err := l.addFile("log.console.file", level, c.ConsoleFile); err != nil {
			return nil, err
		}
	}
	if err := l.addFile("log.error.file", slog.LevelError, c.ErrorFile); err != nil {
		return nil, err
	}
	if c.Crash {
		if err := l.addCrashes(c); err != nil {
			return nil, err
		}
	}
	if level, on := levelNamed(c.SyslogLevel); c.Syslog && on {
		s := newSyslog(places.Syslog, c.SyslogFacility, c.SyslogIdent)
		q := l.add("log.syslog", level, s)
		if err := s.dial(); err != nil {
			l.early = append(l.early, func() { q.failed(err) })
		}
	}

	root := &lineHandler{queues: l.queues}
	if c.Format == "json" {
		root.json = newObjects()
	}
	for _, q := range l.queues {
		q.json = root.json
	}
	l.Logger = slog.New(root)
	for _, warn := range l.early {
		warn()
	}
	for _, q := range l.queues {
		q.start()
	}
	signal.Notify(l.hangups, syscall.SIGHUP)
	go func() {
		l.disk.Do(func() error {
			l.tend()
			return nil
		})
		l.disk.Close()
	}()
	opened = true
	return l, nil
}

// add adds a place. key names it in warnings.
func (l *Log) add(key string, level slog.Level, s sink) *queue {
	warn := func(msg string, err error) { l.Warn(msg, "to", key, "error", err) }
	q := newQueue(level, s, warn)
	l.queues = append(l.queues, q)
	return q
}

func (l *Log) addFile(key string, level slog.Level, name string) error {
	if err := l.check(filepath.Dir(name)); err != nil {
		return cureFile(key, err)
	}
	warn := func(msg string, err error) { l.Warn(msg, "to", key, "error", err) }
	disk := diskthread.Start()
	err := disk.Do(func() error {
		f, err := openFile(name, fileSize, fileKeep, time.Now, warn)
		if err == nil {
			l.add(key, level, f).disk = disk
		}
		return err
	})
	if err != nil {
		disk.Close()
		return cureFile(key, err)
	}
	return nil
}

const crashKey = "log.crash.file"

func (l *Log) addCrashes(c riakconf.Log) error {
	if err := l.check(filepath.Dir(c.CrashFile)); err != nil {
		return cureFile(crashKey, err)
	}
	f := &crashFile{name: c.CrashFile}
	if err := f.rotate(c); err != nil {
		l.early = append(l.early, func() { l.Warn(cannotRotate, "to", crashKey, "error", err) })
	}
	if err := f.open(); err != nil {
		return cureFile(crashKey, err)
	}
	l.crash, l.disk = f, diskthread.Start()
	return nil
}

// tend opens the files again at SIGHUP, and looks after the one that has no
// queue, until Close.
func (l *Log) tend() {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case _, more := <-l.hangups:
			if !more {
				return
			}
			l.reopen()
		case <-tick.C:
			l.tendCrashes((*crashFile).look)
		}
	}
}

// reopen opens the files again, under the names that they have in riak.conf.
func (l *Log) reopen() {
	for _, q := range l.queues {
		q.askToReopen()
	}
	l.tendCrashes((*crashFile).open)
	l.Info("log files opened again on a signal", "signal", syscall.SIGHUP.String())
}

func (l *Log) tendCrashes(by func(*crashFile) error) {
	if l.crash == nil {
		return
	}
	err := by(l.crash)
	if err != nil && !l.crash.failing {
		l.Warn(cannotReopen, "to", crashKey, "error", err)
	}
	l.crash.failing = err != nil
}

// Close writes what is queued, unless that takes longer than a second: the process
// should rather end then. What is logged later is lost.
func (l *Log) Close() {
	signal.Stop(l.hangups)
	close(l.hangups)
	for _, q := range l.queues {
		close(q.quit)
	}
	patience := time.After(time.Second)
	for _, q := range l.queues {
		select {
		case <-q.done:
		case <-patience:
			return
		}
	}
}

// discard closes the places of a log that is not to be.
func (l *Log) discard() {
	for _, q := range l.queues {
		q.disk.Do(func() error {
			q.sink.close()
			return nil
		})
		q.disk.Close()
	}
	l.disk.Close()
}

// levelNamed is a level of Riak's as slog's; false for none. This service logs
// nothing between info and warning, and nothing above error.
func levelNamed(name string) (slog.Level, bool) {
	switch name {
	case "none":
		return 0, false
	case "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "notice", "warning":
		return slog.LevelWarn, true
	}
	return slog.LevelError, true // error, critical, alert, emergency
}
