package node

import (
	"errors"
	"io/fs"
	"sync"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

// viewCache holds the last cluster view, in memory and on disk: it is all that
// the data plane works from, so a node that starts while every anchor is away
// goes on where it was.
type viewCache struct {
	dir *dataDir
	log *zap.Logger

	mu      sync.RWMutex
	view    api.ClusterView
	known   bool
	changed chan struct{}
}

// openView reads the view that an earlier daemon kept. One that cannot be read
// is as good as none: the anchors have the truth.
func openView(dir *dataDir, log *zap.Logger) *viewCache {
	c := &viewCache{dir: dir, log: log, changed: make(chan struct{})}
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

// put replaces the view. A view that cannot be written to disk still counts:
// refusing it would take the node out of service when its disk is full.
func (c *viewCache) put(v api.ClusterView) {
	c.mu.Lock()
	c.view, c.known = v, true
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if err := c.dir.saveJSON(viewFile, v); err != nil {
		c.log.Warn("the cluster view was not saved", zap.Error(err))
	}
}

// node returns this view's record of a node.
func nodeOf(v *api.ClusterView, id api.NodeID) (api.Node, bool) {
	for _, n := range v.Nodes {
		if n.ID == id {
			return n, true
		}
	}
	return api.Node{}, false
}
