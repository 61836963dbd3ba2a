package p2p

import "time"

// acks is what the kernel knows of what a TCP connection has sent.
type acks struct {
	missing bool          // something was sent that is not acknowledged
	last    time.Duration // since the last acknowledgement
}

// silence finds out for how long the other end has answered nothing, from looks
// at a connection. A reader that pauses is not silent: it acknowledges that its
// window is closed.
type silence struct{ began time.Time }

func (s *silence) since(now time.Time, a acks) time.Duration {
	switch {
	case !a.missing:
		s.began = time.Time{}
		return 0
	case s.began.IsZero() || now.Sub(s.began) > a.last: // something was answered meanwhile
		s.began = now
	}
	return now.Sub(s.began)
}
