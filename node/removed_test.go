package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/security/identity"
)

// awaitRemoved waits until the node's own calls say that it was removed, and why.
func (h *device) awaitRemoved(reason string) {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	h.eventually("its calls say that it was removed", func(ctx context.Context) error {
		_, err := c.Nodes(ctx)
		var e *api.Error
		if !errors.As(err, &e) || e.Kind != api.KindDenied || !strings.HasPrefix(e.Message, errRemoved().Message) ||
			!strings.Contains(e.Message, reason) || e.Hint == "" {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

func TestRemovedNodeKnowsIt(t *testing.T) {
	t.Parallel()
	first := newDevice(t, "pi")
	first.start(func(c *Config) { c.Init = true })
	second := newDevice(t, "pi")
	join := first.token(api.RoleNode)
	second.start(func(c *Config) { c.Join = join })
	c := second.client()
	defer c.Close()
	st, err := c.Status(t.Context())
	if err != nil || st.Name != "pi-2" {
		t.Fatalf("the second pi is %q, %v", st.Name, err)
	}
	op := first.client()
	defer op.Close()
	if err := op.RemoveNode(t.Context(), "pi-2", strings.Repeat("x", identity.MaxRevocationReason+1)); api.KindOf(err) != api.KindInvalid {
		t.Errorf("removed for a reason without end: %v", err)
	}
	if err := op.RemoveNode(t.Context(), "pi-2", "sold"); err != nil {
		t.Fatal(err)
	}
	second.awaitRemoved("sold")
	second.shutdown()
	cfg := second.cfg
	cfg.Join = first.token(api.RoleNode)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := Run(ctx, cfg, zap.NewNop()); !errors.As(err, new(*api.Error)) || err.Error() != errRemoved().Error() {
		t.Errorf("joining again with the dead identity: %v", err)
	}
}

// A node that was away when it was removed hears of it when it comes back, from
// the anchor; so does one that meets a member alone, which in turn has heard of
// it from another member, with no anchor in reach.
func TestRemovalReachesThoseWhoWereAway(t *testing.T) {
	t.Parallel()
	anchor, far, near := newDevice(t, "anchor"), newDevice(t, "far"), newDevice(t, "near")
	lost, stolen := newDevice(t, "lost"), newDevice(t, "stolen")
	anchor.start(func(c *Config) { c.Init = true })
	for _, h := range []*device{far, near, lost, stolen} {
		h.cfg.Listen = []string{"/ip4/127.0.0.1/tcp/" + freePort(t)} // the others find it again
		join := anchor.token(api.RoleNode)
		h.start(func(c *Config) { c.Join = join })
	}
	for _, h := range []*device{far, near, lost, stolen} {
		h.awaitNodes(5)
	}
	for _, h := range []*device{far, lost, stolen} {
		h.shutdown()
	}
	op := anchor.client()
	defer op.Close()
	for _, name := range []string{"lost", "stolen"} {
		if err := op.RemoveNode(t.Context(), name, "it is "+name); err != nil {
			t.Fatal(err)
		}
	}
	lost.launch(nil)
	lost.awaitRemoved("it is lost")
	lost.shutdown()
	near.awaitRevoked("it is stolen")
	anchor.shutdown()

	far.launch(nil)
	far.awaitRevoked("it is stolen") // by near alone
	near.shutdown()
	stolen.launch(nil)
	stolen.awaitRemoved("it is stolen") // by far alone
	stolen.shutdown()
	far.shutdown()
	stolen.launch(nil) // it remembers
	stolen.awaitRemoved("it is stolen")
}

// awaitNodes waits until the device has a view with so many nodes on its disk.
func (h *device) awaitNodes(n int) {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	h.eventually(fmt.Sprintf("%s sees %d nodes", h.cfg.Name, n), func(ctx context.Context) error {
		nodes, err := c.Nodes(ctx)
		if err == nil && len(nodes) != n {
			err = fmt.Errorf("it sees %d", len(nodes))
		}
		return err
	})
}

// awaitRevoked waits until the device has a revocation on its disk.
func (h *device) awaitRevoked(reason string) {
	h.t.Helper()
	h.eventually(h.cfg.Name+" knows that "+reason, func(context.Context) error {
		raw, err := os.ReadFile(filepath.Join(h.cfg.DataDir, viewFile))
		if err == nil && !bytes.Contains(raw, []byte(reason)) {
			err = errors.New("its view does not say so")
		}
		return err
	})
}

// listener is a daemon that knows nobody: enough to be told things.
func listener(t *testing.T, b *bureau) (*daemon, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	log := zap.New(core)
	dir, err := openDataDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	d := &daemon{admission: b.admission(false), log: log, dir: dir}
	d.self = d.admission.id
	d.office = &office{daemon: d}
	d.mesh = runMesh(t, newDeviceKey(t), d.admission, nil)
	d.views = openView(d.self, dir, log)
	d.views.put(api.ClusterView{
		Nodes:    []api.Node{{ID: d.self}},
		Replicas: []api.Replica{{ID: "web.0", Node: d.self}, {ID: "web.1", Node: "other"}},
	})
	return d, logs
}

// Nobody but the authority removes a node: a peer that says so without its
// signature is not believed, and the node goes on as before.
func TestLiarRemovesNobody(t *testing.T) {
	b := newBureau(t)
	other := newBureau(t)
	d, logs := listener(t, b)
	now := time.Now()
	self := api.Revocation{ID: string(d.self), Reason: "because", At: now}
	foreign, err := other.authority.Revoke(self)
	if err != nil {
		t.Fatal(err)
	}
	somebody, err := b.authority.Revoke(api.Revocation{ID: "somebody", Reason: "because", At: now})
	if err != nil {
		t.Fatal(err)
	}
	renamed := somebody
	renamed.ID = string(d.self)
	for name, r := range map[string]api.Revocation{"unsigned": self, "of another cluster": foreign, "of somebody else": somebody, "renamed": renamed} {
		notice, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		farewell{d}.Heard("liar", notice)
		if d.admission.removed() != nil {
			t.Fatalf("a notice that is %s was believed", name)
		}
	}
	d.heardRevocations("liar", []api.Revocation{self, foreign, renamed, {ID: "x"}})
	if list, _ := d.admission.revoked.signed(); len(list) > 0 || d.admission.removed() != nil {
		t.Errorf("a topic's lies were believed: %v", list)
	}
	if _, err := readRevocations(strings.NewReader(`{"id":"x"}{"id":"y"}`), func(r api.Revocation) bool { return len(d.proven("liar", []api.Revocation{r})) == 1 }); err == nil {
		t.Error("a node's lies were believed")
	}
	if logs.FilterMessageSnippet("not the authority's").Len() == 0 {
		t.Error("nothing in the log tells of the liar")
	}
	if v := d.views.current(); len(v.Replicas) != 2 {
		t.Errorf("a lie ended replicas: %v", v.Replicas)
	}

	signed, err := b.authority.Revoke(self)
	if err != nil {
		t.Fatal(err)
	}
	farewell{d}.Heard("messenger", mustJSON(t, signed))
	if err := d.admission.removed(); err == nil || !strings.Contains(err.Error(), "because") {
		t.Errorf("the authority's word was not believed: %v", err)
	}
	if v := d.views.current(); len(v.Replicas) != 1 || v.Replicas[0].Node == d.self || len(v.Nodes) != 0 {
		t.Errorf("a removed node goes on: %+v", v)
	}
}

// A node that was away while the authority changed, as often as it can, is
// convinced of its removal all the same: the notice leads there, and fits.
func TestRemovalIsProvedByItsLineage(t *testing.T) {
	b := newBureau(t)
	d, _ := listener(t, b)
	for range identity.MaxAuthorities - 1 {
		next, err := b.authority.Succeed(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if b.authority, err = next.IssuingAs(next.Generations()); err != nil {
			t.Fatal(err)
		}
	}
	signed, err := b.authority.Revoke(api.Revocation{ID: string(d.self), Reason: strings.Repeat("x", identity.MaxRevocationReason), At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	farewell{d}.Heard("messenger", mustJSON(t, signed))
	if d.admission.removed() != nil {
		t.Fatal("it believes an authority that it does not know")
	}
	knows, _ := listener(t, b)
	knows.admission.trust = b.authority.Trust()
	knows.admission.revoked.learn([]api.Revocation{signed})
	notice := farewell{knows}.Notice(d.self)
	if len(notice) > 10<<10 { // what p2p carries
		t.Errorf("the notice has %d bytes", len(notice))
	}
	farewell{d}.Heard("messenger", notice)
	if err := d.admission.removed(); err == nil {
		t.Error("the notice convinces nobody")
	}
	if d.admission.trusts().Generations() != 1 {
		t.Error("it believes more than that it was removed")
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// A revocation that came late, and one that an anchor out of a backup has
// forgotten, stay in the view.
func TestViewsForgetNoRevocation(t *testing.T) {
	b := newBureau(t)
	d, _ := listener(t, b)
	one, err := b.authority.Revoke(api.Revocation{ID: "b", At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	d.admission.revoked.learn([]api.Revocation{one})
	v := d.admission.revoked.complete(api.ClusterView{Revocations: []api.Revocation{{ID: "a"}, {ID: "c"}}})
	if len(v.Revocations) != 3 || v.Revocations[1].ID != "b" {
		t.Errorf("got %v", v.Revocations)
	}
}

// What an identity held over TCP ends with it.
func TestRevocationClosesConnections(t *testing.T) {
	r := newRevocations()
	var before, after, other closed
	r.hold("pi", &before)
	release := r.hold("nas", &other)
	r.learn([]api.Revocation{{ID: "pi"}})
	r.hold("pi", &after)
	release()
	r.learn([]api.Revocation{{ID: "nas"}})
	if !bool(before) || !bool(after) || bool(other) {
		t.Errorf("closed: %v before, %v after, %v of one that was let go", before, after, other)
	}
	if len(r.held) > 0 {
		t.Errorf("still held: %v", r.held)
	}
}

type closed bool

func (c *closed) Close() error { *c = true; return nil }

func FuzzReadRevocations(f *testing.F) {
	f.Add([]byte(`{"id":"x","reason":"y","at":"2026-01-02T03:04:05Z","signature":"AAAA"}` + "\n" + `{"id":"z"}`))
	f.Add([]byte(`[[[[[`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n := 0
		list, err := readRevocations(bytes.NewReader(raw), func(api.Revocation) bool { n++; return n < 3 })
		if len(list) > 2 || len(list) == 2 && n > 2 && err == nil {
			t.Errorf("%d were believed, %v", len(list), err)
		}
	})
}
