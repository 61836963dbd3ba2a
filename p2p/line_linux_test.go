package p2p

import (
	"syscall"
	"testing"
)

// Both ends of a line are connections that the kernel can be asked about.
func TestLinesCanBeAskedAbout(t *testing.T) {
	_, _, l1, l2 := lined(t)
	near, far := linePair(t, l1, l2)
	for _, c := range []Conn{near, far} {
		if _, ok := c.(*line).raw.(syscall.Conn); !ok {
			t.Errorf("%T has no descriptor", c.(*line).raw)
		}
	}
}
