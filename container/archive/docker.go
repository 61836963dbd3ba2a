package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dockerEntry is one image in Docker's manifest.json. Config and Layers are
// names of entries.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerTags returns the names that manifest.json gives, by digest of the
// config; nil when there is no such file or it cannot be read.
func dockerTags(s *spool) map[string][]string {
	f, ok := s.lookup(manifestFile)
	if !ok {
		return nil
	}
	var entries []dockerEntry
	if s.json(f, manifestFile, &entries) != nil {
		return nil
	}
	tags := make(map[string][]string)
	for _, e := range entries {
		if c, ok := s.lookup(e.Config); ok {
			tags[c.digest] = append(tags[c.digest], e.RepoTags...)
		}
	}
	return tags
}

// resolveDocker converts images in Docker's layout to OCI. Config and layers
// stay as they are; the manifest is new.
func resolveDocker(ctx context.Context, s *spool) ([]*image, error) {
	f, _ := s.lookup(manifestFile)
	var entries []dockerEntry
	if err := s.json(f, manifestFile, &entries); err != nil {
		return nil, err
	}
	parts := 0
	var images []*image
	for _, e := range entries {
		if parts += len(e.Layers) + 2; parts > maxDescriptors {
			return nil, tooLarge("the images of the archive have more than %d parts", maxDescriptors)
		}
		i, err := convert(ctx, s, e)
		if err != nil {
			return nil, err
		}
		images = merge(images, i, e.RepoTags)
	}
	return images, nil
}

func convert(ctx context.Context, s *spool, e dockerEntry) (*image, error) {
	c, ok := s.lookup(e.Config)
	if !ok {
		return nil, invalid("the archive has no config %q, which %s names", e.Config, manifestFile)
	}
	// Docker names the config by its digest, in both layouts.
	name := strings.TrimSuffix(path.Base(e.Config), ".json")
	if want := digest.NewDigestFromEncoded(digest.SHA256, name); want.Validate() == nil && want.String() != c.digest {
		return nil, invalid("blob %s has digest %s", want, c.digest)
	}
	var config ocispec.Image
	if err := s.json(c, "config "+e.Config, &config); err != nil {
		return nil, err
	}
	if len(config.RootFS.DiffIDs) != len(e.Layers) {
		return nil, invalid("the config lists %d layers, %s lists %d", len(config.RootFS.DiffIDs), manifestFile, len(e.Layers))
	}
	p := platform(&config.Platform)
	if p == "" {
		return nil, invalid("the config %q does not say for which platform it is", e.Config)
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    descriptor(ocispec.MediaTypeImageConfig, c),
		Layers:    []ocispec.Descriptor{},
	}
	for n, l := range e.Layers {
		d, err := layer(ctx, s, l, config.RootFS.DiffIDs[n])
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, d)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	f, err := s.put(data)
	if err != nil {
		return nil, err
	}
	i := &image{target: descriptor(m.MediaType, f), platforms: []string{p}}
	w := walk{image: i}
	w.add(i.target)
	w.add(m.Config)
	for _, l := range m.Layers {
		w.add(l)
	}
	return i, nil
}

func descriptor(mediaType string, f file) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(f.digest), Size: f.size}
}

// layer finds a layer and verifies that its uncompressed form is what the
// config says.
func layer(ctx context.Context, s *spool, name string, diffID digest.Digest) (ocispec.Descriptor, error) {
	f, ok := s.lookup(name)
	if !ok {
		return ocispec.Descriptor{}, invalid("the archive has no layer %q, which %s names", name, manifestFile)
	}
	if f.digest == diffID.String() {
		return descriptor(ocispec.MediaTypeImageLayer, f), nil
	}
	mediaType, plain, err := plainDigest(ctx, s, f)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if plain != diffID.String() {
		return ocispec.Descriptor{}, invalid("layer %q has digest %s, the config says %s", name, plain, diffID)
	}
	return descriptor(mediaType, f), nil
}

// plainDigest returns the media type of a layer and the digest of what is in it.
func plainDigest(ctx context.Context, s *spool, f file) (mediaType, plain string, err error) {
	r, err := s.open(f)
	if err != nil {
		return "", "", err
	}
	defer r.Close()
	start := make([]byte, len(magicZstd))
	n, err := io.ReadFull(r, start)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", "", err
	}
	switch start = start[:n]; {
	case bytes.HasPrefix(start, magicGzip):
		mediaType = ocispec.MediaTypeImageLayerGzip
	case bytes.HasPrefix(start, magicZstd):
		mediaType = ocispec.MediaTypeImageLayerZstd
	default:
		return ocispec.MediaTypeImageLayer, f.digest, nil
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return "", "", err
	}
	in := &input{ctx: ctx, r: r}
	d, err := decompress(in)
	if err != nil {
		return "", "", in.explain(err)
	}
	defer d.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, &bounded{r: d, left: s.opts.MaxSize, max: s.opts.MaxSize}); err != nil {
		return "", "", in.explain(err)
	}
	return mediaType, fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}
