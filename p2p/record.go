package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	envelope "github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cloudless-project/cloudless/api"
)

const (
	maxRecord       = 8 << 10 // bytes of a signed record; a certificate has about 700, and may bring its issuers
	maxRecordAddrs  = 16      // addresses in a record …
	maxRecordDirect = 12      // … of which so many are direct when there are relayed ones too
	maxRecordAddr   = 512     // bytes of one address; those through relays are the long ones, with about 100
	maxRecordSeq    = 1 << 62 // of a sequence number: there is always a next one
	recordDomain    = "cloudless-member-record"
	recordPayload   = "/cloudless/member-record/1"
)

// memberRecord is what a member says of itself: under which addresses it is
// reached now, and whether it relays for others. It signs that with its device
// key, so that any member can pass it on, also one that does not know it yet:
// the membership certificate comes along.
//
// A higher sequence number replaces a lower one. It is the time of signing in
// milliseconds, or the last number plus one when the clock is behind that. No
// clock but the signer's own counts, and that only for its own records.
type memberRecord struct {
	peer   peer.ID
	seq    uint64
	issued time.Time // by the signer's clock; for people
	relay  bool      // reachable from everywhere, relays for others
	addrs  []multiaddr.Multiaddr
	cert   []byte
}

// signedRecord is a record as it travels: raw is the envelope.
type signedRecord struct {
	memberRecord
	raw []byte
}

// The fields of the payload, as in Protocol Buffers. Unknown ones are skipped:
// the signature covers them, and a later version may say more.
const (
	fieldPeer protowire.Number = iota + 1
	fieldSeq
	fieldIssued
	fieldRelay
	fieldAddr
	fieldCert
)

// Domain keeps these signatures from being taken for others of the same key.
func (*memberRecord) Domain() string { return recordDomain }

// Codec is the type of the payload.
func (*memberRecord) Codec() []byte { return []byte(recordPayload) }

// MarshalRecord encodes the payload.
func (r *memberRecord) MarshalRecord() ([]byte, error) {
	if len(r.addrs) > maxRecordAddrs {
		return nil, fmt.Errorf("encode member record: %d addresses, at most %d are allowed", len(r.addrs), maxRecordAddrs)
	}
	b := protowire.AppendTag(nil, fieldPeer, protowire.BytesType)
	b = protowire.AppendBytes(b, []byte(r.peer))
	b = protowire.AppendTag(b, fieldSeq, protowire.VarintType)
	b = protowire.AppendVarint(b, r.seq)
	b = protowire.AppendTag(b, fieldIssued, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(r.issued.UnixMilli()))
	b = protowire.AppendTag(b, fieldRelay, protowire.VarintType)
	b = protowire.AppendVarint(b, protowire.EncodeBool(r.relay))
	for _, a := range r.addrs {
		b = protowire.AppendTag(b, fieldAddr, protowire.BytesType)
		b = protowire.AppendBytes(b, a.Bytes())
	}
	b = protowire.AppendTag(b, fieldCert, protowire.BytesType)
	return protowire.AppendBytes(b, r.cert), nil
}

// UnmarshalRecord decodes a payload. An address that this version cannot read
// is left out; one that is too much is an error.
func (r *memberRecord) UnmarshalRecord(b []byte) error {
	*r = memberRecord{}
	addrs := 0
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("decode member record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		var number uint64
		var text []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			text, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return fmt.Errorf("decode member record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if field == fieldAddr {
			if addrs++; addrs > maxRecordAddrs || len(text) > maxRecordAddr {
				return fmt.Errorf("decode member record: more than %d addresses, or one of more than %d bytes", maxRecordAddrs, maxRecordAddr)
			}
		}
		r.take(field, number, text)
	}
	return r.check()
}

func (r *memberRecord) take(field protowire.Number, number uint64, text []byte) {
	switch field {
	case fieldPeer:
		r.peer = peer.ID(text)
	case fieldSeq:
		r.seq = number
	case fieldIssued:
		r.issued = time.UnixMilli(int64(min(number, maxRecordSeq)))
	case fieldRelay:
		r.relay = protowire.DecodeBool(number)
	case fieldAddr:
		if a, err := multiaddr.NewMultiaddrBytes(text); err == nil && len(a) > 0 {
			r.addrs = append(r.addrs, a)
		}
	case fieldCert:
		r.cert = bytes.Clone(text)
	}
}

// check finds what no honest member would sign.
func (r *memberRecord) check() error {
	switch {
	case !isEd25519(r.peer):
		return errors.New("decode member record: it names no device")
	case r.seq == 0 || r.seq > maxRecordSeq:
		return fmt.Errorf("decode member record: the sequence number %d is out of range", r.seq)
	}
	return nil
}

// sealRecord signs a record.
func sealRecord(r memberRecord, key crypto.PrivKey) (signedRecord, error) {
	e, err := envelope.Seal(&r, key)
	if err != nil {
		return signedRecord{}, fmt.Errorf("sign member record: %w", err)
	}
	raw, err := e.Marshal()
	if err != nil {
		return signedRecord{}, fmt.Errorf("sign member record: %w", err)
	}
	if len(raw) > maxRecord {
		return signedRecord{}, fmt.Errorf("sign member record: %d bytes, at most %d are allowed", len(raw), maxRecord)
	}
	return signedRecord{memberRecord: r, raw: raw}, nil
}

// openRecord reads a record that the member it names has signed. Whether that
// one is a member is not decided here.
func openRecord(raw []byte) (signedRecord, error) {
	if len(raw) > maxRecord {
		return signedRecord{}, fmt.Errorf("open member record: %d bytes, at most %d are allowed", len(raw), maxRecord)
	}
	var r memberRecord
	e, err := envelope.ConsumeTypedEnvelope(raw, &r)
	if err != nil {
		return signedRecord{}, fmt.Errorf("open member record: %w", err)
	}
	if !bytes.Equal(e.PayloadType, r.Codec()) {
		return signedRecord{}, fmt.Errorf("open member record: the payload is %q", e.PayloadType)
	}
	if !r.peer.MatchesPublicKey(e.PublicKey) {
		return signedRecord{}, fmt.Errorf("open member record: it names %s, somebody else has signed it", r.peer)
	}
	return signedRecord{memberRecord: r, raw: bytes.Clone(raw)}, nil
}

// contact is the record as something to dial.
func (r *memberRecord) contact() contact {
	return contact{id: r.peer, addrs: r.addrs, relay: r.relay}
}

// same reports whether two records say the same, apart from when.
func (r *memberRecord) same(o *memberRecord) bool {
	return r.relay == o.relay && bytes.Equal(r.cert, o.cert) && sameAddrs(r.addrs, o.addrs)
}

// sameAddrs compares two lists whose order means nothing.
func sameAddrs(a, b []multiaddr.Multiaddr) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x multiaddr.Multiaddr) bool { return !multiaddr.Contains(b, x) })
}

// recordAddrs chooses the addresses for a record: the direct ones first, and
// room for the relayed ones, which are what works when no direct one does.
func recordAddrs(texts []string) []multiaddr.Multiaddr {
	var direct, relayed []multiaddr.Multiaddr
	for _, text := range texts {
		a, err := multiaddr.NewMultiaddr(text)
		switch {
		case err != nil || len(a.Bytes()) > maxRecordAddr || multiaddr.Contains(direct, a) || multiaddr.Contains(relayed, a):
		case isRelayed(a):
			relayed = append(relayed, a)
		default:
			direct = append(direct, a)
		}
	}
	if len(relayed) > 0 {
		direct = direct[:min(len(direct), maxRecordDirect)]
	}
	all := append(direct, relayed...)
	size := 0
	for i, a := range all {
		if size += len(a.Bytes()); i == maxRecordAddrs || size > maxRecordAddrs*maxRecordAddr/4 {
			return all[:i]
		}
	}
	return all
}

// nextSeq numbers a record that is signed now and replaces the one numbered
// last.
func nextSeq(now time.Time, last uint64) uint64 {
	return max(uint64(max(now.UnixMilli(), 1)), last+1)
}

var _ envelope.Record = (*memberRecord)(nil)

// nodeID is the record's owner as the rest of Cloudless names it.
func (r *memberRecord) nodeID() api.NodeID { return api.NodeID(r.peer.String()) }
