package servicelog

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// LocalSyslog is the socket of the local syslog, or of the journal in its
// place.
const LocalSyslog = "/dev/log"

const (
	// syslogPatience is how long an entry waits for a syslog that takes none.
	syslogPatience = 250 * time.Millisecond

	// syslogLine is the most bytes of an entry: what rsyslog takes unless told
	// otherwise.
	syslogLine = 8 << 10
)

// syslogFacility numbers the facilities of riak.conf. The clock daemon of RFC
// 3164 is cron.
var syslogFacility = map[string]int{
	"kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8,
	"clock": 9, "cron": 9, "authpriv": 10, "ftp": 11,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// syslogSink sends entries to the local syslog, a datagram each, in the form
// of RFC 3164 that is usual on the local socket, without a host:
//
//	<30>May  4 19:07:12 riak[4711]: [info] session opened node=riak@192.0.2.1
//
// It connects again whenever the syslog was away.
type syslogSink struct {
	socket   string
	facility int
	tag      string
	conn     net.Conn
}

func newSyslog(socket, facility, ident string) *syslogSink {
	return &syslogSink{socket: socket, facility: syslogFacility[facility], tag: fmt.Sprintf("%s[%d]", oneLine(ident), os.Getpid())}
}

// dial connects to the socket. On a datagram socket that does not wait.
func (s *syslogSink) dial() (err error) {
	s.conn, err = net.Dial("unixgram", s.socket)
	return err
}

func (s *syslogSink) write(e entry) error {
	line := fmt.Sprintf("<%d>%s %s: %s", s.facility<<3|e.severity(), e.at.Format(time.Stamp), s.tag, e.text)
	if len(line) > syslogLine {
		line = strings.ToValidUTF8(line[:syslogLine-len("...")], "") + "..."
	}
	if s.conn != nil {
		if err := s.send(line); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		s.close() // another syslog may be there by now
	}
	if err := s.dial(); err != nil {
		return err
	}
	return s.send(line)
}

func (s *syslogSink) send(line string) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(syslogPatience)); err != nil {
		return err
	}
	_, err := s.conn.Write([]byte(line))
	return err
}

func (s *syslogSink) tend(bool) {}

func (s *syslogSink) close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}
