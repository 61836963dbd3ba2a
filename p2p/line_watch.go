package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"
)

// watch cuts a connection when its peer is admitted no more, when it acknowledges no
// more, or when the mesh ends; until it is closed.
func (l *Lines) watch(p peer.ID, raw manet.Conn, closed <-chan struct{}, cut func()) {
	adm := l.m.adm
	var quiet silence
	look := time.NewTicker(lineSilence / 4)
	defer look.Stop()
	for {
		adm.mu.Lock()
		r := adm.records[p]
		if r == nil || r.member == nil || r.member.Lapsed {
			adm.mu.Unlock()
			cut()
			return
		}
		changed := r.changed
		adm.mu.Unlock()
		select {
		case <-changed:
		case <-look.C:
			if quiet.since(time.Now(), acknowledgements(raw)) > lineSilence {
				cut()
				return
			}
		case <-closed:
			return
		case <-l.ctx.Done():
			cut()
			return
		}
	}
}
