package api

import (
	"strings"

	"github.com/distribution/reference"
)

const maxImageRef = 512

// NormaliseImageRef returns the one form in which Cloudless compares and
// stores image references: registry, repository, and a tag or a digest. What is
// left out is filled in as every container tool does: "web" becomes
// "docker.io/library/web:latest". A digest is kept and gets no tag.
func NormaliseImageRef(ref string) (string, error) {
	if ref == "" {
		return "", Invalid("", "an image is needed").WithHint("write it like docker.io/library/web:1.2")
	}
	if len(ref) > maxImageRef {
		return "", Invalid("", "the image reference has %d characters, at most %d are allowed", len(ref), maxImageRef)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), "invalid reference format: ")
		return "", Invalid("", "%q is not an image reference: %s", ref, why).WithHint("write it like docker.io/library/web:1.2")
	}
	return reference.TagNameOnly(named).String(), nil
}
