package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/cloudless-project/cloudless/api"
)

const (
	imagesDir = "images"
	spoolDir  = "import"
)

// dropAfter is how long the cluster must not have known an image before this
// node deletes it: an import is on its way to the anchors for a while, and one
// that was removed by mistake can be imported again without its bytes.
const dropAfter = 10 * time.Minute

// holding is an image that is whole on this node.
type holding struct {
	image    api.Image
	outdated bool      // the cluster means other content by its name now
	unknown  time.Time // since then the cluster does not know it; zero while it does
}

// prepare makes the directories what a new daemon wants. It comes before the
// API is served, and load once the runtime answers: an import may be under way
// by then.
func (m *images) prepare() error {
	if err := m.dir.RemoveAll(spoolDir); err != nil { // of an import that was cut off
		m.log.Warn("the leftovers of an import cannot be removed", zap.Error(err))
	}
	if err := m.dir.MkdirAll(imagesDir, 0o700); err != nil {
		return fmt.Errorf("prepare image index: %w", err)
	}
	return nil
}

// load serves again what an earlier daemon held, if it is still there.
func (m *images) load(ctx context.Context) error {
	entries, err := fs.ReadDir(m.dir.FS(), imagesDir)
	if err != nil {
		return fmt.Errorf("read image index: %w", err)
	}
	for _, e := range entries {
		name := imagesDir + "/" + e.Name()
		var img api.Image
		if err := m.dir.loadJSON(name, &img); err != nil {
			m.log.Warn("an entry of the image index cannot be read", zap.Error(err))
			continue
		}
		have, err := m.complete(ctx, img.Ref, img.Digest)
		if err != nil {
			return fmt.Errorf("look for image %s: %w", img.Ref, err)
		}
		if !have {
			m.log.Info("an image is not complete any more", zap.String("image", img.Ref))
			_ = m.dir.Remove(name)
			continue
		}
		if err := m.hold(img); err != nil {
			m.log.Warn("an image cannot be served", zap.String("image", img.Ref), zap.Error(err))
			continue
		}
		if name != indexName(img.Ref) { // as earlier versions named it
			_ = m.dir.Remove(name)
		}
	}
	return nil
}

// indexName is the file that remembers what is held under a reference.
func indexName(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return imagesDir + "/" + hex.EncodeToString(sum[:16]) + ".json"
}

// refs lists what is held completely, and is what the cluster means by it.
func (m *images) refs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]string, 0, len(m.held))
	for ref, h := range m.held {
		if !h.outdated {
			out = append(out, ref)
		}
	}
	slices.Sort(out)
	return out
}

// holds reports whether exactly this image is held.
func (m *images) holds(img api.Image) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.held[img.Ref]
	return h != nil && h.image.Digest == img.Digest
}

// hold serves an image's blobs, instead of those that its name meant before,
// and remembers it across restarts.
func (m *images) hold(img api.Image) error {
	img.Holders = nil
	if err := m.exchange.Provide(img.Blobs); err != nil {
		return err
	}
	if err := m.dir.saveJSON(indexName(img.Ref), img); err != nil {
		// A full disk must not keep an image from running that is here.
		m.log.Warn("the image index was not saved", zap.String("image", img.Ref), zap.Error(err))
	}
	m.mu.Lock()
	old := m.held[img.Ref]
	m.held[img.Ref] = &holding{image: img}
	m.withdraw(old)
	m.mu.Unlock()
	m.changed()
	return nil
}

// withdraw stops serving the blobs of a former holding that no other one has;
// the lock is held, so that none is added meanwhile.
func (m *images) withdraw(old *holding) {
	if old == nil {
		return
	}
	needed := make(map[string]bool)
	for _, h := range m.held {
		for _, b := range h.image.Blobs {
			needed[b.Digest] = true
		}
	}
	var gone []string
	for _, b := range old.image.Blobs {
		if !needed[b.Digest] {
			gone = append(gone, b.Digest)
		}
	}
	m.exchange.Withdraw(gone)
}

// drop stops serving an image and deletes it; content that a container or
// another image needs stays.
func (m *images) drop(ctx context.Context, ref string) {
	m.mu.Lock()
	old := m.held[ref]
	delete(m.held, ref)
	m.withdraw(old)
	m.mu.Unlock()
	_ = m.dir.Remove(indexName(ref))
	if err := m.runtime.RemoveImage(ctx, ref); err != nil {
		m.log.Warn("an image was not deleted", zap.String("image", ref), zap.Error(err))
	}
	m.changed()
}

// review compares what is held with what the cluster knows, and drops what the
// cluster has forgotten and no replica of this node uses.
func (m *images) review(ctx context.Context, v api.ClusterView, used map[string]bool, now time.Time) {
	known := make(map[string]string, len(v.Images))
	for _, img := range v.Images {
		known[img.Ref] = img.Digest
	}
	var drop []string
	changed := false
	m.mu.Lock()
	for ref, h := range m.held {
		digest, ok := known[ref]
		switch {
		case ok && digest == h.image.Digest:
			changed = changed || h.outdated
			h.outdated, h.unknown = false, time.Time{}
		case used[ref]:
			changed = changed || ok && !h.outdated
			h.outdated, h.unknown = h.outdated || ok, time.Time{}
		default:
			changed = changed || ok && !h.outdated
			h.outdated = h.outdated || ok
			if h.unknown.IsZero() {
				h.unknown = now
			}
			if now.Sub(h.unknown) >= dropAfter {
				drop = append(drop, ref)
			}
		}
	}
	m.mu.Unlock()
	if changed {
		m.changed()
	}
	for _, ref := range drop {
		m.log.Info("dropping an image that the cluster does not know any more", zap.String("image", ref))
		m.drop(ctx, ref)
	}
}

// distrust drops the images that contain a blob whose content on this disk is
// not what it should be, and brings those again that are used here.
func (m *images) distrust(ctx context.Context, digest string, used map[string]bool) {
	m.mu.Lock()
	var refs []string
	for ref, h := range m.held {
		if slices.ContainsFunc(h.image.Blobs, func(b api.Blob) bool { return b.Digest == digest }) {
			refs = append(refs, ref)
		}
	}
	m.mu.Unlock()
	for _, ref := range refs {
		m.log.Warn("an image is damaged on this disk, dropping it", zap.String("image", ref), zap.String("digest", digest))
		m.drop(ctx, ref)
	}
	for _, ref := range refs {
		if !used[ref] {
			continue
		}
		if err := m.Ensure(ctx, ref); err != nil {
			m.log.Warn("a damaged image was not brought again", zap.String("image", ref), zap.Error(err))
		}
	}
}

// holdersOf lists the nodes that have a blob, as far as this node knows.
func holdersOf(v api.ClusterView, digest string) []api.NodeID {
	for _, img := range v.Images {
		if slices.ContainsFunc(img.Blobs, func(b api.Blob) bool { return b.Digest == digest }) {
			return img.Holders
		}
	}
	return nil
}
