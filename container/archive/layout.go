package archive

import (
	"context"
	"encoding/json"
	"slices"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The files at the top of the two layouts.
const (
	indexFile    = "index.json"
	manifestFile = "manifest.json"
)

// Docker's names for what OCI has standardised.
const (
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// annotationImageName is how containerd, docker and buildx write the full
// reference; the annotation of the OCI layout itself often is only a tag.
const annotationImageName = "io.containerd.image.name"

// document is a manifest or an index, read as either, to find documents that
// claim to be both and mean something else to everybody who reads them.
type document struct {
	MediaType string               `json:"mediaType"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	FSLayers  json.RawMessage      `json:"fsLayers"` // of schema 1, long gone
}

func resolveLayout(ctx context.Context, s *spool) ([]*image, error) {
	f, _ := s.lookup(indexFile)
	var index document
	if err := s.json(f, indexFile, &index); err != nil {
		return nil, err
	}
	tags := dockerTags(s)
	var images []*image
	budget := maxDescriptors
	for _, d := range index.Manifests {
		w := walk{ctx: ctx, spool: s, budget: &budget, image: &image{}}
		if err := w.target(d); err != nil {
			return nil, err
		}
		if len(w.image.platforms) == 0 {
			continue // an artifact: a signature, an attestation
		}
		names := layoutNames(d)
		if names == nil {
			names = tags[w.config]
		}
		images = merge(images, w.image, names)
	}
	return images, nil
}

// merge adds an image, or more names to one that is there.
func merge(images []*image, i *image, names []string) []*image {
	at := slices.IndexFunc(images, func(o *image) bool { return o.target.Digest == i.target.Digest })
	if at < 0 {
		images = append(images, i)
		at = len(images) - 1
	}
	for _, n := range names {
		if !slices.Contains(images[at].names, n) {
			images[at].names = append(images[at].names, n)
		}
	}
	return images
}

// walk collects what is below one entry of index.json.
type walk struct {
	ctx    context.Context
	spool  *spool
	budget *int // descriptors still to be read, for all images
	image  *image
	config string // digest of the first config, to find Docker's tags
}

func (w *walk) target(d ocispec.Descriptor) error {
	doc, err := w.document(&d)
	if err != nil {
		return err
	}
	w.image.target = d
	return w.below(d, doc, 0)
}

// document reads the manifest or index that d names and completes d.
func (w *walk) document(d *ocispec.Descriptor) (*document, error) {
	f, err := w.blob(*d)
	if err != nil {
		return nil, err
	}
	what := "manifest " + d.Digest.String()
	var doc document
	if err := w.spool.json(f, what, &doc); err != nil {
		return nil, err
	}
	isIndex := doc.Manifests != nil
	isManifest := doc.Config != nil || doc.Layers != nil
	if isIndex == isManifest || doc.FSLayers != nil {
		return nil, invalid("%s is neither an image manifest nor an index", what)
	}
	if d.MediaType == "" {
		d.MediaType = doc.MediaType
	}
	if d.MediaType == "" {
		d.MediaType = ocispec.MediaTypeImageManifest
		if isIndex {
			d.MediaType = ocispec.MediaTypeImageIndex
		}
	}
	wantIndex := d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == dockerList
	wantManifest := d.MediaType == ocispec.MediaTypeImageManifest || d.MediaType == dockerManifest
	switch {
	case !wantIndex && !wantManifest:
		return nil, invalid("%s has the unknown media type %q", what, d.MediaType)
	case isIndex != wantIndex, doc.MediaType != "" && doc.MediaType != d.MediaType:
		return nil, invalid("%s is not what its media type %q says", what, d.MediaType)
	}
	return &doc, nil
}

// below takes a document and everything that it names.
func (w *walk) below(d ocispec.Descriptor, doc *document, depth int) error {
	w.add(d)
	if doc.Manifests == nil {
		return w.manifest(d, doc)
	}
	if depth == maxDepth {
		return invalid("indexes are nested more than %d deep", maxDepth)
	}
	var missing *ocispec.Descriptor
	present := false
	for _, child := range doc.Manifests {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		// docker save keeps the index of an image for many platforms, but only
		// the platforms that were pulled.
		if _, ok := w.spool.lookup(blobPath(child.Digest)); !ok {
			missing = &child
			continue
		}
		sub, err := w.document(&child)
		if err != nil {
			return err
		}
		if err := w.below(child, sub, depth+1); err != nil {
			return err
		}
		present = true
	}
	if !present && missing != nil {
		return missingBlob(missing.Digest)
	}
	return nil
}

func (w *walk) manifest(d ocispec.Descriptor, doc *document) error {
	if doc.Config == nil {
		return invalid("manifest %s has no config", d.Digest)
	}
	config, err := w.blob(*doc.Config)
	if err != nil {
		return err
	}
	w.add(*doc.Config)
	for _, l := range doc.Layers {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if _, err := w.blob(l); err != nil {
			return err
		}
		w.add(l)
	}
	if t := doc.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return nil // an artifact
	}
	if w.config == "" {
		w.config = doc.Config.Digest.String()
	}
	p := d.Platform
	if p == nil {
		var c ocispec.Image
		if err := w.spool.json(config, "config "+doc.Config.Digest.String(), &c); err != nil {
			return err
		}
		p = &c.Platform
	}
	if name := platform(p); name != "" && !slices.Contains(w.image.platforms, name) {
		w.image.platforms = append(w.image.platforms, name)
	}
	return nil
}

// add notes a blob of the image, once. One that is named again moves to the
// end, so that every blob stands behind all that name it.
func (w *walk) add(d ocispec.Descriptor) {
	w.image.blobs = slices.DeleteFunc(w.image.blobs, func(o ocispec.Descriptor) bool { return o.Digest == d.Digest })
	w.image.blobs = append(w.image.blobs, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
}

// blob finds the content that d names and verifies its digest and size.
func (w *walk) blob(d ocispec.Descriptor) (file, error) {
	if *w.budget--; *w.budget < 0 {
		return file{}, tooLarge("the images of the archive have more than %d parts", maxDescriptors)
	}
	if err := d.Digest.Validate(); err != nil || d.Digest.Algorithm() != digest.SHA256 {
		return file{}, invalid("%q is not a sha256 digest", d.Digest)
	}
	f, ok := w.spool.lookup(blobPath(d.Digest))
	switch {
	case !ok:
		return file{}, missingBlob(d.Digest)
	case f.digest != d.Digest.String():
		return file{}, invalid("blob %s has digest %s", d.Digest, f.digest)
	case f.size != d.Size:
		return file{}, invalid("blob %s has %d bytes, not %d", d.Digest, f.size, d.Size)
	}
	return f, nil
}

func blobPath(d digest.Digest) string {
	if d.Validate() != nil {
		return "blobs/none"
	}
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func missingBlob(d digest.Digest) error {
	return invalid("the archive has no blob %s", d).WithHint("it may have been saved incompletely; make it again")
}

// platform returns os/arch[/variant], and "" for none (attestations say unknown).
func platform(p *ocispec.Platform) string {
	if p.OS == "" || p.Architecture == "" || p.OS == "unknown" || p.Architecture == "unknown" {
		return ""
	}
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return name
}
