package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/cloudless-project/cloudless/api"
)

// file is a spooled entry.
type file struct {
	id     int
	size   int64
	digest string // sha256:…, of what was written
}

// spool keeps the plain files of an archive on disk, under numbers.
type spool struct {
	parent *os.Root
	name   string // of the directory in parent
	root   *os.Root
	opts   Options

	used     int64
	metadata int64 // bytes of JSON decoded so far
	entries  int
	count    int             // files written
	files    map[string]file // by name in the archive, cleaned
	links    map[string]string
	byDigest map[string]file
}

func newSpool(opts Options) (*spool, error) {
	s := &spool{
		parent: opts.Dir, name: "import-" + rand.Text(), opts: opts,
		files:    make(map[string]file),
		links:    make(map[string]string),
		byDigest: make(map[string]file),
	}
	if err := s.parent.Mkdir(s.name, 0o700); err != nil {
		return nil, fmt.Errorf("make spool directory: %w", err)
	}
	root, err := s.parent.OpenRoot(s.name)
	if err != nil {
		_ = s.parent.Remove(s.name)
		return nil, fmt.Errorf("open spool directory: %w", err)
	}
	s.root = root
	return s, nil
}

func (s *spool) close() {
	_ = s.root.Close()
	_ = s.parent.RemoveAll(s.name) // best effort: what is left takes room, nothing else
}

// fill spools a whole archive.
func (s *spool) fill(ctx context.Context, r io.Reader) error {
	in := &input{ctx: ctx, r: r}
	plain, err := decompress(in)
	if err != nil {
		return in.explain(err)
	}
	defer plain.Close()
	// Headers, padding and what is skipped count, too: the last bound is on what
	// comes out of the decompressor.
	limited := &bounded{r: plain, left: s.opts.MaxSize + int64(s.opts.MaxEntries)*1024, max: s.opts.MaxSize}
	tr := tar.NewReader(limited)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if s.entries == 0 && errors.Is(err, tar.ErrHeader) {
				return notAnArchive()
			}
			return in.explain(err)
		}
		if err := s.entry(h, tr); err != nil {
			return in.explain(err)
		}
	}
	if in.read == 0 {
		return invalid("the archive is empty")
	}
	// What follows the end mark is padding; reading it lets the decompressor
	// check its sum.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return in.explain(err)
	}
	return nil
}

// entry takes one entry of the tar.
func (s *spool) entry(h *tar.Header, r io.Reader) error {
	if s.entries++; s.entries > s.opts.MaxEntries {
		return tooLarge("the archive has more than %d entries", s.opts.MaxEntries)
	}
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, ok := local(h.Name)
	if !ok {
		return invalid("entry %q leads out of the archive", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return nil
	case tar.TypeReg:
		f, err := s.write(r)
		if err != nil {
			return err
		}
		delete(s.links, name)
		s.files[name] = f
		return nil
	case tar.TypeSymlink:
		// podman and older versions of docker save link a layer that occurs
		// twice. A link is a second name here, never a link on disk.
		target, ok := local(path.Join(path.Dir(name), h.Linkname))
		if !ok || path.IsAbs(h.Linkname) {
			return invalid("entry %q is a symbolic link that leads out of the archive", h.Name)
		}
		delete(s.files, name)
		s.links[name] = target
		return nil
	}
	return invalid("entry %q is %s; an image archive has plain files only", h.Name, describe(h.Typeflag)).
		WithHint("docker export and tar of a root filesystem make something else; use docker save")
}

// local cleans the name of an entry; ok is false when it leaves the archive.
func local(name string) (clean string, ok bool) {
	clean = path.Clean(name)
	return clean, !path.IsAbs(name) && clean != ".." && !strings.HasPrefix(clean, "../")
}

func describe(typeflag byte) string {
	switch typeflag {
	case tar.TypeLink:
		return "a hard link"
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a named pipe"
	}
	return "of type " + strconv.QuoteRune(rune(typeflag))
}

// write spools what r yields.
func (s *spool) write(r io.Reader) (file, error) {
	f := file{id: s.count}
	s.count++
	w, err := s.root.OpenFile(strconv.Itoa(f.id), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return f, fmt.Errorf("spool archive: %w", err)
	}
	sum := sha256.New()
	// One byte more than there is room for, to notice.
	f.size, err = io.Copy(io.MultiWriter(w, sum), io.LimitReader(r, s.opts.MaxSize-s.used+1))
	if e := w.Close(); err == nil {
		err = e
	}
	if errors.Is(err, syscall.ENOSPC) {
		return f, tooLarge("no space left to unpack the archive: %w", err)
	}
	if err != nil {
		return f, fmt.Errorf("spool archive: %w", err)
	}
	if s.used += f.size; s.used > s.opts.MaxSize {
		return f, tooLarge("the archive is larger than %d bytes", s.opts.MaxSize)
	}
	f.digest = fmt.Sprintf("sha256:%x", sum.Sum(nil))
	s.byDigest[f.digest] = f
	return f, nil
}

// lookup finds a file by its name in the archive, through links.
func (s *spool) lookup(name string) (file, bool) {
	name = path.Clean(name)
	for range 8 {
		if f, ok := s.files[name]; ok {
			return f, true
		}
		next, ok := s.links[name]
		if !ok {
			break
		}
		name = next
	}
	return file{}, false
}

func (s *spool) open(f file) (*os.File, error) { return s.root.Open(strconv.Itoa(f.id)) }

// json decodes a metadata file, known to people as what.
func (s *spool) json(f file, what string, v any) error {
	if f.size > maxMetadata {
		return tooLarge("%s is larger than %d bytes", what, maxMetadata)
	}
	// A document that is named a thousand times is decoded as often.
	if s.metadata += f.size; s.metadata > maxAllMetadata {
		return tooLarge("the manifests of the archive are larger than %d bytes", maxAllMetadata)
	}
	r, err := s.open(f)
	if err != nil {
		return fmt.Errorf("open %s: %w", what, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxMetadata))
	if err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return invalid("%s: %v", what, err)
	}
	return nil
}

// put adds a file that the archive does not have.
func (s *spool) put(data []byte) (file, error) { return s.write(bytes.NewReader(data)) }

func tooLarge(format string, args ...any) *api.Error {
	return api.Errorf(api.KindExhausted, format, args...)
}
