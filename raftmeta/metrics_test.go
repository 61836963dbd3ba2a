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
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			m := f.GetMetric()[0]
			got[f.GetName()] = m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
		for _, name := range []string{"is_leader", "applied_index", "term", "commit_seconds"} {
			if got["cloudless_raftmeta_"+name] < 1 {
				t.Errorf("%s is missing or zero: %v", name, got)
			}
		}
		closeAnchor(t, a)
	}
}
