package node

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

func openTestDir(t *testing.T) *dataDir {
	t.Helper()
	dir, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dir.Close)
	return dir
}

// viewOnDisk returns the index of the saved view, 0 when there is none.
func viewOnDisk(t *testing.T, dir *dataDir) uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir.path, viewFile))
	if os.IsNotExist(err) {
		return 0
	}
	var v api.ClusterView
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v.Index
}

func TestViewsAreSavedAtOnceWhenTheyMatterAndElseSeldom(t *testing.T) {
	dir := openTestDir(t)
	synctest.Test(t, func(t *testing.T) {
		c := openView("me", dir, zap.NewNop())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.run(ctx) }()

		v := api.ClusterView{Index: 1, Nodes: []api.Node{{ID: "other", StateReason: strings.Repeat("x", 100<<10)}}}
		step := func(want uint64, what string) {
			t.Helper()
			synctest.Wait()
			if got := viewOnDisk(t, dir); got != want {
				t.Errorf("%s: the disk has view %d, want %d", what, got, want)
			}
		}
		c.put(v)
		step(1, "the first one")
		v.Index = 2
		v.Nodes = []api.Node{{ID: "other", StateReason: strings.Repeat("y", 100<<10)}}
		c.put(v)
		step(1, "somebody else changed")
		time.Sleep(5 * time.Minute)
		step(2, "somebody else changed, minutes ago")
		v.Index = 3
		v.Replicas = []api.Replica{{ID: "web.0.1", Node: "me", Desired: api.DesiredRun}}
		c.put(v)
		step(3, "a replica was assigned here")
		v.Index = 4
		v.Leader = "other"
		c.put(v)
		step(3, "another leader")
		cancel()
		<-ended
		step(4, "the daemon ended")
	})
	if again := openView("me", dir, zap.NewNop()); again.current().Index != 4 {
		t.Errorf("read back view %d", again.current().Index)
	}
}

func TestIncarnationsGrowWhateverTheClockSays(t *testing.T) {
	dir := openTestDir(t)
	first, err := nextIncarnation(dir, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{{}, time.Unix(0, 0), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} {
		next, err := nextIncarnation(dir, now)
		if err != nil || next <= first {
			t.Errorf("at %v: %d after %d, %v", now, next, first, err)
		}
		first = next
	}
}
