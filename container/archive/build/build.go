// Package build writes small image archives: for tests, and for a lab without a
// registry. Equal input gives equal bytes.
package build

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"testing/fstest"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cloudless-project/cloudless/api"
)

// Config is what the image says of itself.
type Config struct {
	Entrypoint []string
	Cmd        []string
	Env        []string // KEY=value
	WorkingDir string
	User       string
	Labels     map[string]string
	Arch       string // GOARCH, required
}

// Image writes an OCI image layout with one image, called ref, whose only layer
// is the content of files. Symbolic links are kept when files can read them
// (fs.ReadLinkFS). Owners are root, times are the epoch.
func Image(w io.Writer, ref string, files fs.FS, cfg Config) error {
	if cfg.Arch == "" {
		return errors.New("build image: Arch is required")
	}
	name, err := api.NormaliseImageRef(ref)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	if err := writeLayer(&layer, files); err != nil {
		return fmt.Errorf("build layer: %w", err)
	}
	l := layout{w: tar.NewWriter(w)}
	layerDesc := l.blob(ocispec.MediaTypeImageLayer, layer.Bytes())
	epoch := time.Unix(0, 0).UTC()
	configDesc := l.json(ocispec.MediaTypeImageConfig, ocispec.Image{
		Created:  &epoch,
		Platform: ocispec.Platform{OS: "linux", Architecture: cfg.Arch},
		Config: ocispec.ImageConfig{
			Entrypoint: cfg.Entrypoint, Cmd: cfg.Cmd, Env: cfg.Env,
			WorkingDir: cfg.WorkingDir, User: cfg.User, Labels: cfg.Labels,
		},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDesc.Digest}},
	})
	manifest := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    configDesc,
		Layers:    []ocispec.Descriptor{layerDesc},
	})
	manifest.Platform = &ocispec.Platform{OS: "linux", Architecture: cfg.Arch}
	manifest.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	l.file("index.json", l.encode(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifest},
	}))
	if err := l.w.Close(); l.err == nil {
		l.err = err
	}
	return l.err
}

// layout writes the files of an OCI layout and keeps the first error.
type layout struct {
	w   *tar.Writer
	err error
}

func (l *layout) file(name string, data []byte) {
	if l.err != nil {
		return
	}
	l.err = l.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatPAX})
	if l.err == nil {
		_, l.err = l.w.Write(data)
	}
}

func (l *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{
		MediaType: mediaType,
		Digest:    digest.NewDigestFromBytes(digest.SHA256, sum(data)),
		Size:      int64(len(data)),
	}
	l.file("blobs/sha256/"+d.Digest.Encoded(), data)
	return d
}

func sum(data []byte) []byte {
	s := sha256.Sum256(data)
	return s[:]
}

func (l *layout) json(mediaType string, v any) ocispec.Descriptor {
	return l.blob(mediaType, l.encode(v))
}

func (l *layout) encode(v any) []byte {
	data, err := json.Marshal(v)
	if l.err == nil {
		l.err = err
	}
	return data
}

// writeLayer writes a file system as the tar of a layer.
func writeLayer(w io.Writer, files fs.FS) error {
	tw := tar.NewWriter(w)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return writeEntry(tw, files, name, info)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, files fs.FS, name string, info fs.FileInfo) error {
	h := &tar.Header{Name: name, Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if info.Mode()&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if h.Mode == 0 {
			h.Mode |= 0o755 // directories that an fstest.MapFS only implies
		}
		return tw.WriteHeader(h)
	case fs.ModeSymlink:
		target, err := fs.ReadLink(files, name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, target, 0o777
		return tw.WriteHeader(h)
	case 0:
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Size = tar.TypeReg, int64(len(data))
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = tw.Write(data)
		return err
	}
	return fmt.Errorf("%s is neither a file, a directory nor a symbolic link", name)
}

// applets are the commands of busybox that an image for tests wants.
var applets = []string{
	"ash", "awk", "cat", "chmod", "cp", "cut", "date", "dd", "df", "du", "echo", "env", "expr", "false", "find", "free",
	"grep", "head", "hostname", "httpd", "id", "ifconfig", "ip", "kill", "ls", "mkdir", "mktemp", "mount", "mv", "nc",
	"nslookup", "ping", "printf", "ps", "pwd", "rm", "route", "sed", "seq", "sh", "sleep", "sort", "stat", "sync", "tail",
	"tar", "tee", "test", "timeout", "top", "touch", "true", "uname", "uniq", "uptime", "vi", "wc", "wget", "which",
	"whoami", "xargs", "yes",
}

// Busybox returns a root file system around a statically linked busybox, read
// from binary (Debian's busybox-static puts it at /bin/busybox): links for its
// applets, users root and nobody, /tmp, and /www/index.html for httpd. Add to it
// what the image is to hold beside that.
func Busybox(binary string) (fstest.MapFS, error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return nil, fmt.Errorf("read busybox: %w", err)
	}
	dir := &fstest.MapFile{Mode: fs.ModeDir | 0o755}
	files := fstest.MapFS{
		"bin": dir, "dev": dir, "etc": dir, "proc": dir, "sys": dir, "www": dir, "home": dir,
		"root":           {Mode: fs.ModeDir | 0o700},
		"tmp":            {Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		"bin/busybox":    {Mode: 0o755, Data: data},
		"etc/passwd":     {Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		"etc/group":      {Mode: 0o644, Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		"www/index.html": {Mode: 0o644, Data: []byte("hello from cloudless\n")},
	}
	for _, a := range applets {
		files["bin/"+a] = &fstest.MapFile{Mode: fs.ModeSymlink | 0o777, Data: []byte("busybox")}
	}
	return files, nil
}
