package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/internal/retry"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

const (
	// twinMemory is how long twins count as such after they were seen last; the
	// mesh looks four times as often.
	twinMemory = time.Minute
	keepTwins  = 2 * time.Second
	// twinReminder is how often the log of a twin repeats what is wrong.
	twinReminder = 10 * time.Minute
)

// twins is what this node knows of daemons that run with one identity at once,
// because a data directory was copied. It implements p2p.Twins. Nothing is taken
// from either twin: which of the two is the right one only a person can say.
type twins struct {
	admission *admission
	dataDir   string
	log       *zap.Logger

	mu     sync.Mutex
	found  map[api.NodeID]sighting
	told   sighting // of this node's own twin
	logged time.Time
}

// sighting is when and where twins were seen last.
type sighting struct {
	at        time.Time
	addresses []string
}

func newTwins(adm *admission, dataDir string, log *zap.Logger) *twins {
	return &twins{admission: adm, dataDir: dataDir, log: log, found: make(map[api.NodeID]sighting)}
}

// Watched implements p2p.Twins: every daemon is connected with the anchors.
func (t *twins) Watched() bool { return t.admission.isAnchor() }

// Found implements p2p.Twins.
func (t *twins) Found(p api.NodeID, addresses []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, s := range t.found {
		if time.Since(s.at) > twinMemory {
			delete(t.found, id)
		}
	}
	t.found[p] = sighting{time.Now(), addresses}
}

// Told implements p2p.Twins.
func (t *twins) Told(by api.NodeID, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.told = sighting{now, []string{address}}
	if now.Sub(t.logged) < twinReminder {
		return
	}
	t.logged = now
	t.log.Error("another device runs with the identity of this node", zap.String("address", address), zap.String("peer", string(by)),
		zap.String("hint", t.remedy()))
}

func (t *twins) remedy() string {
	return fmt.Sprintf("the data directory was copied: wipe %s on one of the two devices and join that one again with a fresh token (cloudless token create)", t.dataDir)
}

// duplicated returns what to tell people while this node has a twin, else nil.
func (t *twins) duplicated() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told.at.IsZero() || time.Since(t.told.at) > twinMemory {
		return nil
	}
	return api.Errorf(api.KindConflict, "another device runs with the identity of this node, at %s", strings.Join(t.told.addresses, ", ")).
		WithHint("%s", t.remedy())
}

// seen returns where the twins of a node were seen of late.
func (t *twins) seen(id api.NodeID) (addresses []string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.found[id]
	return s.addresses, ok && time.Since(s.at) <= twinMemory
}

// recordTwins keeps the state's word on twins up to date, while this anchor
// leads.
func (a *anchor) recordTwins(ctx context.Context) error {
	began := time.Now()
	for retry.Sleep(ctx, keepTwins) == nil {
		for _, n := range a.raft.Store().View().Nodes() {
			addresses, twins := a.daemon.twins.seen(n.ID)
			cmd := state.SetNodeProblem{ID: n.ID, Now: time.Now()}
			switch {
			case twins && n.Problem == "":
				cmd.Problem = fmt.Sprintf("two devices run with its identity, at %s: the data directory was copied. "+
					"Wipe it on one of the two and join that one again with a fresh token (cloudless token create)", strings.Join(addresses, " and at "))
			case !twins && n.Problem != "" && time.Since(began) > twinMemory:
				// A new leader may not have met them yet.
			default:
				continue
			}
			if _, err := a.raft.Propose(ctx, cmd); err != nil && ctx.Err() == nil {
				a.daemon.log.Warn("that a node has a twin was not recorded", zap.String("peer", string(n.ID)), zap.Error(err))
			}
		}
	}
	return nil
}
