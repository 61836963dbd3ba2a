package wire

import (
	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
)

// ImageToPB converts an image.
func ImageToPB(i api.Image) *pb.Image {
	return &pb.Image{
		Ref:        i.Ref,
		Digest:     i.Digest,
		MediaType:  i.MediaType,
		Size:       i.Size,
		Platforms:  i.Platforms,
		Blobs:      list(i.Blobs, BlobToPB),
		Holders:    names[string](i.Holders),
		ImportedAt: timeToPB(i.ImportedAt),
		Version:    i.Version,
	}
}

// ImageFromPB converts an image.
func ImageFromPB(p *pb.Image) api.Image {
	return api.Image{
		Ref:        p.GetRef(),
		Digest:     p.GetDigest(),
		MediaType:  p.GetMediaType(),
		Size:       p.GetSize(),
		Platforms:  p.GetPlatforms(),
		Blobs:      list(p.GetBlobs(), BlobFromPB),
		Holders:    names[api.NodeID](p.GetHolders()),
		ImportedAt: timeFromPB(p.GetImportedAt()),
		Version:    p.GetVersion(),
	}
}

// BlobToPB converts a part of an image.
func BlobToPB(b api.Blob) *pb.Blob {
	return &pb.Blob{Digest: b.Digest, MediaType: b.MediaType, Size: b.Size, Leaves: b.Leaves}
}

// BlobFromPB converts a part of an image.
func BlobFromPB(p *pb.Blob) api.Blob {
	return api.Blob{Digest: p.GetDigest(), MediaType: p.GetMediaType(), Size: p.GetSize(), Leaves: p.GetLeaves()}
}
