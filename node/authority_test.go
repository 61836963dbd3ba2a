package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/raftmeta/liveness"
	"github.com/cloudless-project/cloudless/security/identity"
)

// rotate begins a change of the authority.
func (h *device) rotate(urgent bool) {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	h.eventually("a change of the authority begins", func(ctx context.Context) error {
		_, err := c.RotateAuthority(ctx, urgent)
		if err != nil && api.KindOf(err) != api.KindUnavailable {
			h.t.Fatal(err)
		}
		return err
	})
}

// awaitAuthority waits until the authority is as wanted.
func (h *device) awaitAuthority(what string, want func(api.AuthorityStatus) bool) (st api.AuthorityStatus) {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	end := time.Now().Add(3 * patience)
	for {
		var err error
		if st, err = c.Authority(h.t.Context()); err == nil && want(st) {
			return st
		}
		if time.Now().After(end) {
			h.t.Fatalf("not in time: %s: %+v, %v", what, st, err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-h.t.Context().Done():
			h.t.Fatal("the test is over")
		}
	}
}

// stream follows the events at a device over one call that must never end, and
// returns a way to see that it lives.
func (h *device) stream(leader *device) (alive func()) {
	h.t.Helper()
	c := h.client()
	h.t.Cleanup(func() { c.Close() })
	ended := make(chan error, 1)
	seen := make(chan string, 1024)
	go func() {
		for e, err := range c.WatchEvents(h.t.Context(), 0, api.EventFilter{}) {
			if err != nil {
				ended <- err
				return
			}
			seen <- e.Object.Name
		}
		ended <- errors.New("the stream ended")
	}()
	n := 0
	return func() {
		h.t.Helper()
		n++
		name := fmt.Sprintf("%s-%d", h.cfg.Name, n)
		at := leader.client()
		defer at.Close()
		if _, _, err := at.Apply(h.t.Context(), api.ApplyRequest{Name: name, Spec: api.WorkloadSpec{Image: "docker.io/library/web:1"}}); err != nil {
			h.t.Fatal(err)
		}
		for end := time.After(patience); ; {
			select {
			case got := <-seen:
				if got == name {
					return
				}
			case err := <-ended:
				h.t.Fatalf("a stream at %s was lost: %v", h.cfg.Name, err)
			case <-end:
				h.t.Fatalf("a stream at %s brings nothing any more", h.cfg.Name)
			}
		}
	}
}

// TestAuthorityChangesWhileEverythingRuns: two changes of the authority, one with
// overlap and one that is urgent, cost no stream and no restart; the cluster
// keeps its ID, and who comes later, or comes back, finds its way (CLD-REQ-060).
func TestAuthorityChangesWhileEverythingRuns(t *testing.T) {
	t.Parallel()
	first, second, node, sleeper := newDevice(t, "first"), newDevice(t, "second"), newDevice(t, "node"), newDevice(t, "sleeper")
	first.start(func(c *Config) {
		c.Init = true
		c.Liveness = liveness.Config{PauseGrace: 2 * time.Second} // after that, who has stopped is out of sight
	})
	for _, d := range []*device{second, node, sleeper} {
		join := first.token(api.RoleNode)
		d.start(func(c *Config) { c.Join = join })
	}
	first.policy("second", api.AnchorAlways)
	first.standings(map[string]api.AnchorStanding{"first": api.AnchorLeader, "second": api.AnchorStandby})
	streams := []func(){node.stream(first), second.stream(first)}
	allLive := func() {
		t.Helper()
		for _, alive := range streams {
			alive()
		}
	}
	allLive()
	oldToken := first.token(api.RoleNode) // made before the change, used after it
	cluster := clusterOf(t, first)

	t.Run("with overlap", func(t *testing.T) {
		sleeper.shutdown()
		first.rotate(false)
		st := first.awaitAuthority("all in sight have new certificates", func(st api.AuthorityStatus) bool {
			return st.Phase == api.AuthorityIssuing && st.Current
		})
		allLive()
		old, now := st.Generations[0], st.Generations[1]
		if now.Certified != 3 || now.Holders != 2 || old.Certified != 1 || old.RetireAt.Before(time.Now().Add(identity.OfflineGrace)) || !old.RetiredAt.IsZero() {
			t.Errorf("after the change: %+v, %+v", old, now)
		}
		anchors := anchorsOfCluster(t, first)
		for _, a := range anchors {
			if a.Authority != (api.AuthorityUse{Certified: 2, Knows: 2, Holds: 2}) || a.ClusterAuthority != 2 {
				t.Errorf("anchor %+v", a)
			}
		}
		if len(anchors) != 2 {
			t.Errorf("anchors %+v", anchors)
		}
		if id := clusterOf(t, first); id != cluster {
			t.Errorf("the cluster is %s now, it was %s", id, cluster)
		}
		sleeper.start(nil) // it comes back with a certificate of the old authority
		first.awaitAuthority("the one that was away has a new certificate", func(st api.AuthorityStatus) bool {
			return st.Generations[1].Certified == 4
		})
	})

	t.Run("urgent", func(t *testing.T) {
		late := newDevice(t, "late")
		late.start(func(c *Config) { c.Join = oldToken })
		late.shutdown()
		first.rotate(true)
		st := first.awaitAuthority("only the newest counts", func(st api.AuthorityStatus) bool { return st.Phase == api.AuthoritySettled })
		allLive()
		if st.Generations[0].RetiredAt.IsZero() || st.Generations[1].RetiredAt.IsZero() || st.Generations[2].Certified != 4 {
			t.Errorf("after the change: %+v", st)
		}
		for _, d := range []*device{first, second} {
			d.eventually("the old keys are forgotten on "+d.cfg.Name, func(context.Context) error { return onlyNewestKey(d) })
		}
		// Who was away all the time is told what to do.
		late.launch(nil)
		c := late.client()
		defer c.Close()
		late.eventually("the one that was away hears why it is not let in", func(ctx context.Context) error {
			_, err := c.Nodes(ctx)
			if err == nil {
				t.Fatal("it was let in with a certificate of a retired authority")
			}
			return errorSays(err, "could not", "cannot", "no leading anchor")
		})
	})

	t.Run("afterwards", func(t *testing.T) {
		join := first.token(api.RoleNode)
		fresh := newDevice(t, "fresh")
		fresh.start(func(c *Config) { c.Join = join })
		node.shutdown()
		node.start(nil)
		restored(t, first)
	})
}

func anchorsOfCluster(t *testing.T, h *device) []api.AnchorStatus {
	t.Helper()
	c := h.client()
	defer c.Close()
	var list []api.AnchorStatus
	h.eventually("the anchors are listed", func(ctx context.Context) (err error) {
		list, err = c.Anchors(ctx)
		return err
	})
	return list
}

func clusterOf(t *testing.T, h *device) string {
	t.Helper()
	c := h.client()
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Cluster
}

func onlyNewestKey(h *device) error {
	dir, err := peek(h)
	if err != nil {
		return err
	}
	defer dir.Root.Close()
	a, err := openAuthority(dir)
	if err != nil {
		return err
	}
	// It issues as the founding generation unless it is told otherwise, and cannot.
	if _, err := a.Succeed(time.Now()); err != nil {
		return fmt.Errorf("the newest key is gone: %w", err)
	}
	if _, _, err := a.Issue(nil, []api.Role{api.RoleNode}, "", time.Now(), time.Hour); api.KindOf(err) == api.KindUnavailable {
		return nil
	}
	if again, forgot := a.Forget(a.Generations()); forgot {
		return fmt.Errorf("%d generations have keys", again.Holds())
	}
	return nil
}

// restored makes a backup and restores it elsewhere: the new anchor has the
// authority that issues now.
func restored(t *testing.T, h *device) {
	t.Helper()
	c := h.client()
	defer c.Close()
	key := bytes.Repeat([]byte{1}, identity.BackupKeySize)
	var backup bytes.Buffer
	if err := c.Backup(t.Context(), key, []byte("salt"), &backup); err != nil {
		t.Fatal(err)
	}
	elsewhere := newDevice(t, "elsewhere")
	r, err := Restore(t.Context(), RestoreConfig{
		DataDir: elsewhere.cfg.DataDir, Name: "elsewhere", Backup: bytes.NewReader(backup.Bytes()), Size: int64(backup.Len()), Key: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Cluster.IssuingAuthority() != 3 || r.Cluster.OldestAuthority() != 3 {
		t.Errorf("restored with authority %d issuing", r.Cluster.IssuingAuthority())
	}
	dir, err := peek(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Root.Close()
	m, err := dir.loadMembership()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := identity.ParseCA(m.CA, m.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	if own, err := identity.Verify(m.Certificate, ca, time.Now(), identity.VerifyOptions{}); err != nil || own.Authority != 3 {
		t.Errorf("the restored anchor's certificate is of authority %d, %v", own.Authority, err)
	}
}
