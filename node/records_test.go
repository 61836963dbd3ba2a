package node

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// fakeRecords is a mesh that has heard something.
type fakeRecords struct {
	mu      sync.Mutex
	records [][]byte
	changed chan struct{}
}

func (f *fakeRecords) Records() ([][]byte, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records, f.changed
}

func (f *fakeRecords) hear(record string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records = append(slices.Clone(f.records), []byte(record))
	close(f.changed)
	f.changed = make(chan struct{})
}

func TestRecordsAreKept(t *testing.T) {
	dir, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	kept := func() (out []string) {
		for _, r := range loadRecords(dir, zap.NewNop()) {
			out = append(out, string(r))
		}
		return out
	}
	if got := kept(); got != nil {
		t.Errorf("%v before anything was kept", got)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		mesh := &fakeRecords{changed: make(chan struct{})}
		ended := make(chan error, 1)
		go func() { ended <- keepRecords(ctx, dir, mesh, zap.NewNop()) }()
		synctest.Wait()
		mesh.hear("one")
		time.Sleep(recordsSettle + time.Second)
		synctest.Wait()
		if got := kept(); !slices.Equal(got, []string{"one"}) {
			t.Errorf("kept %v, want one", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		mesh.hear("two") // and the daemon stops at once
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if got := kept(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("kept %v, want both", got)
	}
	info, err := dir.Stat(recordsFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := dir.WriteFile(recordsFile, []byte("[torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := kept(); got != nil {
		t.Errorf("a torn file gives %v", got)
	}
}

func TestRecordsPause(t *testing.T) {
	if got := recordsPause([][]byte{make([]byte, 512), make([]byte, 512)}); got != 2*time.Second {
		t.Errorf("after 1 KiB: %v", got)
	}
	if got := recordsPause([][]byte{make([]byte, 8<<20)}); got != recordsDelay {
		t.Errorf("after 8 MiB: %v", got)
	}
}
