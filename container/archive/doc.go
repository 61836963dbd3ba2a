// Package archive reads image archives: what docker save, podman save, buildx,
// skopeo and friends write, as an OCI image layout or in Docker's own layout, in
// a plain, gzip or zstd tar.
//
// An archive comes from outside. Its entries are spooled under numbers of the
// package's own, in a directory that the caller gives, so that no name in it
// ever becomes a path; sizes, counts and nesting are bounded; and nothing is
// handed on before every digest and every size that the images name was
// verified. Docker's layout has no manifest in the sense of a registry, so one
// is written for it.
//
// The package knows no runtime: a Sink takes the verified blobs.
package archive
