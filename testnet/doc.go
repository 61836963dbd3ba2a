// Package testnet builds small internets on one Linux machine and runs the
// real cloudless binary in them.
//
// A [Topology] is a value: sites with or without a NAT, and the devices in
// them. [Up] turns it into network namespaces: one for the internet (a bridge
// with public addresses), one per home router (nftables does the translating),
// one per device. A device is more than an address: it has its own mount, PID,
// IPC, UTS and cgroup namespaces, an empty /run, its own disk at
// /var/lib/cloudless and its own resolv.conf, so a daemon, its containerd and
// its containers live and die together, as they do in a real machine:
//
//	lab, err := testnet.Up(ctx, testnet.Homes(), testnet.Options{Binary: "bin/cloudless"})
//	defer lab.Close()
//	lab.Device("vps").Start(ctx, "--init", "--public", "yes")
//	lab.Device("pi").Kill(ctx)  // a power cut: no goodbye reaches anybody
//	lab.Device("pi").Boot(ctx)  // the same disk, a fresh kernel state
//	lab.Cut(ctx, "home-a")      // the uplink is dead, the link light stays on
//
// Programs that call Up must call [RunInit] first thing in main (tests: in
// TestMain), because a device's init is the same executable, started again.
//
// What the lab promises: everything it makes carries the lab's name, so Close,
// or [Down] from another process after a crash, removes all of it and nothing
// else; several labs live side by side; nothing leaves the machine, for no
// namespace has an uplink. What it needs: root, iproute2, nftables, util-linux.
// What it never does: install anything, or touch the host's own network.
package testnet
