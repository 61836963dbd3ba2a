package state

import (
	"hash/fnv"
	"net/netip"

	"github.com/cloudless-project/cloudless/api"
)

// Virtual IPs come from 10.213.0.0/17 without its first 256 addresses, which
// are for Cloudless itself. Last octets 0 and 255 are left out: some software
// takes them for a network or a broadcast.
const (
	vipBlocks   = 127 // third octet 1 to 127
	vipPerBlock = 254 // last octet 1 to 254
	vips        = vipBlocks * vipPerBlock
)

func vip(i uint32) string {
	return netip.AddrFrom4([4]byte{10, 213, byte(1 + i/vipPerBlock), byte(1 + i%vipPerBlock)}).String()
}

// syncService gives a workload with ports its service and takes it from one
// without. The VIP depends on the name alone unless two names collide, so a
// workload that is made again usually gets its old address back.
func (t *tx) syncService(w *api.Workload) error {
	old := services.get(t.txn, w.Name)
	if len(w.Spec.Ports) == 0 {
		if old != nil {
			services.delete(t, old)
		}
		return nil
	}
	s := api.Service{Name: w.Name, Ports: w.Spec.Ports, Version: t.index}
	if old != nil {
		if equalJSON(old.Ports, s.Ports) {
			return nil
		}
		s.VIP = old.VIP
	} else {
		var ok bool
		if s.VIP, ok = t.freeVIP(w.Name); !ok {
			return api.Errorf(api.KindExhausted, "all %d virtual IPs are taken", vips)
		}
	}
	services.put(t, &s)
	return nil
}

func (t *tx) freeVIP(name string) (string, bool) {
	taken := map[string]bool{}
	for _, s := range services.all(t.txn) {
		taken[s.VIP] = true
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	start := h.Sum32() % vips
	for i := range uint32(vips) {
		if ip := vip((start + i) % vips); !taken[ip] {
			return ip, true
		}
	}
	return "", false
}
