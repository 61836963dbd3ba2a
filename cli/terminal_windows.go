package cli

import "time"

// sizeChanges tells when the terminal may have a new size. Windows has no
// signal for it, so it is looked at.
func sizeChanges() (<-chan time.Time, func()) {
	ticker := time.NewTicker(500 * time.Millisecond)
	return ticker.C, ticker.Stop
}
