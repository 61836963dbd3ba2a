package raftmeta

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

// alone is an anchor's way to nobody.
type alone struct{ closed chan struct{} }

func (alone) Dial(context.Context, api.NodeID) (net.Conn, error) { return nil, errors.New("nobody") }
func (a alone) Accept() (net.Conn, error)                        { <-a.closed; return nil, net.ErrClosed }
func (a alone) Close() error                                     { close(a.closed); return nil }

// A restored anchor leads alone, has the saved state and the epoch, and takes
// writes that survive a restart.
func TestRestore(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	saved := state.New()
	res := saved.Apply(1, []state.Command{
		state.CreateCluster{Cluster: api.Cluster{ID: "c1", Name: "home", CreatedAt: now}},
		state.EnrolNode{ID: "old", Name: "vps", Now: now},
		state.SetAnchor{ID: "old", Anchor: true, Now: now}, state.SetVoter{ID: "old", Voter: true},
		state.EnrolNode{ID: "pi", Name: "pi", Now: now},
	})
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	var backup bytes.Buffer
	if err := saved.Snapshot(&backup); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := Restore(dir, "new", bytes.NewReader(backup.Bytes()), state.RestoreCluster{Epoch: 7, Anchor: "new", Name: "vps", Now: now}); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		a, err := Open(Config{Dir: dir, ID: "new", Streams: alone{make(chan struct{})}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		leads := make(chan struct{})
		go func() { _ = a.Lead(ctx, func(context.Context) error { close(leads); return nil }) }()
		select {
		case <-leads:
		case <-ctx.Done():
			t.Fatal("it does not lead")
		}
		v := a.Store().View()
		if c, _ := v.Cluster(); c.Epoch != 7 || c.ID != "c1" {
			t.Errorf("cluster is %+v", c)
		}
		if n, _ := v.Node("old"); n.HoldsState() {
			t.Error("the old anchor is still one")
		}
		if n, _ := v.Node("new"); !n.Anchor || !n.Voter || n.Inventory.Name != "vps-2" {
			t.Errorf("the new anchor is %+v", n)
		}
		if round == 0 {
			if _, err := a.Propose(ctx, state.RemoveNode{ID: "old", Reason: "gone", Now: now}); err != nil {
				t.Fatal(err)
			}
		} else if _, known := v.Node("old"); known {
			t.Error("the removal was lost")
		}
		cancel()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
