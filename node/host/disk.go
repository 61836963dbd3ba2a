package host

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/cloudless-project/cloudless/api"
)

// maxSlaves bounds how deep disks may be stacked: encryption on LVM on RAID is
// three.
const maxSlaves = 8

// StorageClass tells on what kind of disk a directory lies. dev is the device
// number of its filesystem, "MAJOR:MINOR". A filesystem without a device of its
// own (btrfs, ZFS, overlay, tmpfs) is looked up by the source of its mount.
func StorageClass(root fs.FS, dev, dir string) api.StorageClass {
	disk := diskOf(root, dev)
	if disk == "" {
		source := mountSource(root, dir)
		if name, ok := strings.CutPrefix(source, "/dev/"); ok {
			disk = diskNamed(root, strings.TrimPrefix(name, "mapper/"))
		}
	}
	return classOf(root, disk, 0)
}

// diskOf returns the name below /sys/block of the disk that has a device
// number, itself or as a partition.
func diskOf(root fs.FS, dev string) string {
	for _, disk := range names(root, "sys/block") {
		if text(root, "sys/block/"+disk+"/dev") == dev {
			return disk
		}
		for _, part := range partitions(root, disk) {
			if text(root, "sys/block/"+disk+"/"+part+"/dev") == dev {
				return disk
			}
		}
	}
	return ""
}

// diskNamed does the same by name: of a disk, a partition or a mapping.
func diskNamed(root fs.FS, name string) string {
	for _, disk := range names(root, "sys/block") {
		if disk == name || text(root, "sys/block/"+disk+"/dm/name") == name || slices.Contains(partitions(root, disk), name) {
			return disk
		}
	}
	return ""
}

func partitions(root fs.FS, disk string) []string {
	return slices.DeleteFunc(names(root, "sys/block/"+disk), func(n string) bool { return !strings.HasPrefix(n, disk) })
}

// slowness orders the classes: what several disks make is as good as the
// slowest of them.
var slowness = []api.StorageClass{api.StorageNVMe, api.StorageSSD, api.StorageEMMC, api.StorageHDD, api.StorageUnknown}

func classOf(root fs.FS, disk string, depth int) api.StorageClass {
	if disk == "" || depth > maxSlaves {
		return api.StorageUnknown
	}
	worst := -1
	for _, slave := range names(root, "sys/block/"+disk+"/slaves") {
		if whole := diskNamed(root, slave); whole != disk {
			worst = max(worst, slices.Index(slowness, classOf(root, whole, depth+1)))
		}
	}
	if worst >= 0 {
		return slowness[worst]
	}
	rotates, known := number(root, "sys/block/"+disk+"/queue/rotational")
	switch {
	case strings.HasPrefix(disk, "nvme"):
		return api.StorageNVMe
	case strings.HasPrefix(disk, "mmcblk"):
		return api.StorageEMMC
	case !known || isVirtual(disk):
		return api.StorageUnknown
	case rotates == 1:
		return api.StorageHDD
	}
	return api.StorageSSD
}

// isVirtual tells of disks that say they do not rotate, or that they do, while
// nobody knows what is behind them.
func isVirtual(disk string) bool {
	for _, prefix := range []string{"vd", "xvd", "loop", "ram", "zram", "nbd", "rbd", "dm-", "md"} {
		if strings.HasPrefix(disk, prefix) {
			return true
		}
	}
	return false
}

// mountSource returns what is mounted where a directory lies.
func mountSource(root fs.FS, dir string) string {
	dir = path.Clean("/" + dir)
	source, longest := "", -1
	for line := range strings.Lines(text(root, "proc/self/mountinfo")) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		at := unescape(left[4])
		if at != "/" && dir != at && !strings.HasPrefix(dir, at+"/") {
			continue
		}
		if len(at) >= longest { // of two at the same place the later one is on top
			source, longest = unescape(right[1]), len(at)
		}
	}
	return source
}

// unescape undoes what the kernel does to white space in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
