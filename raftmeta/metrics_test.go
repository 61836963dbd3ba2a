package raftmeta

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	dir := t.TempDir()
	for range 2 { // a second anchor may follow a first one that was closed
		a, err := Open(Config{Dir: dir, ID: "one", Streams: new(hub).port("one"), Bootstrap: true, Timing: quick, Metrics: registry})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "leads", a.IsLeader)
		propose(t, a, 1)
		// Raft counts an entry as applied a moment after it answered for it.
		eventually(t, "every figure is there", func() bool {
			got := gathered(t, registry)
			for _, name := range []string{"is_leader", "applied_index", "term", "commit_seconds"} {
				if got["cloudless_raftmeta_"+name] < 1 {
					return false
				}
			}
			return true
		})
		closeAnchor(t, a)
	}
}

// gathered is the sum of each family's first metric.
func gathered(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return got
}
