package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// viewCache holds the last cluster view, in memory and on disk: it is all that
// the data plane works from, so a node that starts while every anchor is away
// goes on where it was.
type viewCache struct {
	self api.NodeID
	dir  *dataDir
	log  *zap.Logger

	mu      sync.RWMutex
	view    api.ClusterView
	known   bool
	changed chan struct{}
}

// openView reads the view that an earlier daemon kept. One that cannot be read
// is as good as none: the anchors have the truth.
func openView(self api.NodeID, dir *dataDir, log *zap.Logger) *viewCache {
	c := &viewCache{self: self, dir: dir, log: log, changed: make(chan struct{})}
	switch err := dir.loadJSON(viewFile, &c.view); {
	case err == nil:
		c.known = true
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("the cached cluster view cannot be read; waiting for an anchor", zap.Error(err))
		c.view = api.ClusterView{}
	}
	return c
}

// get returns the last view and whether there has been one at all.
func (c *viewCache) get() (api.ClusterView, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.view, c.known
}

// current returns the last view; the zero view when there has been none.
func (c *viewCache) current() api.ClusterView {
	v, _ := c.get()
	return v
}

// watch returns the last view and a channel that is closed when it is replaced.
func (c *viewCache) watch() (api.ClusterView, bool, <-chan struct{}) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.view, c.known, c.changed
}

// put replaces the view; run brings it to the disk.
func (c *viewCache) put(v api.ClusterView) {
	c.mu.Lock()
	c.view, c.known = v, true
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
}

// amend changes the view that there is.
func (c *viewCache) amend(change func(api.ClusterView) api.ClusterView) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known {
		return
	}
	c.view = change(c.view)
	close(c.changed)
	c.changed = make(chan struct{})
}

const (
	// viewBytesPerSecond bounds what views write to the disk, to 44 MB a day: in
	// a cluster of hundreds of nodes something always changes, and every view
	// holds everything.
	viewBytesPerSecond = 512
	// viewDelay bounds how old the view on the disk may be.
	viewDelay = 10 * time.Minute
)

// run writes views to the disk: at once when it matters to a daemon that starts
// without anchors, and otherwise as often as the disk can bear.
func (c *viewCache) run(ctx context.Context) error {
	var saved savedView
	for {
		view, known, changed := c.watch()
		wait := viewDelay
		if known {
			saved, wait = c.save(saved, view, false)
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if known {
				c.save(saved, c.current(), true)
			}
			return nil
		}
		timer.Stop()
	}
}

// savedView is what the last write brought to the disk.
type savedView struct {
	content []byte // without the index
	vital   string
	due     time.Time // when the next one may follow
}

// save writes a view when that is due, and returns when to look again.
func (c *viewCache) save(last savedView, v api.ClusterView, now bool) (savedView, time.Duration) {
	plain := v
	plain.Index = 0 // grows also when nothing changed for this node
	content, err := json.Marshal(plain)
	if err != nil {
		c.log.Error("the cluster view cannot be encoded", zap.Error(err))
		return last, viewDelay
	}
	if bytes.Equal(content, last.content) {
		return last, viewDelay
	}
	vital := c.vital(v)
	if early := time.Until(last.due); !now && early > 0 && vital == last.vital {
		return last, early
	}
	pause := min(time.Duration(len(content))*time.Second/viewBytesPerSecond, viewDelay)
	if err := c.dir.saveJSON(viewFile, v); err != nil {
		// It still counts: refusing it would take the node out of service when
		// its disk is full.
		c.log.Warn("the cluster view was not saved", zap.Error(err))
		return savedView{vital: vital, due: time.Now().Add(pause)}, pause
	}
	return savedView{content, vital, time.Now().Add(pause)}, viewDelay
}

// vital sums up what a daemon must know when it starts without anchors: what it
// runs (or it would remove it), who is shut out, and its own addresses.
func (c *viewCache) vital(v api.ClusterView) string {
	var b strings.Builder
	for _, r := range v.Replicas {
		if r.Node == c.self {
			fmt.Fprintf(&b, "%s %d %s\n", r.ID, r.Revision, r.Desired)
		}
	}
	for _, r := range v.Revocations {
		fmt.Fprintln(&b, r.ID)
	}
	for _, s := range v.Services {
		fmt.Fprintln(&b, s.Name, s.VIP)
	}
	self, _ := nodeOf(&v, c.self)
	fmt.Fprintln(&b, self.Subnet)
	return b.String()
}

// nodeOf returns this view's record of a node.
func nodeOf(v *api.ClusterView, id api.NodeID) (api.Node, bool) {
	for _, n := range v.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return api.Node{}, false
}
