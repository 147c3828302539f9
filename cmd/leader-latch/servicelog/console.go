package servicelog

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// consoleSink is stderr.
type consoleSink struct {
	w       io.Writer
	journal bool // with the level as sd-daemon(3) marks it, and lines without the time, as the journal has its own
}

func (s *consoleSink) write(e entry) error {
	line := e.line()
	if s.journal {
		if line = e.json; line == "" {
			line = e.text
		}
		line = fmt.Sprintf("<%d>%s\n", e.severity(), line)
	}
	_, err := io.WriteString(s.w, line)
	return err
}

func (s *consoleSink) tend(bool) {}
func (s *consoleSink) close()    {}

// isJournal reports whether systemd has connected w to the journal: stream is
// $JOURNAL_STREAM, the device and inode of that connection. A service whose
// stderr was sent elsewhere still has the variable.
func isJournal(w io.Writer, stream string) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
