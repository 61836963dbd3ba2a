package p2p

import "go.uber.org/goleak"

// leaksOfLibp2p are the goroutines that libp2p and its dependencies start once
// per process, or leave behind when a host closes.
func leaksOfLibp2p() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreTopFunction("github.com/libp2p/go-flow-metrics.(*sweeper).runActive"),
		goleak.IgnoreTopFunction("github.com/libp2p/go-flow-metrics.(*sweeper).run"),
	}
}
