package main

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"leaderlatch/ensemble"
	"leaderlatch/ensemble/diskthread"
	"leaderlatch/riakconf"
)

// serviceLog is the log of serve. It goes to as many places as riak.conf
// names (riak.conf rules 57 to 62): a record becomes an entry (log_line.go),
// and each place has a queue of its own for entries (log_queue.go), so that
// one that is stuck holds up neither who logs nor the others. The places:
//
//	log_console.go  stderr: a terminal, or the journal
//	log_file.go     log.console.file and log.error.file, rotated
//	syslog.go       the local syslog
//	log_crash.go    what the Go runtime prints when the process crashes
type serviceLog struct {
	*slog.Logger
	onConsole bool // errors are seen on stderr
	queues    []*logQueue
	crash     *crashFile         // nil if log.crash is off
	disk      *diskthread.Thread // of the file of crashes
	early     []func()           // warnings of things before there was a log
	hangups   chan os.Signal
}

// logPlaces are the places that riak.conf does not name.
type logPlaces struct {
	console io.Writer
	journal string // $JOURNAL_STREAM
	syslog  string // the socket of the local syslog
}

// Rotation of the log files, not to be configured (riak.conf rule 60).
const (
	logFileSize = 10 << 20 // bytes
	logFileKeep = 5
)

// openLog opens the log where riak.conf wants it. From then on SIGHUP opens
// its files again. An error names the key, the file and the cure.
func openLog(conf *riakconf.Config, places logPlaces) (*serviceLog, error) {
	c := conf.Log
	l := &serviceLog{hangups: make(chan os.Signal, 1)}
	opened := false
	defer func() {
		if !opened {
			l.discard()
		}
	}()
	toConsole := c.Console == "console" || c.Console == "both"
	toFile := c.Console == "file" || c.Console == "both"
	level, on := logLevel(c.ConsoleLevel)
	if toConsole && on {
		l.onConsole = true
		q := l.add("log.console", level, &consoleSink{places.console, isJournal(places.console, places.journal)})
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
	if level, on := logLevel(c.SyslogLevel); c.Syslog && on {
		s := newSyslog(places.syslog, c.SyslogFacility, c.SyslogIdent)
		q := l.add("log.syslog", level, s)
		if err := s.dial(); err != nil {
			l.early = append(l.early, func() { q.failed(err) })
		}
	}

	l.Logger = slog.New(&lineHandler{queues: l.queues})
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
func (l *serviceLog) add(key string, level slog.Level, s logSink) *logQueue {
	warn := func(msg string, err error) { l.Warn(msg, "to", key, "error", err) }
	q := newLogQueue(level, s, warn)
	l.queues = append(l.queues, q)
	return q
}

func (l *serviceLog) addFile(key string, level slog.Level, name string) error {
	if err := ensemble.CheckOwner(filepath.Dir(name)); err != nil {
		return cureLogFile(key, err)
	}
	warn := func(msg string, err error) { l.Warn(msg, "to", key, "error", err) }
	disk := diskthread.Start()
	err := disk.Do(func() error {
		f, err := openLogFile(name, logFileSize, logFileKeep, time.Now, warn)
		if err == nil {
			l.add(key, level, f).disk = disk
		}
		return err
	})
	if err != nil {
		disk.Close()
		return cureLogFile(key, err)
	}
	return nil
}

const crashKey = "log.crash.file"

func (l *serviceLog) addCrashes(c riakconf.Log) error {
	if err := ensemble.CheckOwner(filepath.Dir(c.CrashFile)); err != nil {
		return cureLogFile(crashKey, err)
	}
	f := &crashFile{name: c.CrashFile}
	if err := f.rotate(c); err != nil {
		l.early = append(l.early, func() { l.Warn(cannotRotate, "to", crashKey, "error", err) })
	}
	if err := f.open(); err != nil {
		return cureLogFile(crashKey, err)
	}
	l.crash, l.disk = f, diskthread.Start()
	return nil
}

// tend opens the files again at SIGHUP, and looks after the one that has no
// queue, until close.
func (l *serviceLog) tend() {
	tick := time.NewTicker(logTend)
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
func (l *serviceLog) reopen() {
	for _, q := range l.queues {
		q.askToReopen()
	}
	l.tendCrashes((*crashFile).open)
	l.Info("log files opened again on a signal", "signal", syscall.SIGHUP.String())
}

func (l *serviceLog) tendCrashes(by func(*crashFile) error) {
	if l.crash == nil {
		return
	}
	err := by(l.crash)
	if err != nil && !l.crash.failing {
		l.Warn(cannotReopen, "to", crashKey, "error", err)
	}
	l.crash.failing = err != nil
}

// close writes what is queued, unless that takes so long that the process
// should rather end. What is logged later is lost.
func (l *serviceLog) close() {
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
func (l *serviceLog) discard() {
	for _, q := range l.queues {
		q.disk.Do(func() error {
			q.sink.close()
			return nil
		})
		q.disk.Close()
	}
	l.disk.Close()
}

// logLevel is a level of Riak's as slog's; false for none. This service logs
// nothing between info and warning, and nothing above error.
func logLevel(name string) (slog.Level, bool) {
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
