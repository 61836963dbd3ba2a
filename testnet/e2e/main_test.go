//go:build linux

// Package e2e drives the real binary in the lab: real namespaces, NATs,
// containers and power cuts. It looks at the product from outside, through the
// command line and the network, as its users do. It needs root and the packages
// that `make setup` installs.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

// patient is how long a test waits for something that has to happen. How fast
// it happens is for the benchmarks.
const patient = 2 * time.Minute

// binary is the cloudless under test, built by TestMain from this tree.
var binary string

func TestMain(m *testing.M) {
	testnet.RunInit()
	if len(os.Args) > 1 && os.Args[1] == "stranger" {
		os.Exit(stranger(os.Args[2]))
	}
	if len(os.Args) > 2 && os.Args[1] == "registers" {
		os.Exit(registerClient(os.Args[2]))
	}
	if len(os.Args) > 1 && os.Args[1] == "registry" {
		os.Exit(serveRegistry(os.Args[2]))
	}
	if len(os.Args) > 1 && os.Args[1] == "hold" {
		os.Exit(hold(os.Args[2]))
	}
	if len(os.Args) > 1 && os.Args[1] == "scan" {
		os.Exit(scan(os.Args[2], os.Args[3]))
	}
	os.Exit(withBinary(m.Run))
}

func withBinary(run func() int) int {
	if err := needs("containerd", "runc", "nft", "ip", "ss", "busybox", "curl", "iperf3"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "cloudless-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "cloudless")
	build := exec.Command("go", "build", "-o", binary, "../..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build cloudless: %v\n%s", err, out)
		return 1
	}
	return run()
}

// needs fails with what to do, and before anything has been tried.
func needs(tools ...string) error {
	var missing []string
	for _, t := range tools {
		if _, err := exec.LookPath(t); err != nil {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("these tests need %s: run \"make setup\" as root", strings.Join(missing, ", "))
	}
	if os.Geteuid() != 0 {
		return errors.New("these tests build namespaces and run containers: run them as root")
	}
	return nil
}

// newLab builds the homes. When the test fails the ends of the daemons' logs
// are part of its output.
func newLab(t *testing.T) *testnet.Lab {
	t.Helper()
	return newLabOf(t, testnet.Homes())
}

// newLabOf builds any topology.
func newLabOf(t *testing.T, topology testnet.Topology) *testnet.Lab {
	t.Helper()
	lab, err := testnet.Up(t.Context(), topology, testnet.Options{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, d := range lab.Devices() {
				if _, err := os.Stat(d.LogFile()); err == nil {
					t.Logf("--- the node on %s said last:\n%s", d.Name, d.LogTail(20))
				}
			}
		}
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// newCluster builds the homes with a cluster of the VPS and the given devices.
func newCluster(t *testing.T, joiners ...string) *testnet.Lab {
	t.Helper()
	lab := newLab(t)
	if err := lab.Found(t.Context(), "vps", joiners...); err != nil {
		t.Fatal(err)
	}
	return lab
}

// importWeb imports the web image on a device.
func importWeb(t *testing.T, lab *testnet.Lab, d *testnet.Device) {
	t.Helper()
	archive := filepath.Join(lab.Dir, "web.tar")
	must(t, testnet.WriteWebImage(archive, testnet.WebImage, 4<<20))
	cloudless(t, d, "image", "import", archive)
}

// runWeb applies the web workload and waits until it is ready.
func runWeb(t *testing.T, d *testnet.Device, replicas int) *testnet.Workload {
	t.Helper()
	must(t, d.Apply(t.Context(), testnet.WebManifest("web", replicas)))
	w, err := d.AwaitReplicas(t.Context(), patient, "web", replicas)
	must(t, err)
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func cloudless(t *testing.T, d *testnet.Device, args ...string) string {
	t.Helper()
	out, err := d.Cloudless(t.Context(), args...)
	must(t, err)
	return out
}

func await(t *testing.T, what string, cond func(context.Context) error) {
	t.Helper()
	must(t, testnet.Await(t.Context(), patient, what, cond))
}

// awaitAnswer waits until a URL answers on a device, and returns the answer.
func awaitAnswer(t *testing.T, d *testnet.Device, url string) (body string) {
	t.Helper()
	await(t, url+" to answer on "+d.Name, func(ctx context.Context) (err error) {
		body, err = d.Output(ctx, "curl", "-fsS", "-m", "3", url)
		return err
	})
	return strings.TrimSpace(body)
}

const webURL = "http://web.cloudless.internal/"
