package node

import (
	"context"
	"runtime"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/cloudless-project/cloudless/api"
)

// The part of a device that workloads may not have, so that it stays a usable
// laptop and the daemon always gets its turn.
const (
	reservedMemory  = 256 << 20
	reservedStorage = 1 << 30
)

// takeInventory measures the device. What does not change while the daemon
// runs is measured once.
func takeInventory(ctx context.Context, cfg *Config) (api.Inventory, error) {
	inv := api.Inventory{
		Name:         cfg.Name,
		Region:       cfg.Region,
		Zone:         cfg.Zone,
		Labels:       cfg.Labels,
		Taints:       cfg.Taints,
		Arch:         runtime.GOARCH,
		OS:           runtime.GOOS,
		Version:      cfg.Version.Version,
		Worker:       !cfg.NoWorkloads,
		Anchor:       cfg.Anchor,
		StorageClass: "unknown",
		NAT:          api.NATUnknown,
	}
	if kernel, err := host.KernelVersionWithContext(ctx); err == nil {
		inv.Kernel = kernel
	}
	cores, err := cpu.CountsWithContext(ctx, true)
	if err != nil {
		return inv, api.Errorf(api.KindInternal, "count processors: %w", err)
	}
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return inv, api.Errorf(api.KindInternal, "measure memory: %w", err)
	}
	storage, err := disk.UsageWithContext(ctx, cfg.DataDir)
	if err != nil {
		return inv, api.Errorf(api.KindInternal, "measure the disk of %s: %w", cfg.DataDir, err)
	}
	inv.Capacity = api.Resources{
		CPU:     api.CPU(cores * 1000),
		Memory:  api.Bytes(memory.Total) - min(reservedMemory, api.Bytes(memory.Total)/2),
		Storage: max(0, api.Bytes(storage.Free)-reservedStorage),
		// A home uplink that nobody measured yet; requests of bandwidth are small.
		Bandwidth: 100_000_000,
	}
	return inv, nil
}
