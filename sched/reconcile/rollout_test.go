package reconcile

import "testing"

func TestRolloutStopped(t *testing.T) {
	lacks := stopped(12) + "it failed 3 times"
	for revision, want := range map[int]bool{12: true, 1: false, 2: false} {
		if got := RolloutStopped(lacks, revision); got != want {
			t.Errorf("of revision %d: %v", revision, got)
		}
	}
	if RolloutStopped("1 of 3 replicas have no node", 12) || RolloutStopped("", 12) {
		t.Error("something else is taken for a rollout that has stopped")
	}
}
