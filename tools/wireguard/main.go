//go:build linux

// Command wireguard is one end of a WireGuard tunnel in user space, for `make
// bench` to compare with. It makes the interface that is its argument, reads its
// configuration from standard input as WireGuard's UAPI has it, and runs until
// it is told to stop; the interface goes with it.
package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: wireguard INTERFACE <CONFIGURATION")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "wireguard:", err)
		os.Exit(1)
	}
}

func run(name string, config io.Reader) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	link, err := tun.CreateTUN(name, device.DefaultMTU)
	if err != nil {
		return fmt.Errorf("make interface %s: %w", name, err)
	}
	dev := device.NewDevice(link, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, ""))
	defer dev.Close()
	if err := dev.IpcSetOperation(config); err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	if err := dev.Up(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	select {
	case <-stop:
	case <-dev.Wait():
	}
	return nil
}
