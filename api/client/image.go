package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
)

// importChunk is how much of an archive travels in one message, in bytes.
const importChunk = 256 << 10

// ImportImage sends an archive (OCI layout or docker save, maybe gzipped) and
// returns the images it held. A name replaces the archive's own reference.
func (c *Client) ImportImage(ctx context.Context, name string, archive io.Reader) ([]api.Image, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.images.ImportImage(ctx)
	if err != nil {
		return nil, err
	}
	send := func(m *pb.ImportImageRequest) (done bool, err error) {
		// EOF means that the node answered already; the answer says why.
		err = stream.Send(m)
		return errors.Is(err, io.EOF), err
	}
	done, err := send(&pb.ImportImageRequest{Message: &pb.ImportImageRequest_Header{Header: &pb.ImportHeader{Name: name}}})
	buf := make([]byte, importChunk)
	for !done {
		if err != nil {
			return nil, err
		}
		n, readErr := io.ReadFull(archive, buf)
		if n > 0 {
			done, err = send(&pb.ImportImageRequest{Message: &pb.ImportImageRequest_Chunk{Chunk: buf[:n]}})
		}
		if errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF) {
			break
		}
		if readErr != nil {
			return nil, unreadable(readErr)
		}
	}
	r, err := stream.CloseAndRecv()
	if err != nil {
		return nil, err
	}
	return all(r.GetImages(), wire.ImageFromPB), nil
}

// unreadable says once that an archive could not be read: the error of a file
// says so itself.
func unreadable(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("read archive %s: %w", path.Path, path.Err)
	}
	return fmt.Errorf("read archive: %w", err)
}

// Images returns the images of the cluster, by reference, without their blobs.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	r, err := c.images.ListImages(ctx, &pb.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	return all(r.GetImages(), wire.ImageFromPB), nil
}

// RemoveImage forgets an image; nodes drop what no other image needs.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	_, err := c.images.RemoveImage(ctx, &pb.RemoveImageRequest{Ref: ref})
	return err
}
