package node

import (
	"context"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// knownImage looks an image up in the last view. Of those that no replica of
// this node uses the view tells no more than the digest.
func (d *daemon) knownImage(ref string) (api.Image, bool) {
	for _, img := range d.views.current().Images {
		if img.Ref == ref && len(img.Blobs) > 0 {
			return img, true
		}
	}
	return api.Image{}, false
}

// registerImage tells the anchors of an image that this node holds.
func (d *daemon) registerImage(ctx context.Context, img api.Image) (api.Image, error) {
	conn, err := d.server.Conn(d.self)
	if err != nil {
		return img, err
	}
	reply, err := pb.NewSyncServiceClient(conn).RegisterImage(ctx, &pb.RegisterImageRequest{Image: wire.ImageToPB(img)})
	if err != nil {
		return img, wire.ErrorFromStatus(err)
	}
	return wire.ImageFromPB(reply.GetImage()), nil
}
