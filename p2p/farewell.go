package p2p

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cloudless-project/cloudless/api"
)

// maxNotice is how many bytes a notice of removal may have: it brings the
// authorities along that succeeded each other, each of some 500 bytes.
const maxNotice = 10 << 10

// Farewell tells removed members that they are. A peer that was removed while
// it was away is let in as far as hello, to be told, and is then disconnected.
type Farewell interface {
	// Notice returns what proves to a peer that it was removed, nil when there
	// is no proof.
	Notice(peer api.NodeID) []byte
	// Heard takes what a peer refused this device with. Anybody can send
	// anything: it counts when it proves itself.
	Heard(from api.NodeID, notice []byte)
}

func (m *Mesh) revoked(p peer.ID) bool { return m.cfg.Admission.Revoked(api.NodeID(p.String())) }

// refusal is the answer to a hello that is not accepted.
func (m *Mesh) refusal(p peer.ID, err error) helloMessage {
	msg := m.refusalOf(err)
	if m.cfg.Farewell == nil || !m.revoked(p) {
		return msg
	}
	if notice := m.cfg.Farewell.Notice(api.NodeID(p.String())); len(notice) <= maxNotice {
		msg.Notice = notice
		m.metrics.hellos.WithLabelValues("told_of_removal").Inc()
	}
	return msg
}

// hearFarewell hands on the notice in a refusal.
func (m *Mesh) hearFarewell(from peer.ID, refusal helloMessage) {
	if m.cfg.Farewell != nil && len(refusal.Notice) > 0 && len(refusal.Notice) <= maxNotice {
		m.cfg.Farewell.Heard(api.NodeID(from.String()), refusal.Notice)
	}
}
