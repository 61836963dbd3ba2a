package node

import (
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// What the anchors would refuse later, and again and again, is refused before
// anything is on the disk.
func TestConfigIsRefusedAtOnce(t *testing.T) {
	for flag, cfg := range map[string]Config{
		"--data-dir":       {Init: true},
		"--init":           {DataDir: "d", Init: true, Join: "cl1.token"},
		"--name":           {DataDir: "d", Init: true, Name: "My Device"},
		"--cluster":        {DataDir: "d", Init: true, Name: "pi", Cluster: "My Cluster!"},
		"--public":         {DataDir: "d", Init: true, Name: "pi", Public: "maybe"},
		"--anchor":         {DataDir: "d", Init: true, Name: "pi", Anchor: "maybe"},
		"--raft-timing":    {DataDir: "d", Init: true, Name: "pi", RaftTiming: "slow"},
		"--label":          {DataDir: "d", Init: true, Name: "pi", Labels: map[string]string{"a b": "c"}},
		"--taint.key":      {DataDir: "d", Init: true, Name: "pi", Taints: []api.Taint{{Key: "a b", Effect: api.EffectNoSchedule}}},
		"--listen":         {DataDir: "d", Init: true, Name: "pi", Listen: []string{"0.0.0.0:4717"}},
		"--metrics-listen": {DataDir: "d", Init: true, Name: "pi", MetricsListen: "9090"},
	} {
		err := cfg.complete()
		if problems := api.Problems(err); len(problems) == 0 || problems[0].Kind != api.KindInvalid || problems[0].Field != flag {
			t.Errorf("%s: %v", flag, err)
		}
	}
	resumed := Config{DataDir: "d", Name: "pi"}
	if err := resumed.complete(); err != nil {
		t.Errorf("nothing but a data directory: %v", err)
	}
}
