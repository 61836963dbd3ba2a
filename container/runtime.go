package container

import (
	"context"
	"io"
	"iter"
	"time"
)

// Runtime runs containers from content-addressed images. Take the small
// interface that is enough; only a composition root wants all of it.
type Runtime interface {
	Info(ctx context.Context) (Info, error)
	Content
	Images
	Containers
	Execer
	Logs
}

// Info says which runtime answers and how it is set up.
type Info struct {
	Name        string // "containerd"
	Version     string
	Root        string // where content and snapshots are stored
	Snapshotter string
	Cgroup      int // version, 1 or 2
}

// UnclaimedFor is how long written content is kept before an image claims it.
const UnclaimedFor = 24 * time.Hour

// BlobReader reads one blob; close it when done. An alias, so that packages
// that must not import this one can declare the same interface.
type BlobReader = interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Content stores blobs under their digest ("sha256:…").
type Content interface {
	// HasBlob reports whether the whole blob is here.
	HasBlob(ctx context.Context, digest string) (bool, error)
	// OpenBlob fails with KindNotFound when the blob is not here.
	OpenBlob(ctx context.Context, digest string) (BlobReader, error)
	// WriteBlob stores what r yields, if it has exactly this size and digest.
	// It does not read r when the blob is here already.
	WriteBlob(ctx context.Context, digest string, size int64, r io.Reader) error
}

// Descriptor names a blob and what it is.
type Descriptor struct {
	Digest    string
	MediaType string
	Size      int64
}

// Image is a name for a manifest, or for an index of manifests.
type Image struct {
	Ref      string // e.g. docker.io/library/web:1.2
	Target   Descriptor
	Complete bool // every blob that this node's platform needs is here
}

// Images names content and makes it runnable.
type Images interface {
	// RegisterImage names target, whose manifest must be here, and keeps every
	// blob below it that is here. Call it again when more of them arrived.
	RegisterImage(ctx context.Context, ref string, target Descriptor) error
	// Image fails with KindNotFound when nothing has that name.
	Image(ctx context.Context, ref string) (Image, error)
	ListImages(ctx context.Context) ([]Image, error)
	// RemoveImage drops the name; content that no other image and no container
	// needs goes with it.
	RemoveImage(ctx context.Context, ref string) error
	// Blobs lists manifests, config and layers below target for this node's
	// platform, target first. It fails with KindNotFound when a manifest on the
	// way is not here; the blobs that it lists may be missing.
	Blobs(ctx context.Context, target Descriptor) ([]Descriptor, error)
	// Unpack makes the image's root filesystem, once.
	Unpack(ctx context.Context, ref string) error
	// Pull brings and registers an image from its registry for this node's
	// platform. Plain HTTP is spoken to loopback addresses only.
	Pull(ctx context.Context, ref string) (Image, error)
}

// Containers is the life of containers.
type Containers interface {
	// Create prepares a container from an unpacked image.
	Create(ctx context.Context, spec Spec) error
	// Stage does all of a Start that can be done before the process runs, so
	// that Start then takes a moment. A container that is staged, or runs, is
	// left as it is; Stop does not concern one that is staged, Remove does.
	Stage(ctx context.Context, id string) error
	// Start runs the container's process unless it runs, also again after it
	// ended; the outcome of the run before is then forgotten.
	Start(ctx context.Context, id string) (Status, error)
	// Stop asks the process to end, kills it after grace, and returns when it
	// is gone.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Remove kills what still runs and deletes the container, its writable
	// layer and its log.
	Remove(ctx context.Context, id string) error
	// Status fails with KindNotFound when there is no such container.
	Status(ctx context.Context, id string) (Status, error)
	// List returns every container in Cloudless's care, by ID.
	List(ctx context.Context) ([]Status, error)
	// Exits yields how containers ended, at least once for each run, beginning
	// with those that stand stopped. It survives restarts of the runtime and is
	// closed when ctx ends.
	Exits(ctx context.Context) <-chan Exit
}

// State is where a container stands.
type State string

// The states of a container.
const (
	StateCreated State = "created" // never started
	StateRunning State = "running"
	StateStopped State = "stopped" // ran, and ended
)

// Status is one container as the runtime sees it.
type Status struct {
	ID        string
	Image     string
	Labels    map[string]string // as given in the Spec
	State     State
	PID       int       // of the process on the host, 0 unless running
	StartedAt time.Time // of the last run, zero when never started
	Exit      *Exit     // how the last run ended, nil unless stopped
}

// Reason says why a run ended.
type Reason string

// The reasons.
const (
	ReasonCompleted Reason = "Completed" // exit code 0
	ReasonError     Reason = "Error"     // another exit code
	ReasonOOM       Reason = "OOMKilled" // over its memory limit
	ReasonLost      Reason = "Lost"      // ended unseen: the host restarted or the shim died; Code is 255
)

// Exit is how a run of a container ended. Two Exits with equal ID and
// StartedAt speak of the same run.
type Exit struct {
	ID        string
	StartedAt time.Time
	At        time.Time // zero when unknown
	Code      int       // 128+n after signal n
	Reason    Reason
}

// Execer runs further processes in containers.
type Execer interface {
	// Exec runs a process in a running container, with the identity and the
	// limits of its main process, and returns its exit code. When ctx ends the
	// process is killed.
	Exec(ctx context.Context, id string, spec ExecSpec) (code int, err error)
}

// ExecSpec describes a further process. Nil streams are closed or discarded.
type ExecSpec struct {
	Args   []string
	Env    []string // KEY=value, added to the container's
	TTY    bool     // Stdout carries both streams, Stderr is not used
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Resize <-chan WindowSize // read while the process runs, when TTY
}

// WindowSize is the size of a terminal in characters.
type WindowSize struct{ Width, Height int }

// Logs reads what containers wrote to their standard streams. A log is bounded
// (the oldest part is dropped) and lives as long as its container.
type Logs interface {
	// ReadLogs yields entries, oldest first. An error ends the sequence; with
	// Follow it ends when ctx does (without an error) or when the container is
	// removed.
	ReadLogs(ctx context.Context, id string, opts LogOptions) iter.Seq2[LogEntry, error]
}

// LogOptions selects log entries.
type LogOptions struct {
	Follow bool
	Tail   int       // at most this many old entries; 0 = all, negative = none
	Since  time.Time // zero = from the beginning
}

// LogEntry is one line of output.
type LogEntry struct {
	Time    time.Time
	Stream  string // "stdout" or "stderr"
	Line    string // without the newline
	Partial bool   // the line goes on in the stream's next entry
}
