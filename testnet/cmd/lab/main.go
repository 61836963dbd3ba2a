//go:build linux

// Command lab drives a test internet by hand; testnet/lab builds and runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/cloudless-project/cloudless/testnet"
)

const usage = `lab builds a small internet on this machine and runs cloudless in it.

  lab up [-dir DIR] [-keep] [-binary FILE]
                                one VPS, home-a (two devices, ordinary NAT),
                                home-b (one device, symmetric NAT), a laptop
  lab status                    devices, addresses, power
  lab start DEVICE [FLAGS...]   cloudless node start on a device
  lab image [-ref REF] [FILE]   write the image of the demo, a small web server, to
                                FILE (default web.tar), for "cloudless image import"
  lab exec DEVICE COMMAND...    run anything on a device; "cloudless" is in its PATH
  lab log DEVICE                the daemon's output
  lab cut|heal DEVICE|HOME      packets disappear, or flow again
  lab kill|boot DEVICE          pull the plug, or power on with the same disk
  lab down [-keep]              remove everything; -keep leaves disks and logs,
                                and "lab up -keep" goes on with them

Several labs live side by side; $LAB names the one that is meant (default "lab").
`

func main() {
	testnet.RunInit()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	err := dispatch(ctx, args, out)
	var exit *testnet.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit): // the command has already said what is wrong
		return exit.Code
	case errors.Is(err, errUsage):
		fmt.Fprint(errOut, usage)
		return 2
	default:
		fmt.Fprintln(errOut, "lab:", err)
		return 1
	}
}

func dispatch(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	verb, args := args[0], args[1:]
	switch verb {
	case "up":
		return up(ctx, args, out)
	case "down":
		return down(ctx, args)
	case "image":
		return image(args, out)
	case "help", "-h", "--help":
		fmt.Fprint(out, usage)
		return nil
	}
	lab, err := testnet.Open(labName())
	if err != nil {
		return fmt.Errorf("%w; \"testnet/lab up\" builds one", err)
	}
	if verb == "status" {
		return status(ctx, lab, out)
	}
	if len(args) == 0 {
		return errUsage
	}
	name, args := args[0], args[1:]
	switch verb {
	case "cut":
		return lab.Cut(ctx, name)
	case "heal":
		return lab.Heal(ctx, name)
	}
	d, ok := lab.Lookup(name)
	if !ok {
		return fmt.Errorf("no device is named %q", name)
	}
	return onDevice(ctx, d, verb, args, out)
}

func onDevice(ctx context.Context, d *testnet.Device, verb string, args []string, out io.Writer) error {
	switch verb {
	case "start":
		return start(ctx, d, args, out)
	case "exec":
		if len(args) == 0 {
			return errUsage
		}
		return d.Run(ctx, testnet.Cmd{Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	case "kill":
		return d.Kill(ctx)
	case "boot":
		return d.Boot(ctx)
	case "log":
		b, err := os.ReadFile(d.LogFile())
		if err != nil {
			return err
		}
		_, err = out.Write(b)
		return err
	}
	return errUsage
}

func labName() string {
	if n := os.Getenv("LAB"); n != "" {
		return n
	}
	return "lab"
}

// root is the repository, as the wrapper script knows it.
func root() string { return os.Getenv("CLOUDLESS_ROOT") }

func up(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	name := labName()
	keep := flags.Bool("keep", false, "go on with the disks of an earlier lab")
	dir := flags.String("dir", "", "where disks and logs go (default build/NAME)")
	binary := flags.String("binary", filepath.Join(root(), "bin/cloudless"), "the cloudless binary")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	if *dir == "" {
		*dir = filepath.Join(root(), "build", name)
	}
	if _, err := os.Stat(*binary); errors.Is(err, os.ErrNotExist) {
		*binary = "" // the lab is useful for other things too; start will complain
	}
	lab, err := testnet.Up(ctx, testnet.Homes(), testnet.Options{
		Name: name, Dir: *dir, Keep: *keep, Binary: *binary, Detached: true,
	})
	if err != nil {
		return err
	}
	return status(ctx, lab, out)
}

func down(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("lab down", flag.ContinueOnError)
	keep := flags.Bool("keep", false, "leave disks and logs")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	lab, err := testnet.Open(labName())
	if err != nil { // an unfinished lab, or none
		return testnet.Down(ctx, labName())
	}
	if err := testnet.Down(ctx, lab.ID); err != nil || *keep {
		return err
	}
	return lab.Wipe()
}

func status(ctx context.Context, lab *testnet.Lab, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DEVICE\tSITE\tNAT\tADDRESS\tPOWER\tNODE")
	for _, d := range lab.Devices() {
		power, node := "off", "-"
		if d.On(ctx) {
			power = "on"
			node = d.NodeStatus(ctx)
		}
		fmt.Fprintln(w, strings.Join([]string{d.Name, d.Site, string(d.NAT), d.Addr.String(), power, node}, "\t"))
	}
	return w.Flush()
}

// firstWords is how long a daemon is watched that was just started: one that
// was told nonsense ends at once.
const firstWords = 1500 * time.Millisecond

// start starts a node and stays until it can be taken to run: a daemon in the
// background complains to its log, where nobody looks.
func start(ctx context.Context, d *testnet.Device, flags []string, out io.Writer) error {
	if err := d.Start(ctx, flags...); err != nil {
		return err
	}
	watch, cancel := context.WithTimeout(ctx, firstWords)
	defer cancel()
	code, err := d.WaitNode(watch)
	if watch.Err() != nil {
		fmt.Fprintf(out, "the node on %s runs; \"lab log %s\" shows what it says\n", d.Name, d.Name)
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("the node on %s ended with code %d:\n%s", d.Name, code, strings.TrimRight(d.LogTail(5), "\n"))
}

// image writes the archive of the image that the demo runs.
func image(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("lab image", flag.ContinueOnError)
	ref := flags.String("ref", testnet.WebImage, "name of the image")
	if err := flags.Parse(args); err != nil || flags.NArg() > 1 {
		return errUsage
	}
	file := "web.tar"
	if flags.NArg() == 1 {
		file = flags.Arg(0)
	}
	if err := testnet.WriteWebImage(file, *ref, imageBallast); err != nil {
		return err
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s in %s; on a device: lab exec DEVICE cloudless image import %s\n", *ref, abs, abs)
	return nil
}

// imageBallast makes the image large enough to see it travel, in bytes.
const imageBallast = 4 << 20
