package control

import (
	"context"
	"errors"
	"io"

	"github.com/cloudless-project/cloudless/api"
	pb "github.com/cloudless-project/cloudless/api/pb/cloudless/v1"
	"github.com/cloudless-project/cloudless/api/wire"
	"github.com/cloudless-project/cloudless/raftmeta/state"
)

type imageServer struct {
	pb.UnimplementedImageServiceServer
	*Server
}

func (s *imageServer) ImportImage(stream pb.ImageService_ImportImageServer) error {
	if s.cfg.Images == nil {
		return api.Errorf(api.KindUnsupported, "this node runs no workloads, so it keeps no images").
			WithHint("send the archive to a worker: cloudless --peer <its address> image import …")
	}
	first, err := stream.Recv()
	if err != nil {
		return api.Errorf(api.KindInvalid, "the import ended before it began: %w", err)
	}
	header := first.GetHeader()
	if header == nil {
		return api.Invalid("header", "must be the first message of an import")
	}
	reader, writer := io.Pipe()
	go func() {
		for {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				writer.Close()
				return
			}
			if err == nil {
				_, err = writer.Write(msg.GetChunk())
			}
			if err != nil {
				writer.CloseWithError(err)
				return
			}
		}
	}()
	images, err := s.cfg.Images.Import(stream.Context(), reader, header.GetName())
	reader.CloseWithError(io.ErrClosedPipe)
	if err != nil {
		return err
	}
	reply := &pb.ImportImageResponse{}
	for _, i := range images {
		i.Blobs = nil
		reply.Images = append(reply.Images, wire.ImageToPB(i))
	}
	return stream.SendAndClose(reply)
}

func (s *imageServer) ListImages(ctx context.Context, _ *pb.ListImagesRequest) (*pb.ListImagesResponse, error) {
	view, err := s.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	reply := &pb.ListImagesResponse{}
	for _, i := range view.Images() {
		i.Blobs = nil
		reply.Images = append(reply.Images, wire.ImageToPB(i))
	}
	return reply, nil
}

func (s *imageServer) RemoveImage(ctx context.Context, req *pb.RemoveImageRequest) (*pb.RemoveImageResponse, error) {
	ref, err := api.NormaliseImageRef(req.GetRef())
	if err != nil {
		return nil, err
	}
	if _, err := propose[any](ctx, s.Server, state.RemoveImage{Ref: ref, Now: s.cfg.Now()}); err != nil {
		return nil, err
	}
	return &pb.RemoveImageResponse{}, nil
}
