package p2p

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a mesh leaves goroutines behind, other than the meter
// that libp2p starts once per process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/libp2p/go-flow-metrics.(*sweeper).runActive"),
		goleak.IgnoreTopFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"),
	)
}
