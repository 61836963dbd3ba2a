package node

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/sys/unix"

	"github.com/cloudless-project/cloudless/api"
	"github.com/cloudless-project/cloudless/node/host"
)

// The part of a device that workloads may not have, so that it stays a usable
// laptop and the daemon always gets its turn.
const (
	reservedMemory  = 256 << 20
	reservedStorage = 1 << 30
)

// takeInventory measures the device: what does not change while the daemon
// runs.
func takeInventory(ctx context.Context, cfg *Config) (api.Inventory, error) {
	root := os.DirFS("/")
	inv := api.Inventory{
		Name:         cfg.Name,
		Region:       cfg.Region,
		Zone:         cfg.Zone,
		Labels:       cfg.Labels,
		Taints:       cfg.Taints,
		Arch:         runtime.GOARCH,
		OS:           runtime.GOOS,
		Kernel:       host.Kernel(root),
		Version:      cfg.Version.Version,
		Worker:       !cfg.NoWorkloads,
		Anchor:       cfg.Anchor,
		StorageClass: storageClass(cfg.DataDir),
		NAT:          api.NATUnknown,
		Cgroup:       host.Cgroup(root),
		GPUs:         host.GPUs(root),
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
	}
	return inv, nil
}

// storageClass tells on what kind of disk a directory lies.
func storageClass(dir string) api.StorageClass {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return api.StorageUnknown
	}
	dev := uint64(st.Dev) // of another type elsewhere
	return host.StorageClass(os.DirFS("/"), fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)), dir)
}

// powerEvery is how often the source of power is looked at: asking a battery
// can take its controller milliseconds.
const powerEvery = time.Minute

// powerMeter remembers what the device runs on.
type powerMeter struct {
	mu    sync.Mutex
	seen  time.Time
	power api.Power
}

func (m *powerMeter) current(now time.Time) api.Power {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen.IsZero() || now.Sub(m.seen) >= powerEvery {
		m.power, m.seen = host.Power(os.DirFS("/")), now
	}
	return m.power
}
