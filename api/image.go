package api

import "time"

// Blob is one content-addressed part of an image. An OCI digest of more than
// 2 MiB cannot travel as one block, so a blob is cut into fixed-size leaves,
// each with its own CID (v1, raw, sha2-256).
type Blob struct {
	Digest    string   `json:"digest"` // sha256:…
	MediaType string   `json:"media_type"`
	Size      int64    `json:"size"`
	Leaves    []string `json:"leaves"` // CIDs, in order
}

// BlobLeafSize is the size of every leaf of a blob but the last.
const BlobLeafSize = 1 << 20

// Image is an image that the cluster can give to its nodes.
type Image struct {
	Ref        string    `json:"ref"`    // normalised, e.g. docker.io/library/web:1.2
	Digest     string    `json:"digest"` // of the manifest or index it names
	MediaType  string    `json:"media_type"`
	Size       int64     `json:"size"`                // sum of the blobs
	Platforms  []string  `json:"platforms,omitempty"` // os/arch
	Blobs      []Blob    `json:"blobs,omitempty"`     // manifest(s), configs and layers
	Holders    []NodeID  `json:"holders,omitempty"`   // nodes that have every blob
	ImportedAt time.Time `json:"imported_at"`
	Version    uint64    `json:"version"`
}
