package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/api/client"
	"github.com/cloudless-project/cloudless/p2p"
	"github.com/cloudless-project/cloudless/raftmeta"
	"github.com/cloudless-project/cloudless/security/identity"
)

// patience is how long a test waits for what should happen soon, on a machine
// that has much else to do.
const patience = time.Minute

// device is a machine on which daemons are started one after another.
type device struct {
	t    *testing.T
	cfg  Config
	stop context.CancelFunc
	done chan error // yields what Run returned
}

// newDevice prepares a device that listens on loopback and touches nothing else
// of the machine.
func newDevice(t *testing.T, name string) *device {
	// The path of a unix socket is limited, that of a test is long.
	dir, err := os.MkdirTemp("", "cl-node-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &device{t: t, cfg: Config{
		DataDir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "run", "s"), Name: name,
		Listen: []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, Public: "no",
		NoWorkloads: true, isolated: true,
		Raft: raftmeta.Timing{
			Heartbeat: 300 * time.Millisecond, Election: 300 * time.Millisecond, Lease: 200 * time.Millisecond, Commit: 10 * time.Millisecond,
		},
	}}
	t.Cleanup(func() { h.shutdown() })
	return h
}

// start runs a daemon until it is ready; edit changes what it is told.
func (h *device) start(edit func(*Config)) {
	h.t.Helper()
	h.launch(edit)
	c := h.client()
	h.t.Cleanup(func() { c.Close() })
	h.eventually("the daemon is ready", func(ctx context.Context) error {
		select {
		case err := <-h.done:
			h.stop()
			h.stop = nil
			if api.KindOf(err) != api.KindUnavailable {
				h.t.Fatalf("%s ended: %v", h.cfg.Name, err)
			}
			h.launch(edit) // as its unit file would: no anchor led, on a busy machine
			return err
		default:
		}
		st, err := c.Status(ctx)
		if err == nil && !st.Ready {
			err = errors.New(st.Reason)
		}
		return err
	})
}

// launch runs a daemon and does not wait for anything.
func (h *device) launch(edit func(*Config)) {
	cfg := h.cfg
	if edit != nil {
		edit(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.stop, h.done = cancel, make(chan error, 1)
	done := h.done
	go func() { done <- Run(ctx, cfg, testLog(h.t)) }()
}

// shutdown ends the daemon as a signal would; it must end well.
func (h *device) shutdown() {
	if h.stop == nil {
		return
	}
	h.stop()
	h.stop = nil
	select {
	case err := <-h.done:
		if err != nil {
			h.t.Errorf("%s ended with %v", h.cfg.Name, err)
		}
	case <-time.After(patience):
		h.t.Errorf("%s does not end", h.cfg.Name)
	}
}

func (h *device) client() *client.Client {
	h.t.Helper()
	c, err := client.Dial(client.Options{Socket: h.cfg.Socket})
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *device) eventually(what string, f func(context.Context) error) {
	h.t.Helper()
	h.within(patience, what, f)
}

// within is eventually for what takes longer on a slow machine.
func (h *device) within(limit time.Duration, what string, f func(context.Context) error) {
	h.t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		err = f(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-h.t.Context().Done():
			h.t.Fatal("the test is over")
		}
	}
	h.t.Fatalf("not in time: %s: %v", what, err)
}

// token makes a token of a role with the daemon's own API.
func (h *device) token(role api.Role) string {
	h.t.Helper()
	c := h.client()
	defer c.Close()
	var text string
	h.eventually("a token is made", func(ctx context.Context) (err error) {
		text, _, err = c.CreateToken(ctx, api.TokenRequest{Role: role})
		if err != nil && api.KindOf(err) != api.KindUnavailable { // on a busy machine leadership moves
			h.t.Fatal(err)
		}
		return err
	})
	return text
}

// steadyRaft is a patience that keeps a leader on a machine that is very busy.
func steadyRaft() raftmeta.Timing {
	return raftmeta.Timing{Heartbeat: 2 * time.Second, Election: 2 * time.Second, Lease: 2 * time.Second, Commit: 10 * time.Millisecond}
}

func testLog(t *testing.T) *zap.Logger {
	if os.Getenv("CLOUDLESS_LOG") == "" {
		return zap.NewNop()
	}
	log, err := zap.NewDevelopment()
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	first := newDevice(t, "first")
	first.start(func(c *Config) { c.Init = true })
	second := newDevice(t, "second")
	join := first.token(api.RoleNode)
	second.start(func(c *Config) { c.Join = join })

	t.Run("a write at the follower reaches the leader", func(t *testing.T) {
		c := second.client()
		defer c.Close()
		spec := api.WorkloadSpec{Image: "docker.io/library/web:1", Replicas: 1}
		if _, outcome, err := c.Apply(t.Context(), api.ApplyRequest{Name: "web", Spec: spec}); err != nil || outcome != api.OutcomeCreated {
			t.Fatalf("apply: %v, %v", outcome, err)
		}
		at := first.client()
		defer at.Close()
		if _, err := at.Workload(t.Context(), "web"); err != nil {
			t.Errorf("the leader does not have it: %v", err)
		}
	})
	t.Run("an error keeps its kind and its hint on the way", func(t *testing.T) {
		c := second.client()
		defer c.Close()
		_, err := c.Workload(t.Context(), "nobody")
		var e *api.Error
		if !errors.As(err, &e) || e.Kind != api.KindNotFound || e.Hint == "" {
			t.Errorf("got %#v", err)
		}
	})
	t.Run("an operator is served over the mesh", func(t *testing.T) {
		overMesh(t, first, first.token(api.RoleOperator))
	})
	t.Run("a second daemon on the same directory is refused", func(t *testing.T) {
		err := Run(t.Context(), first.cfg, zap.NewNop())
		if api.KindOf(err) != api.KindConflict {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a token is for what it says, and once", func(t *testing.T) {
		for name, token := range map[string]string{
			"operator": first.token(api.RoleOperator), "used": join, "cut": join[:40], "foreign": foreignToken(t),
		} {
			third := newDevice(t, "third")
			cfg := third.cfg
			cfg.Join = token
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := Run(ctx, cfg, zap.NewNop()); err == nil {
				t.Errorf("joined with a token that is %s", name)
			}
			cancel()
		}
	})
	t.Run("a follower resumes", func(t *testing.T) {
		before := incarnationOf(t, first, "second")
		second.shutdown()
		if _, err := os.Lstat(second.cfg.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it left its socket: %v", err)
		}
		second.start(nil)
		if after := incarnationOf(t, first, "second"); after <= before {
			t.Errorf("incarnation %d after %d", after, before)
		}
	})
	t.Run("a leader resumes with its state", func(t *testing.T) {
		first.shutdown()
		first.start(func(c *Config) { c.Init = true }) // as in a unit file that never changes
		c := first.client()
		defer c.Close()
		first.eventually("it leads, and knows the workload", func(ctx context.Context) error {
			_, err := c.Workload(ctx, "web")
			return err
		})
	})
	t.Run("without its leader a follower fails fast and says why", func(t *testing.T) {
		first.shutdown()
		c := second.client()
		defer c.Close()
		second.eventually("a call fails", func(ctx context.Context) error {
			_, err := c.Nodes(ctx)
			var e *api.Error
			if !errors.As(err, &e) || e.Kind != api.KindUnavailable || e.Hint == "" {
				return errors.Join(errors.New("want unavailable, with a hint"), err)
			}
			return nil
		})
		if _, err := c.Status(t.Context()); err != nil {
			t.Errorf("what it knows itself: %v", err)
		}
	})
}

// incarnationOf waits until a node is ready at the leader, and returns the
// incarnation of the daemon that reported.
func incarnationOf(t *testing.T, leader *device, name string) uint64 {
	t.Helper()
	c := leader.client()
	defer c.Close()
	var n api.NodeStatus
	leader.eventually(name+" is ready", func(ctx context.Context) (err error) {
		if n, err = c.Node(ctx, name); err == nil && n.State != api.NodeReady {
			err = errors.New(string(n.State))
		}
		return err
	})
	return n.Incarnation
}

// guest is the admission of somebody who trusts whom they dialled.
type guest struct{ cert []byte }

func (g guest) Certificate() []byte { return g.cert }
func (g guest) Verify(id api.NodeID, _ []byte) (api.Member, error) {
	return api.Member{ID: id, Roles: []api.Role{api.RoleNode}, NotAfter: time.Now().Add(time.Hour)}, nil
}
func (g guest) Revoked(api.NodeID) bool { return false }

// overMesh logs in with a token and calls the API as the command line does.
func overMesh(t *testing.T, at *device, text string) {
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := identity.NewCSR(key, "alice")
	if err != nil {
		t.Fatal(err)
	}
	reply, err := p2p.Enrol(t.Context(), p2p.EnrolConfig{Key: key, Anchors: token.Anchors, Request: p2p.EnrolRequest{
		Cluster: token.Cluster, TokenID: token.ID, Secret: token.Secret[:], CSR: csr, Name: "alice",
	}})
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := p2p.New(p2p.Config{Key: key, Admission: guest{reply.Certificate}, Cluster: token.Cluster, Contacts: reply.Anchors, Client: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = mesh.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	c, err := client.Dial(client.Options{Dialer: func(ctx context.Context) (net.Conn, error) {
		return mesh.Dial(ctx, reply.Anchors[0].ID, api.ProtoAPI)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if nodes, err := c.Nodes(t.Context()); err != nil || len(nodes) != 2 {
		t.Errorf("nodes of %s: %v, %v", at.cfg.Name, nodes, err)
	}
	if err := c.RemoveNode(t.Context(), "nobody", ""); api.KindOf(err) != api.KindNotFound {
		t.Errorf("an operator's write: %v", err)
	}
}

func foreignToken(t *testing.T) string {
	t.Helper()
	authority, err := identity.NewAuthority("elsewhere", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	address := "/ip4/127.0.0.1/tcp/9/p2p/" + string(identity.NodeID(pub))
	token, err := identity.NewToken(authority.ClusterID(), []string{address}, api.RoleNode)
	if err != nil {
		t.Fatal(err)
	}
	return token.String()
}

func TestFailedStartLeavesNothingOpen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h := newDevice(t, "first")
	cfg := h.cfg
	cfg.Init = true
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/" + freePort(t)}
	cfg.APIListen = "127.0.0.1:0"
	cfg.MetricsListen = taken.Addr().String() // the last part to be built fails
	for range 2 {
		if err := Run(t.Context(), cfg, testLog(t)); api.KindOf(err) != api.KindInvalid {
			t.Fatalf("started on a port that is taken: %v", err)
		}
		if _, err := os.Lstat(cfg.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it left its socket: %v", err)
		}
	}
	// The mesh's port, the Raft log and the lock are free again.
	h.cfg.Listen = cfg.Listen
	h.start(nil)
}

// lastPort is the last port that freePort has tried.
var lastPort atomic.Uint32

func init() { lastPort.Store(rand.Uint32N(20000)) } // other processes test, too

// freePort returns a port that stays free until it is used, and while the daemon
// that uses it is down: nobody gets it who asks for any port, and no other test.
func freePort(t *testing.T) string {
	t.Helper()
	var err error
	for range 100 {
		port := fmt.Sprint(10000 + lastPort.Add(1)%20000)
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal(err)
	return ""
}

func TestLostRaftLogIsNotBegunAnew(t *testing.T) {
	t.Parallel()
	h := newDevice(t, "first")
	h.start(func(c *Config) { c.Init = true })
	h.shutdown()
	if err := os.RemoveAll(filepath.Join(h.cfg.DataDir, raftDir)); err != nil {
		t.Fatal(err)
	}
	cfg := h.cfg
	cfg.Init = true
	err := Run(t.Context(), cfg, zap.NewNop())
	var e *api.Error
	if !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("got %v, want an error that says what to do", err)
	}
}
