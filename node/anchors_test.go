package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// standings waits until the anchors are as wanted, in the eyes of the device; a
// leader is a voter too.
func (h *device) standings(want map[string]api.AnchorStanding) {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	h.eventually(fmt.Sprintf("the anchors are %v", want), func(ctx context.Context) error {
		list, err := c.Anchors(ctx)
		if err != nil {
			return err
		}
		same := len(list) == len(want)
		for _, a := range list {
			w := want[a.Name]
			same = same && (a.Standing == w || w == api.AnchorVoter && a.Standing == api.AnchorLeader)
		}
		if !same {
			return fmt.Errorf("they are %+v", list)
		}
		return nil
	})
}

func (h *device) policy(node string, p api.AnchorPolicy) {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	h.eventually("the policy of "+node+" is set", func(ctx context.Context) error {
		_, _, err := c.SetAnchorPolicy(ctx, node, p)
		if api.KindOf(err) != api.KindUnavailable && err != nil {
			h.t.Fatal(err)
		}
		return err
	})
}

func (h *device) has(name string) bool {
	_, err := os.Stat(filepath.Join(h.cfg.DataDir, name))
	return err == nil
}

// TestThreeAnchors takes a cluster from one anchor to three and back, with the
// daemons of one process on loopback.
func TestThreeAnchors(t *testing.T) {
	t.Parallel()
	a, b, c := newDevice(t, "a"), newDevice(t, "b"), newDevice(t, "c")
	for _, d := range []*device{a, b, c} {
		d.cfg.Raft = steadyRaft() // it is told who leads, and nobody else shall
	}
	a.start(func(cfg *Config) { cfg.Init = true })
	for _, d := range []*device{b, c} {
		join := a.token(api.RoleNode)
		d.start(func(cfg *Config) { cfg.Join = join })
	}
	a.standings(map[string]api.AnchorStanding{"a": api.AnchorLeader})

	a.policy("b", api.AnchorAlways)
	b.standings(map[string]api.AnchorStanding{"a": api.AnchorLeader, "b": api.AnchorStandby})
	if !b.has(raftDir) || !b.has(authorityDir) {
		t.Error("a standby has no log or no authority")
	}
	b.policy("c", api.AnchorAlways)
	three := map[string]api.AnchorStanding{"a": api.AnchorVoter, "b": api.AnchorVoter, "c": api.AnchorVoter}
	c.standings(three)

	t.Run("a joiner enrols at a follower", func(t *testing.T) {
		text := a.token(api.RoleNode)
		token, err := identity.ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		follower := memberID(t, c)
		var addrs []string
		for _, addr := range token.Anchors {
			if bytes.HasSuffix([]byte(addr), []byte("/p2p/"+string(follower))) {
				addrs = append(addrs, addr)
			}
		}
		if len(addrs) == 0 {
			t.Fatalf("the token does not name the follower: %v", token.Anchors)
		}
		token.Anchors = addrs
		d := newDevice(t, "d")
		d.start(func(cfg *Config) { cfg.Join = token.String() })
	})
	t.Run("the leader stops, another one leads", func(t *testing.T) {
		a.shutdown()
		b.eventually("b or c leads", func(ctx context.Context) error {
			cl := b.client()
			defer cl.Close()
			_, _, err := cl.CreateToken(ctx, api.TokenRequest{Role: api.RoleNode})
			return err
		})
		a.start(nil) // resumes as a follower
		b.standings(three)
	})
	t.Run("leadership moves on request", func(t *testing.T) {
		cl := b.client()
		defer cl.Close()
		b.eventually("leadership is handed over", func(ctx context.Context) error {
			_, _, err := cl.TransferLeadership(ctx, "a")
			return err
		})
		c.standings(map[string]api.AnchorStanding{"a": api.AnchorLeader, "b": api.AnchorVoter, "c": api.AnchorVoter})
	})
	t.Run("an anchor is dismissed", func(t *testing.T) {
		a.policy("c", api.AnchorNever)
		a.standings(map[string]api.AnchorStanding{"a": api.AnchorLeader, "b": api.AnchorStandby})
		c.eventually("c has wiped what an anchor has", func(context.Context) error {
			if c.has(raftDir) || c.has(authorityDir) {
				return errors.New("it is still there")
			}
			return nil
		})
	})
	t.Run("the last one stays", func(t *testing.T) {
		a.policy("b", api.AnchorNever)
		a.standings(map[string]api.AnchorStanding{"a": api.AnchorLeader})
		cl := c.client()
		defer cl.Close()
		if _, _, err := cl.SetAnchorPolicy(t.Context(), "a", api.AnchorNever); api.KindOf(err) != api.KindConflict {
			t.Errorf("got %v", err)
		}
	})
}

// memberID returns the node's ID as its daemon tells it.
func memberID(t *testing.T, h *device) api.NodeID {
	t.Helper()
	c := h.client()
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Node
}

// TestRestore makes a new anchor from a backup; a member follows it and not the
// old one any more, which is put out of office when it hears of the new one.
func TestRestore(t *testing.T) {
	t.Parallel()
	old, member := newDevice(t, "old"), newDevice(t, "member")
	old.cfg.Listen = []string{"/ip4/127.0.0.1/tcp/" + freePort(t), "/ip4/127.0.0.1/udp/0/quic-v1"} // where the new one finds it
	old.start(func(cfg *Config) { cfg.Init = true })
	join := old.token(api.RoleNode)
	member.start(func(cfg *Config) { cfg.Join = join })

	key := bytes.Repeat([]byte{1}, identity.BackupKeySize)
	var backup bytes.Buffer
	c := member.client()
	defer c.Close()
	if err := c.Backup(t.Context(), key, []byte("salt"), &backup); err != nil {
		t.Fatal(err)
	}
	old.shutdown()

	fresh := newDevice(t, "fresh")
	r, err := Restore(t.Context(), RestoreConfig{
		DataDir: fresh.cfg.DataDir, Name: "fresh", Backup: bytes.NewReader(backup.Bytes()), Size: int64(backup.Len()), Key: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "fresh" || r.Cluster.Epoch == 0 {
		t.Errorf("restored %+v", r)
	}
	if _, err := Restore(t.Context(), RestoreConfig{DataDir: fresh.cfg.DataDir, Name: "fresh"}); api.KindOf(err) != api.KindConflict {
		t.Errorf("a second restore into the same directory: %v", err)
	}
	fresh.start(nil)
	fresh.standings(map[string]api.AnchorStanding{"fresh": api.AnchorLeader})

	again := fresh.token(api.RoleNode)
	member.shutdown()
	member.start(func(cfg *Config) { cfg.Join = again })
	member.standings(map[string]api.AnchorStanding{"fresh": api.AnchorLeader})

	old.start(nil)
	old.standings(map[string]api.AnchorStanding{"fresh": api.AnchorLeader})
	old.eventually("the old anchor has wiped its log", func(context.Context) error {
		if old.has(raftDir) || old.has(authorityDir) {
			return errors.New("it is still there")
		}
		return nil
	})
	member.standings(map[string]api.AnchorStanding{"fresh": api.AnchorLeader})
}

// TestPublicNodesBecomeAnchors: unasked, once they have been ready for a while;
// one that must not does not.
func TestPublicNodesBecomeAnchors(t *testing.T) {
	t.Parallel()
	soon := func(cfg *Config) { cfg.Public, cfg.Anchors.Settle = "yes", time.Second }
	first := newDevice(t, "first")
	first.start(func(cfg *Config) { soon(cfg); cfg.Init = true })
	for name, policy := range map[string]string{"b": "auto", "c": "auto", "never": "never"} {
		join := first.token(api.RoleNode)
		newDevice(t, name).start(func(cfg *Config) { soon(cfg); cfg.Join, cfg.Anchor = join, policy })
	}
	first.standings(map[string]api.AnchorStanding{"first": api.AnchorLeader, "b": api.AnchorVoter, "c": api.AnchorVoter})
}
