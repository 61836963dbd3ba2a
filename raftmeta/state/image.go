package state

import (
	"slices"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

// PutImage makes an image known. Its value is the api.Image. Putting the same
// digest again keeps the holders that are known and adds those of the command.
type PutImage struct {
	Image api.Image `json:"image"`
	Now   time.Time `json:"now"`
}

func (c PutImage) apply(t *tx) (any, error) {
	img := c.Image
	if img.Ref == "" || len(img.Ref) > maxText {
		return nil, api.Invalid("ref", "is empty or too long")
	}
	if err := checkID("digest", img.Digest); err != nil {
		return nil, err
	}
	old := images.get(t.txn, img.Ref)
	if old == nil && len(images.all(t.txn)) >= MaxImages {
		return nil, api.Errorf(api.KindExhausted, "there are %d images already", MaxImages).
			WithHint("remove some with: cloudless image remove REF")
	}
	var holders []api.NodeID
	if old != nil && old.Digest == img.Digest {
		holders = slices.Clone(old.Holders)
	}
	for _, id := range img.Holders {
		if nodes.get(t.txn, string(id)) != nil {
			holders = append(holders, id)
		}
	}
	slices.Sort(holders)
	img.Holders, img.ImportedAt, img.Version = slices.Compact(holders), c.Now, t.index
	images.put(t, &img)
	t.event(api.CodeImageImported, c.Now, "Imported", api.Object{Kind: "image", Name: img.Ref}, "",
		"image %s (%s) was imported", img.Ref, img.Digest)
	return img, nil
}

// RemoveImage forgets an image; nodes then drop its content in their own time.
type RemoveImage struct {
	Ref string    `json:"ref"`
	Now time.Time `json:"now"`
}

func (c RemoveImage) apply(t *tx) (any, error) {
	img := images.get(t.txn, c.Ref)
	if img == nil {
		return nil, notFound("image", c.Ref)
	}
	if user := t.userOf(c.Ref); user != "" {
		return nil, api.Errorf(api.KindConflict, "image %s is used by workload %s", c.Ref, user).
			WithHint("delete or change the workload first")
	}
	images.delete(t, img)
	t.event(api.CodeImageRemoved, c.Now, "Removed", api.Object{Kind: "image", Name: c.Ref}, "", "image %s was removed", c.Ref)
	return nil, nil
}

// userOf returns the first workload that is to run an image, "" when none is.
func (t *tx) userOf(ref string) string {
	for _, w := range workloads.all(t.txn) {
		if w.Deleted {
			continue
		}
		if used, err := api.NormaliseImageRef(w.Spec.Image); w.Spec.Image == ref || err == nil && used == ref {
			return w.Name
		}
	}
	return ""
}

func (t *tx) setHolders(old *api.Image, holders []api.NodeID) {
	img := *old
	slices.Sort(holders)
	img.Holders, img.Version = holders, t.index
	images.put(t, &img)
}

// dropHolder forgets what a removed node held.
func (t *tx) dropHolder(id api.NodeID) {
	for _, img := range images.all(t.txn) {
		if slices.Contains(img.Holders, id) {
			t.setHolders(img, without(img.Holders, id))
		}
	}
}

func without(ids []api.NodeID, id api.NodeID) []api.NodeID {
	return slices.DeleteFunc(slices.Clone(ids), func(o api.NodeID) bool { return o == id })
}
