package archive

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"

	"github.com/cloudless-project/cloudless/api"
)

// The first bytes of what an archive or a layer may be.
var (
	magicGzip  = []byte{0x1f, 0x8b}
	magicZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicXz    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	magicBzip2 = []byte("BZh")
)

// maxWindow bounds the memory of a zstd stream, as the zstd tool does.
const maxWindow = 128 << 20

// input is the caller's stream. It keeps its error apart from those of the
// formats in it, and ends with the context between two reads.
type input struct {
	ctx  context.Context
	r    io.Reader
	read int64
	err  error // of r or ctx, but for io.EOF
}

func (i *input) Read(p []byte) (int, error) {
	err := i.ctx.Err()
	n := 0
	if err == nil {
		n, err = i.r.Read(p)
	}
	i.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		i.err = err
	}
	return n, err
}

// explain says what is wrong with the archive, or with the stream it came in.
func (i *input) explain(err error) error {
	var known *api.Error
	var disk *fs.PathError // of the spool
	switch {
	case i.err != nil:
		return fmt.Errorf("read archive: %w", i.err)
	case errors.As(err, &known):
		return known
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("the archive is truncated after %d bytes", i.read)
	case errors.As(err, &disk):
		return fmt.Errorf("read archive: %w", err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return tooLarge("the archive needs too much memory to decompress: %w", err)
	}
	return invalid("the archive is damaged: %w", err)
}

// decompress returns the plain stream of r, whatever of the known formats it
// comes in.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	start, err := b.Peek(len(magicXz))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(start, magicGzip):
		return gzip.NewReader(b)
	case bytes.HasPrefix(start, magicZstd):
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case bytes.HasPrefix(start, magicXz):
		return nil, invalid("archives compressed with xz cannot be read").WithHint("decompress it first: xz -d")
	case bytes.HasPrefix(start, magicBzip2):
		return nil, invalid("archives compressed with bzip2 cannot be read").WithHint("decompress it first: bzip2 -d")
	}
	return io.NopCloser(b), nil
}

func notAnArchive() error {
	return invalid("this is not an image archive (a tar, plain or compressed with gzip or zstd)").
		WithHint("make one with docker save, podman save or buildx --output type=oci")
}

// bounded fails when more comes out of r than left.
type bounded struct {
	r         io.Reader
	left, max int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, tooLarge("the archive is larger than %d bytes", b.max)
	}
	return n, err
}
