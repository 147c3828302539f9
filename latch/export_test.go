package latch

import "time"

// SetPatience shortens the time that a surplus connection has.
func (l *Limit) SetPatience(d time.Duration) { l.patience = d }

// ParkAtOnce has connections parked as soon as they are silent.
func ParkAtOnce() { parkAfter = 0 }

// SetCloseGrace sets how long a client may take to close its side, before there are any.
func (s *Server) SetCloseGrace(d time.Duration) { s.grace = d }

// ParkNone keeps the server from parking connections, as where the kernel refuses to
// watch them. It must not have had a connection.
func (s *Server) ParkNone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID = 1
	s.lot, _ = newLot()
	s.lot.close()
}

// Staying returns how many connections were to be parked and could not be.
func (s *Server) Staying() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		if c.stays {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// Parked returns how many connections have no goroutine.
func (s *Server) Parked() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		if c.parked {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// BeginStop makes the server refuse JOINs, as in the moment in which Shutdown has
// begun and has not reached the connection yet.
func (s *Server) BeginStop() { s.stopping.Store(true) }

// Kept returns, over all connections, the most bytes that are kept for one, how
// many are being drained, and how many have a line written in part.
func (s *Server) Kept() (most, draining, partial int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		most = max(most, len(c.out), cap(c.out))
		if c.draining {
			draining++
		}
		if len(c.out) > 0 {
			partial++
		}
		c.mu.Unlock()
	}
	return most, draining, partial
}

// Asked returns how many connections have asked to join, or are not there any more.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int(s.lastID) - len(s.conns)
	for _, c := range s.conns {
		c.mu.Lock()
		if c.state > fresh {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// Conns returns how many connections there are.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Rest returns what is left of a line that a connection has written in part.
func (s *Server) Rest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		rest := string(c.out)
		c.mu.Unlock()
		if rest != "" {
			return rest
		}
	}
	return ""
}

// Queued returns how many bytes the clients' kernels have not acknowledged.
func (s *Server) Queued() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		n += queued(c.raw)
	}
	return n
}

// Ended returns how many connections are ended and still there.
func (s *Server) Ended() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		if c.state == ended {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

// Pinged returns how many connections wait for the answer to a PING.
func (s *Server) Pinged() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.mu.Lock()
		if c.keyed != nil && c.keyed.asked {
			n++
		}
		c.mu.Unlock()
	}
	return n
}
