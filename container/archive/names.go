package archive

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
)

// layoutNames returns the names that an entry of index.json carries. A bare tag
// names nothing.
func layoutNames(d ocispec.Descriptor) []string {
	if n := d.Annotations[annotationImageName]; n != "" {
		return []string{n}
	}
	if n := d.Annotations[ocispec.AnnotationRefName]; strings.ContainsAny(n, ":/") {
		return []string{n}
	}
	return nil
}

// choose picks the image to import and its normalised names. name is what the
// user asks for, "" for nothing.
func choose(found []*image, name string) (*image, []string, error) {
	if len(found) == 0 {
		return nil, nil, invalid("the archive holds no container image")
	}
	if name == "" {
		return chooseOnly(found)
	}
	name, err := api.NormaliseImageRef(name)
	if err != nil {
		return nil, nil, err
	}
	if len(found) == 1 {
		return found[0], []string{name}, nil
	}
	for _, i := range found {
		if names, err := normalised(i); err == nil && slices.Contains(names, name) {
			return i, []string{name}, nil
		}
	}
	return nil, nil, invalid("the archive holds %d images (%s), none called %s", len(found), listNames(found), name).
		WithHint("name one of them with --name")
}

func chooseOnly(found []*image) (*image, []string, error) {
	if len(found) > 1 {
		return nil, nil, invalid("the archive holds %d images (%s)", len(found), listNames(found)).
			WithHint("import one at a time, with --name")
	}
	names, err := normalised(found[0])
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 0 {
		return nil, nil, invalid("the archive does not say what its image is called").
			WithHint("give it a name with --name")
	}
	return found[0], names, nil
}

func normalised(i *image) ([]string, error) {
	var names []string
	for _, n := range i.names {
		n, err := api.NormaliseImageRef(n)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, nil
}

// listNames names images for people, a few at most.
func listNames(found []*image) string {
	var names []string
	for n, i := range found {
		if n == 5 {
			names = append(names, "…")
			break
		}
		if len(i.names) == 0 {
			names = append(names, i.target.Digest.String())
		}
		names = append(names, i.names...)
	}
	return strings.Join(names, ", ")
}
