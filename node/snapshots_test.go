package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// TestClusterComesBackFromASnapshot: the only anchor is destroyed. A member still
// has what it was given to keep, without being able to read it, and gives it out
// although no anchor is there; with the recovery key a new machine becomes the
// cluster's anchor.
func TestClusterComesBackFromASnapshot(t *testing.T) {
	t.Parallel()
	vps, pi, nas := newDevice(t, "vps"), newDevice(t, "pi"), newDevice(t, "nas")
	vps.start(func(cfg *Config) { cfg.Init, cfg.SnapshotEvery = true, 100*time.Millisecond })
	for _, d := range []*device{pi, nas} {
		join := vps.token(api.RoleNode)
		d.cfg.Zone = d.cfg.Name
		d.start(func(cfg *Config) { cfg.Join = join })
	}
	at := pi.client()
	defer at.Close()
	if list, err := at.Snapshots(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("there are snapshots without a key to seal them to: %v, %v", list, err)
	}
	key, err := identity.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := at.SetRecoveryKey(t.Context(), key.Public(), false); err != nil {
		t.Fatal(err)
	}
	w, _, err := at.Apply(t.Context(), api.ApplyRequest{Name: "web", Spec: api.WorkloadSpec{Image: "docker.io/library/web:1"}})
	if err != nil {
		t.Fatal(err)
	}
	pi.eventually("two nodes keep a snapshot of that", func(ctx context.Context) error {
		kept, err := at.Snapshots(ctx)
		keepers := map[string]bool{}
		for _, s := range kept {
			if s.Index >= w.Version {
				keepers[s.NodeName] = true
			}
		}
		if len(keepers) < 2 {
			return fmt.Errorf("there are %+v: %w", kept, err)
		}
		return nil
	})
	for _, d := range []*device{pi, nas} {
		checkKept(t, filepath.Join(d.cfg.DataDir, snapshotsDir))
	}
	vps.shutdown()
	if err := os.RemoveAll(vps.cfg.DataDir); err != nil {
		t.Fatal(err)
	}

	content := fetchFrom(t, pi, "nas") // no anchor is left to ask
	file, size := bytes.NewReader(content), int64(len(content))
	h, err := identity.ReadBackupHeader(file, size)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := key.Unseal(h)
	if err != nil {
		t.Fatal(err)
	}
	fresh := newDevice(t, "fresh")
	if _, err := Restore(t.Context(), RestoreConfig{DataDir: fresh.cfg.DataDir, Name: "fresh", Backup: file, Size: size, Key: secret}); err != nil {
		t.Fatal(err)
	}
	fresh.start(func(cfg *Config) { cfg.SnapshotEvery = 100 * time.Millisecond })
	fresh.standings(map[string]api.AnchorStanding{"fresh": api.AnchorLeader})
	c := fresh.client()
	defer c.Close()
	if _, err := c.Workload(t.Context(), "web"); err != nil {
		t.Errorf("the workload is lost: %v", err)
	}
	again := fresh.token(api.RoleNode)
	pi.shutdown()
	pi.start(func(cfg *Config) { cfg.Join = again })
	pi.eventually("pi keeps a snapshot of the new epoch", func(ctx context.Context) error {
		list, err := at.Snapshots(ctx)
		if !slices.ContainsFunc(list, func(s api.Snapshot) bool { return s.Epoch > h.Epoch && s.NodeName == "pi" }) {
			return fmt.Errorf("there are %+v: %w", list, err)
		}
		return nil
	})
}

// fetchFrom fetches the newest snapshot of a node by way of another one.
func fetchFrom(t *testing.T, by *device, keeper string) []byte {
	t.Helper()
	c := by.client()
	defer c.Close()
	var content bytes.Buffer
	by.eventually("the snapshot of "+keeper+" is fetched", func(ctx context.Context) error {
		list, err := c.Snapshots(ctx)
		i := slices.IndexFunc(list, func(s api.Snapshot) bool { return s.NodeName == keeper })
		if i < 0 {
			return fmt.Errorf("there are %+v: %w", list, err)
		}
		content.Reset()
		return c.FetchSnapshot(ctx, list[i], &content)
	})
	return content.Bytes()
}

// checkKept looks at what a node keeps: few files, and private ones.
func checkKept(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 || len(entries) > snapshotsKept+2 { // one on its way, one to be dropped
		t.Errorf("%d files are kept: %v", len(entries), err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // dropped meanwhile
		}
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestSnapshotsThatAreRefused(t *testing.T) {
	s := &snapshots{daemon: &daemon{member: &membership{Cluster: "c", Epoch: 5}}}
	sealed := []byte{1}
	for name, h := range map[string]identity.BackupHeader{
		"of another cluster":   {Cluster: "x", Epoch: 5, Sealed: sealed},
		"of an earlier epoch":  {Cluster: "c", Epoch: 4, Sealed: sealed},
		"sealed by passphrase": {Cluster: "c", Epoch: 5},
	} {
		if err := s.check(h); api.KindOf(err) != api.KindDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.check(identity.BackupHeader{Cluster: "c", Epoch: 5, Sealed: sealed}); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

// A node that is no anchor cannot make another one keep what it likes.
func TestOnlyAnchorsHandOutSnapshots(t *testing.T) {
	root, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	d := &daemon{dir: root, self: "me", member: &membership{Cluster: "c"}, views: &viewCache{}}
	d.office = &office{daemon: d}
	if err := (&snapshots{daemon: d}).Keep("me", bytes.NewReader([]byte("x"))); api.KindOf(err) != api.KindDenied {
		t.Errorf("got %v", err)
	}
}

func TestWhenASnapshotIsDue(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	last := handed{index: 10, key: "k", to: []api.NodeID{"a", "b"}, at: noon, size: 20 << 10}
	for _, c := range []struct {
		name  string
		index uint64
		key   string
		to    []api.NodeID
		after time.Duration
		size  int
		want  bool
	}{
		{"nothing has changed", 10, "k", []api.NodeID{"a", "b"}, time.Hour, 0, false},
		{"something has, a moment ago", 11, "k", []api.NodeID{"a", "b"}, time.Minute, 0, false},
		{"a while ago", 11, "k", []api.NodeID{"a", "b"}, snapshotEvery, 0, true},
		{"a large state waits longer", 11, "k", []api.NodeID{"a", "b"}, snapshotEvery, 10 << 20, false},
		{"another key", 10, "l", []api.NodeID{"a", "b"}, time.Second, 0, true},
		{"another node keeps it", 10, "k", []api.NodeID{"a", "c"}, time.Minute, 10 << 20, true},
		{"not at once", 10, "k", []api.NodeID{"a", "c"}, time.Second, 0, false},
		{"one node less", 10, "k", []api.NodeID{"a"}, time.Hour, 0, false},
	} {
		h := last
		if c.size > 0 {
			h.size = c.size
		}
		if got := h.due(c.index, c.key, c.to, snapshotEvery, noon.Add(c.after)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if !(&handed{}).due(1, "k", nil, snapshotEvery, noon) {
		t.Error("the first is not due")
	}
}
