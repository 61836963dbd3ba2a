package host

import (
	"maps"
	"reflect"
	"testing"
	"testing/fstest"

	"github.com/cloudless-project/cloudless/api"
)

// machine is a tree of files with what they hold.
func machine(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, content := range files {
		m[name] = &fstest.MapFile{Data: []byte(content + "\n"), Mode: 0o644}
	}
	return m
}

// merged is several trees in one.
func merged(trees ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, t := range trees {
		maps.Copy(out, t)
	}
	return out
}

// disk is a disk with one partition.
func disk(name, dev, part, partDev, rotational string) map[string]string {
	return map[string]string{
		"sys/block/" + name + "/dev":                 dev,
		"sys/block/" + name + "/queue/rotational":    rotational,
		"sys/block/" + name + "/" + part + "/dev":    partDev,
		"sys/block/" + name + "/" + part + "/start":  "2048",
		"sys/block/" + name + "/holders/placeholder": "",
	}
}

// stacked is a disk that others make.
func stacked(name, dev, mapped string, slaves ...string) map[string]string {
	out := map[string]string{
		"sys/block/" + name + "/dev": dev, "sys/block/" + name + "/queue/rotational": "0",
	}
	if mapped != "" {
		out["sys/block/"+name+"/dm/name"] = mapped
	}
	for _, s := range slaves {
		out["sys/block/"+name+"/slaves/"+s+"/dev"] = "0:0"
	}
	return out
}

func TestStorageClass(t *testing.T) {
	nvme := disk("nvme0n1", "259:0", "nvme0n1p2", "259:2", "0")
	sata := disk("sda", "8:0", "sda1", "8:1", "0")
	hdd := disk("sdb", "8:16", "sdb1", "8:17", "1")
	card := disk("mmcblk0", "179:0", "mmcblk0p2", "179:2", "0")
	virtual := disk("vda", "254:0", "vda1", "254:1", "1")
	mount := func(lines string) map[string]string { return map[string]string{"proc/self/mountinfo": lines} }
	for name, tt := range map[string]struct {
		files map[string]string
		dev   string
		want  api.StorageClass
	}{
		"a partition of an NVMe disk": {merged(nvme, hdd), "259:2", api.StorageNVMe},
		"a whole SATA SSD":            {merged(nvme, sata), "8:0", api.StorageSSD},
		"a spinning disk":             {merged(sata, hdd), "8:17", api.StorageHDD},
		"a card":                      {card, "179:2", api.StorageEMMC},
		"a virtual disk":              {virtual, "254:1", api.StorageUnknown},
		"no such disk":                {sata, "7:7", api.StorageUnknown},
		"nothing at all":              {nil, "8:1", api.StorageUnknown},
		"encrypted LVM on NVMe": {merged(nvme, stacked("dm-0", "253:0", "crypt", "nvme0n1p2"), stacked("dm-1", "253:1", "vg-root", "dm-0")),
			"253:1", api.StorageNVMe},
		"a mirror of an SSD and a spinning disk": {merged(sata, hdd, stacked("md0", "9:0", "", "sda1", "sdb1")), "9:0", api.StorageHDD},
		"a mapping of itself":                    {stacked("dm-0", "253:0", "x", "dm-0"), "253:0", api.StorageUnknown},
		"mappings in a circle":                   {merged(stacked("dm-0", "253:0", "x", "dm-1"), stacked("dm-1", "253:1", "y", "dm-0")), "253:0", api.StorageUnknown},
		"btrfs": {merged(sata, mount("22 1 0:30 / / rw - btrfs /dev/sda1 rw\n23 22 0:21 / /proc rw - proc proc rw")),
			"0:30", api.StorageSSD},
		"btrfs on a mapping": {merged(card, stacked("dm-0", "253:0", "data", "mmcblk0p2"), mount(`22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /var/lib rw shared:1 - btrfs /dev/mapper/data rw`)), "0:40", api.StorageEMMC},
		"an overlay":     {merged(sata, mount("22 1 0:30 / / rw - overlay overlay rw,lowerdir=/a,upperdir=/b")), "0:30", api.StorageUnknown},
		"a network":      {merged(sata, mount("22 1 0:30 / / rw - nfs4 10.0.0.1:/export rw")), "0:30", api.StorageUnknown},
		"a broken table": {merged(sata, mount("22 1\n - \nx - y")), "0:30", api.StorageUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			if got := StorageClass(machine(tt.files), tt.dev, "/var/lib/cloudless"); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestMountSource(t *testing.T) {
	root := machine(map[string]string{"proc/self/mountinfo": `1 0 8:1 / / rw - ext4 /dev/root rw
2 1 8:2 / /var rw - ext4 /dev/var rw
3 1 8:3 / /var/lib\040x rw - ext4 /dev/x rw
4 1 8:4 / /var rw - ext4 /dev/over rw`})
	for dir, want := range map[string]string{
		"/": "/dev/root", "/etc": "/dev/root", "/var": "/dev/over", "/var/lib": "/dev/over", "/variable": "/dev/root", "/var/lib x/y": "/dev/x",
	} {
		if got := mountSource(root, dir); got != want {
			t.Errorf("%s is on %s, want %s", dir, got, want)
		}
	}
}

func pci(address, vendor, class, uevent string) map[string]string {
	dir := "sys/bus/pci/devices/" + address
	return map[string]string{dir + "/vendor": vendor, dir + "/class": class, dir + "/uevent": uevent}
}

func TestGPUs(t *testing.T) {
	nvidia := merged(pci("0000:01:00.0", "0x10de", "0x030000", "DRIVER=nvidia\nPCI_ID=10DE:2684"),
		map[string]string{"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   120"})
	amd := merged(pci("0000:03:00.0", "0x1002", "0x038000", "DRIVER=amdgpu\nPCI_ID=1002:73BF"),
		map[string]string{"sys/bus/pci/devices/0000:03:00.0/product_name": "Radeon RX 6800"})
	for name, tt := range map[string]struct {
		files map[string]string
		want  []api.GPU
	}{
		"none":                {nil, nil},
		"NVIDIA with a model": {nvidia, []api.GPU{{Vendor: "NVIDIA", Model: "NVIDIA GeForce RTX 4090", Driver: "nvidia"}}},
		"two, and a sound card of one": {merged(nvidia, amd, pci("0000:01:00.1", "0x10de", "0x040300", "DRIVER=snd_hda_intel")), []api.GPU{
			{Vendor: "NVIDIA", Model: "NVIDIA GeForce RTX 4090", Driver: "nvidia"}, {Vendor: "AMD", Model: "Radeon RX 6800", Driver: "amdgpu"}}},
		"without a driver":        {pci("0000:00:02.0", "0x8086", "0x030000", "PCI_ID=8086:46A6"), []api.GPU{{Vendor: "Intel", Model: "PCI 8086:46a6"}}},
		"a virtual frame buffer":  {pci("0000:00:02.0", "0x1234", "0x030000", "DRIVER=bochs"), nil},
		"a management chip":       {pci("0000:00:02.0", "0x1a03", "0x030000", "DRIVER=ast"), nil},
		"a Raspberry Pi":          {boards(), []api.GPU{{Vendor: "Broadcom", Model: "2711-v3d", Driver: "v3d"}}},
		"a display without a GPU": {map[string]string{"sys/class/drm/card0/device/uevent": "DRIVER=simple-framebuffer"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := GPUs(machine(tt.files)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func boards() map[string]string {
	return map[string]string{
		"sys/class/drm/card0/device/uevent":        "DRIVER=v3d\nOF_COMPATIBLE_0=brcm,2711-v3d",
		"sys/class/drm/card1/device/uevent":        "DRIVER=vc4-drm\nOF_COMPATIBLE_0=brcm,bcm2711-vc5",
		"sys/class/drm/card1-HDMI-A-1/status":      "connected",
		"sys/class/drm/renderD128/device/uevent":   "DRIVER=v3d\nOF_COMPATIBLE_0=brcm,2711-v3d",
		"sys/class/drm/version":                    "drm 1.1.0",
		"sys/class/drm/card1-HDMI-A-1/device/type": "x",
	}
}

func supply(name, kind string, more map[string]string) map[string]string {
	out := map[string]string{"sys/class/power_supply/" + name + "/type": kind}
	for k, v := range more {
		out["sys/class/power_supply/"+name+"/"+k] = v
	}
	return out
}

func TestPower(t *testing.T) {
	unplugged := supply("AC", "Mains", map[string]string{"online": "0"})
	plugged := supply("AC", "Mains", map[string]string{"online": "1"})
	battery := func(status, capacity string) map[string]string {
		return supply("BAT0", "Battery", map[string]string{"status": status, "capacity": capacity})
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  api.Power
	}{
		"does not say":             {nil, api.Power{}},
		"a desktop that says":      {plugged, api.Power{Source: api.PowerMains}},
		"a laptop on its battery":  {merged(unplugged, battery("Discharging", "57")), api.Power{Source: api.PowerBattery, Percent: 50}},
		"a laptop that charges":    {merged(plugged, battery("Charging", "99")), api.Power{Source: api.PowerMains, Percent: 90}},
		"full, and nothing else":   {battery("Full", "100"), api.Power{Source: api.PowerMains, Percent: 100}},
		"a battery without status": {battery("", "40"), api.Power{Source: api.PowerBattery, Percent: 40}},
		"a mouse": {supply("hid-1", "Battery", map[string]string{"scope": "Device", "status": "Discharging", "capacity": "7"}),
			api.Power{}},
		"nonsense": {battery("Discharging", "lots"), api.Power{Source: api.PowerBattery}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Power(machine(tt.files)); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestCgroup(t *testing.T) {
	for name, tt := range map[string]struct {
		files       map[string]string
		want        string
		controllers []string
	}{
		"version 2": {map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu memory pids"}, "v2", []string{"cpu", "memory", "pids"}},
		"version 1": {map[string]string{"sys/fs/cgroup/cpu,cpuacct/tasks": "", "sys/fs/cgroup/memory/tasks": ""}, "v1",
			[]string{"cpu", "cpuacct", "memory"}},
		"both": {map[string]string{"sys/fs/cgroup/memory/tasks": "", "sys/fs/cgroup/unified/cgroup.controllers": ""}, "v1",
			[]string{"memory", "unified"}},
		"none": {nil, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			root := machine(tt.files)
			if got := Cgroup(root); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := controllers(root); !reflect.DeepEqual(got, tt.controllers) {
				t.Errorf("controllers are %v, want %v", got, tt.controllers)
			}
		})
	}
}
