package p2p

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// sideBySide is how many of the parallel tests run at a time, whatever the
// number of processors: they wait for most of their time.
const sideBySide = "6"

// TestMain fails when a mesh leaves goroutines behind, other than the meter
// that libp2p starts once per process.
func TestMain(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Set("test.parallel", sideBySide)
	}
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/libp2p/go-flow-metrics.(*sweeper).runActive"),
		goleak.IgnoreTopFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"),
	)
}
