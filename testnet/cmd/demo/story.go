//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloudless-project/cloudless/testnet"
)

const (
	ballast = 16 << 20 // makes the image as large as a small real one
	patient = 60 * time.Second
	url     = "http://web.cloudless.internal/"
)

// story holds what later steps need of earlier ones.
type story struct {
	*narrator
	lab   *testnet.Lab
	image string // path of the archive
	vps   *testnet.Device
	pi    *testnet.Device
	nas   *testnet.Device
	desk  *testnet.Device
	lap   *testnet.Device
}

type step struct {
	title string
	run   func(context.Context) error
}

func (s *story) steps() []step {
	return []step{
		{"The VPS founds the cluster", s.found},
		{"Three devices join with one token each, from behind their NATs", s.join},
		{"A laptop joins in a café: direct where the NATs allow it, relayed where not", s.paths},
		{"An image is imported on pi", s.importImage},
		{"Three replicas are asked for, through desk", s.apply},
		{"Every device reaches the service by its name", s.visit},
		{"A device with a replica loses power", s.losePower},
		{"The VPS is cut off for ten seconds", s.loseAnchor},
		{"The dead device comes back", s.comeBack},
		{"Logs, a shell, events", s.lookAround},
	}
}

func (s *story) build(ctx context.Context, o testnet.Options) error {
	return s.tell(ctx, "Five devices and three routers are set up on this machine", func(ctx context.Context) error {
		lab, err := testnet.Up(ctx, testnet.Homes(), o)
		if err != nil {
			return err
		}
		s.lab = lab
		s.vps, s.pi, s.nas, s.desk, s.lap = lab.Device("vps"), lab.Device("pi"), lab.Device("nas"), lab.Device("desk"), lab.Device("laptop")
		for _, d := range lab.Devices() {
			s.say("%-7s %-15s %-7s %s", d.Name, d.Addr, d.Site, natWords(d.NAT))
		}
		s.image = filepath.Join(lab.Dir, "web.tar")
		return testnet.WriteWebImage(s.image, testnet.WebImage, ballast)
	})
}

func natWords(n testnet.NAT) string {
	switch n {
	case testnet.Public:
		return "public address"
	case testnet.Cone:
		return "behind an ordinary home router"
	default:
		return "behind a symmetric NAT: no hole punching"
	}
}

func (s *story) found(ctx context.Context) error {
	if err := s.lab.Found(ctx, "vps"); err != nil {
		return err
	}
	out, err := s.vps.Cloudless(ctx, "node", "list")
	s.show("vps", "cloudless node list", out)
	return err
}

func (s *story) join(ctx context.Context) error {
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range []*testnet.Device{s.pi, s.nas, s.desk} {
		g.Go(func() error {
			took, err := s.joinOne(ctx, d)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			s.say("%-7s ready %s after its start", d.Name, seconds(took))
			return nil
		})
	}
	return g.Wait()
}

// joinOne makes a token, starts a node with it and waits until it is ready.
func (s *story) joinOne(ctx context.Context, d *testnet.Device, flags ...string) (time.Duration, error) {
	var t testnet.Token
	if err := s.vps.CloudlessJSON(ctx, &t, "token", "create"); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := d.Start(ctx, append([]string{"--join", t.Token}, flags...)...); err != nil {
		return 0, err
	}
	err := s.vps.AwaitReady(ctx, patient, d.Name)
	return time.Since(start), err
}

// paths watches how the laptop comes to reach the others. Through a symmetric
// NAT there is no direct way: relayed is the last word there.
func (s *story) paths(ctx context.Context) error {
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := s.joinOne(gctx, s.lap, "--no-workloads")
		return err
	})
	g.Go(func() error { return s.watchPaths(gctx, start) })
	return g.Wait()
}

func (s *story) watchPaths(ctx context.Context, start time.Time) error {
	seen := map[string]string{}
	want := map[string]string{"vps": "direct", "pi": "direct", "nas": "direct", "desk": "relayed"}
	return testnet.Await(ctx, patient, "the laptop's paths", func(ctx context.Context) error {
		peers, err := s.lap.Peers(ctx)
		if err != nil {
			return err // it is just starting
		}
		for _, p := range peers {
			if p.Name != "" && seen[p.Name] != p.Path {
				seen[p.Name] = p.Path
				s.say("%7s  laptop → %-5s %-8s by %s  %s", seconds(time.Since(start)), p.Name, p.Path, p.Transport, p.Address)
			}
		}
		for name, path := range want {
			if seen[name] != path {
				return fmt.Errorf("laptop reaches %s %q, not %s", name, seen[name], path)
			}
		}
		return nil
	})
}

func (s *story) importImage(ctx context.Context) error {
	out, err := s.pi.Cloudless(ctx, "image", "import", s.image)
	if err != nil {
		return err
	}
	s.show("pi", "cloudless image import web.tar", out)
	out, err = s.vps.Cloudless(ctx, "image", "list")
	s.show("vps", "cloudless image list", out)
	return err
}

func (s *story) apply(ctx context.Context) error {
	manifest := testnet.WebManifest("web", 3)
	s.say("%s", s.paint(dim, strings.TrimSpace(manifest)))
	start := time.Now()
	if err := s.desk.Apply(ctx, manifest); err != nil {
		return err
	}
	w, err := s.desk.AwaitReplicas(ctx, patient, "web", 3)
	if err != nil {
		return err
	}
	took := time.Since(start)
	places := w.Places()
	if len(slices.Compact(places)) != 3 {
		return fmt.Errorf("the replicas share nodes: %v", places)
	}
	out, err := s.desk.Cloudless(ctx, "workload", "show", "web")
	if err != nil {
		return err
	}
	s.show("desk", "cloudless workload show web", out)
	s.say("ready on %s %s after the apply; the image came from pi", strings.Join(places, ", "), seconds(took))
	return nil
}

func (s *story) visit(ctx context.Context) error {
	for _, d := range s.lab.Devices() {
		// The name is known as soon as the device has heard of the service.
		err := testnet.Await(ctx, 10*time.Second, d.Name+" to be answered", func(ctx context.Context) error {
			out, err := d.Output(ctx, "curl", "-fsS", "-m", "5", url)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(out, "hello from web.") {
				return fmt.Errorf("the answer was %q", out)
			}
			s.show(d.Name, "curl "+url, out)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *story) losePower(ctx context.Context) error {
	w, err := s.vps.Workload(ctx, "web")
	if err != nil {
		return err
	}
	victim := s.pi
	if _, ok := w.On(victim.Name); !ok {
		victim = s.nas
	}
	if _, ok := w.On(victim.Name); !ok {
		return fmt.Errorf("neither pi nor nas has a replica: %v", w.Places())
	}
	probe, err := s.lap.Probe(ctx, url)
	if err != nil {
		return err
	}
	defer probe.Stop()
	if err := answering(ctx, probe); err != nil {
		return err
	}
	start := time.Now()
	if err := victim.Kill(ctx); err != nil {
		return err
	}
	s.say("%s is dark; its containers are gone, and nobody was told", victim.Name)
	after, err := s.vps.AwaitReplicas(ctx, patient, "web", 3, victim.Name)
	if err != nil {
		return err
	}
	took := time.Since(start)
	s.say("three replicas are ready again after %s: on %s", seconds(took), strings.Join(after.Places(), ", "))
	r := probe.Result()
	s.say("the laptop asked all the while: %d answers, %d failures, longest wait %s", r.Answers, r.Failures, seconds(r.Longest))
	return nil
}

// answering waits until a probe has heard something, and starts its count anew.
func answering(ctx context.Context, probes ...*testnet.Probe) error {
	for _, p := range probes {
		err := testnet.Await(ctx, 10*time.Second, "the service to answer "+p.Device, func(context.Context) error {
			if r := p.Result(); r.Answers == 0 {
				return errors.New("no answer: " + r.LastErr)
			}
			return nil
		})
		if err != nil {
			return err
		}
		p.Reset()
	}
	return nil
}

func (s *story) loseAnchor(ctx context.Context) error {
	var probes []*testnet.Probe
	for _, d := range s.lab.Devices() {
		if d == s.vps || !d.On(ctx) {
			continue
		}
		p, err := d.Probe(ctx, url)
		if err != nil {
			return err
		}
		defer p.Stop()
		probes = append(probes, p)
	}
	if err := answering(ctx, probes...); err != nil {
		return err
	}
	if err := s.vps.Cut(ctx); err != nil {
		return err
	}
	s.say("the only anchor and relay is out of reach")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Second):
	}
	for _, p := range probes {
		r := p.Stop()
		s.say("%-7s %4d answers, %d failures, longest wait %s", p.Device, r.Answers, r.Failures, seconds(r.Longest))
		if r.Answers < 10 {
			return fmt.Errorf("%s was left without the service: %s", p.Device, r.LastErr)
		}
	}
	if err := s.vps.Heal(ctx); err != nil {
		return err
	}
	var names []string
	for _, d := range s.lab.Devices() {
		if d.On(ctx) {
			names = append(names, d.Name)
		}
	}
	start := time.Now()
	if err := s.vps.AwaitReady(ctx, patient, names...); err != nil {
		return err
	}
	s.say("everybody is back %s after the cable", seconds(time.Since(start)))
	return nil
}

func (s *story) comeBack(ctx context.Context) error {
	for _, d := range s.lab.Devices() {
		if d.On(ctx) {
			continue
		}
		start := time.Now()
		if err := d.Boot(ctx); err != nil {
			return err
		}
		if err := s.vps.AwaitReady(ctx, patient, d.Name); err != nil {
			return err
		}
		s.say("%s is ready %s after it was switched on", d.Name, seconds(time.Since(start)))
	}
	w, err := s.vps.AwaitReplicas(ctx, patient, "web", 3)
	if err != nil {
		return err
	}
	s.say("three replicas, as asked, on %s", strings.Join(w.Places(), ", "))
	return nil
}

func (s *story) lookAround(ctx context.Context) error {
	for _, cmd := range [][]string{
		{"workload", "logs", "web", "--tail", "2"},
		{"workload", "exec", "web", "--", "hostname"},
		{"workload", "explain", "web"},
	} {
		out, err := s.nas.Cloudless(ctx, cmd...)
		if err != nil {
			return err
		}
		s.show("nas", "cloudless "+strings.Join(cmd, " "), out)
	}
	out, err := s.nas.Cloudless(ctx, "events")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	s.show("nas", "cloudless events | tail -8", strings.Join(lines[max(0, len(lines)-8):], "\n"))
	return err
}

// showLogs prints the end of every daemon's log.
func (s *story) showLogs() {
	for _, d := range s.lab.Devices() {
		if _, err := os.Stat(d.LogFile()); err == nil {
			fmt.Fprintf(os.Stderr, "\n--- %s\n%s\n", d.LogFile(), d.LogTail(15))
		}
	}
}
