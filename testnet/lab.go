//go:build linux

package testnet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// runDir keeps what a lab must know to be taken down by another process. Like
// the namespaces it does not outlive a restart of the machine.
const runDir = "/run/cloudless-lab"

// tearDown bounds Close and the clearing of leftovers.
const tearDown = 30 * time.Second

// Options of Up. Every field has a default.
type Options struct {
	Name     string // of the lab, part of every namespace's name; default random
	Binary   string // cloudless; needed by Device.Start and Device.Cloudless only
	Dir      string // disks and logs; default a new temporary directory, removed by Close
	Keep     bool   // go on with the disks that an earlier lab left in Dir; default refuse
	Detached bool   // outlives this process, for use by hand; end it with Down
}

// Lab is a running topology.
type Lab struct {
	ID      string
	Dir     string
	Binary  string
	devices []*Device
	routers []machine
	owner   *os.File // lock that says this lab has an owner; nil when opened
	life    *os.File // every init holds the other end
	lifeIn  *os.File
	tempDir bool
	sites   []Site

	renumbered, moved int // how often; each takes a fresh address
}

// record is a lab as it is written to runDir.
type record struct {
	ID       string   `json:"id"`
	Dir      string   `json:"dir"`
	Binary   string   `json:"binary"`
	Topology Topology `json:"topology"`
	Detached bool     `json:"detached"`
}

// Up builds a topology and switches its devices on. Leftovers of labs whose
// process has died are cleared first.
func Up(ctx context.Context, t Topology, o Options) (_ *Lab, err error) {
	if err := prerequisites(); err != nil {
		return nil, err
	}
	if err := Sweep(ctx); err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = randomID()
	}
	if !nameRE.MatchString("l" + o.Name) {
		return nil, fmt.Errorf("build lab: %q is no name: a-z, 0-9 and -, at most 14", o.Name)
	}
	machines, err := t.layout(o.Name)
	if err != nil {
		return nil, err
	}
	lab := &Lab{ID: o.Name, Dir: o.Dir, sites: t.Sites}
	if err := lab.reserve(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lab.Close())
		}
	}()
	if err := lab.claim(t, o); err != nil {
		return nil, err
	}
	if err := buildInternet(ctx, lab.ID); err != nil {
		return nil, err
	}
	for _, m := range machines { // routers come before their devices
		if !m.router {
			continue
		}
		if err := m.build(ctx); err != nil {
			return nil, err
		}
	}
	lab.adopt(machines)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, d := range lab.devices {
		g.Go(func() error { return d.Boot(gctx) })
	}
	return lab, g.Wait()
}

// reserve takes the lab's name.
func (l *Lab) reserve() error {
	run := filepath.Join(runDir, l.ID)
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return fmt.Errorf("build lab: %w", err)
	}
	if err := os.Mkdir(run, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("build lab: a lab named %q exists; take it down first", l.ID)
		}
		return fmt.Errorf("build lab: %w", err)
	}
	return nil
}

// claim checks and makes the lab's directory and writes its record.
func (l *Lab) claim(t Topology, o Options) (err error) {
	if l.Dir == "" {
		if l.Dir, err = os.MkdirTemp("", "cloudless-lab-"); err != nil {
			return fmt.Errorf("build lab: %w", err)
		}
		l.tempDir = true
	}
	if l.Dir, err = filepath.Abs(l.Dir); err != nil {
		return fmt.Errorf("build lab: %w", err)
	}
	if left, _ := os.ReadDir(l.Dir); len(left) > 0 && !o.Keep {
		return fmt.Errorf("build lab: %s is not empty, and may hold the disks of an earlier lab: remove it, or go on with them", l.Dir)
	}
	if o.Binary != "" {
		if l.Binary, err = filepath.Abs(o.Binary); err != nil {
			return fmt.Errorf("build lab: %w", err)
		}
		if _, err := os.Stat(l.Binary); err != nil {
			return fmt.Errorf("build lab: %w; build it with \"make build\"", err)
		}
	}
	for _, hidden := range []string{"/run/", "/var/lib/"} {
		if strings.HasPrefix(l.Dir, hidden) || strings.HasPrefix(l.Binary, hidden) {
			return fmt.Errorf("build lab: its devices have their own %s, so neither its directory nor the binary may lie there", hidden)
		}
	}
	if err := l.lock(o.Detached); err != nil {
		return err
	}
	b, err := json.MarshalIndent(record{l.ID, l.Dir, l.Binary, t, o.Detached}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(runDir, l.ID, "lab.json"), b, 0o600); err != nil {
		return fmt.Errorf("build lab: %w", err)
	}
	return nil
}

// lock holds a file lock for as long as this process lives, whatever ends it.
// Sweep takes a lab whose lock is free for abandoned.
func (l *Lab) lock(detached bool) error {
	if detached {
		return nil
	}
	f, err := os.Create(filepath.Join(runDir, l.ID, "owner"))
	if err != nil {
		return fmt.Errorf("build lab: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("build lab: lock: %w", err)
	}
	l.owner = f
	if l.lifeIn, l.life, err = os.Pipe(); err != nil {
		return fmt.Errorf("build lab: %w", err)
	}
	return nil
}

func (l *Lab) adopt(machines []machine) {
	for _, m := range machines {
		if m.router {
			l.routers = append(l.routers, m)
			continue
		}
		l.devices = append(l.devices, newDevice(l, m))
	}
}

// Open returns a lab that another process has built.
func Open(name string) (*Lab, error) {
	b, err := os.ReadFile(filepath.Join(runDir, name, "lab.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open lab: there is no lab named %q", name)
	}
	if err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("open lab %q: %w", name, err)
	}
	machines, err := r.Topology.layout(r.ID)
	if err != nil {
		return nil, err
	}
	lab := &Lab{ID: r.ID, Dir: r.Dir, Binary: r.Binary, sites: r.Topology.Sites}
	lab.adopt(machines)
	return lab, nil
}

// Devices lists the devices in the order of the topology.
func (l *Lab) Devices() []*Device { return slices.Clone(l.devices) }

// Device returns a device by its name. It panics when the topology has none of
// that name: that is a mistake in the caller's source.
func (l *Lab) Device(name string) *Device {
	if d, ok := l.Lookup(name); ok {
		return d
	}
	panic(fmt.Sprintf("testnet: the topology has no device %q", name))
}

// Lookup returns a device by a name that may be wrong.
func (l *Lab) Lookup(name string) (*Device, bool) {
	i := slices.IndexFunc(l.devices, func(d *Device) bool { return d.Name == name })
	if i < 0 {
		return nil, false
	}
	return l.devices[i], true
}

// Site returns a site by its name; the zero value when there is none.
func (l *Lab) Site(name string) Site {
	i := slices.IndexFunc(l.sites, func(s Site) bool { return s.Name == name })
	if i < 0 {
		return Site{}
	}
	return l.sites[i]
}

// Cut interrupts the connection of a device, or the uplink of a home. Nobody is
// told: packets just disappear.
func (l *Lab) Cut(ctx context.Context, name string) error { return l.plug(ctx, name, false) }

// Heal undoes Cut.
func (l *Lab) Heal(ctx context.Context, name string) error { return l.plug(ctx, name, true) }

func (l *Lab) plug(ctx context.Context, name string, in bool) error {
	m, err := l.machine(name)
	if err != nil {
		return err
	}
	return m.plug(ctx, in)
}

// Close switches everything off and removes it. Logs and disks stay when
// Options.Dir named their place.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), tearDown)
	defer cancel()
	err := Down(ctx, l.ID)
	for _, f := range []*os.File{l.owner, l.life, l.lifeIn} {
		if f != nil {
			f.Close()
		}
	}
	if l.tempDir {
		err = errors.Join(err, os.RemoveAll(l.Dir))
	}
	return err
}

// Down removes a lab by its name, whoever built it and however far it came. A
// lab that is not there is no error.
func Down(ctx context.Context, name string) error {
	if name == "" {
		return errors.New("take lab down: it needs a name")
	}
	errs := []error{killCgroup(ctx, name, "")}
	spaces, err := filepath.Glob("/run/netns/" + nsName(name, "*"))
	errs = append(errs, err)
	for _, ns := range spaces {
		errs = append(errs, run(ctx, "", "ip", "netns", "del", filepath.Base(ns)))
	}
	errs = append(errs, os.RemoveAll(filepath.Join(runDir, name)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take lab %s down: %w", name, err)
	}
	return nil
}

// Wipe removes the disks and logs of a lab that has been taken down, and its
// directory when nothing else is in it.
func (l *Lab) Wipe() error {
	var errs []error
	for _, d := range l.devices {
		errs = append(errs, os.RemoveAll(d.Dir))
	}
	_ = os.Remove(l.Dir) // not when somebody put something there
	return errors.Join(errs...)
}

// List returns the names of the labs on this machine.
func List() ([]string, error) {
	entries, err := os.ReadDir(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Sweep takes down the labs whose owner died without doing so.
func Sweep(ctx context.Context) error {
	names, err := List()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		f, err := os.Open(filepath.Join(runDir, name, "owner"))
		if err != nil {
			continue // detached, or just being built
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			errs = append(errs, Down(ctx, name))
		}
		f.Close()
	}
	return errors.Join(errs...)
}

// prerequisites fails with what to do about it.
func prerequisites() error {
	if os.Geteuid() != 0 {
		return errors.New("build lab: it makes network namespaces and mounts, so it has to run as root")
	}
	var missing []string
	for tool, pkg := range map[string]string{"ip": "iproute2", "tc": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux"} {
		if _, err := lookPath(tool); err != nil && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("build lab: install %s", strings.Join(missing, " "))
	}
	return nil
}

func randomID() string {
	b := make([]byte, 3)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
