package p2p

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	envelope "github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/encoding/protowire"
)

// owner is a device that signs records.
type owner struct {
	key crypto.PrivKey
	id  peer.ID
}

func newOwner(t testing.TB) owner {
	t.Helper()
	raw, _ := newKey(t)
	key, err := crypto.UnmarshalEd25519PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return owner{key, id}
}

func (o owner) sign(t testing.TB, seq uint64, addrs ...string) signedRecord {
	t.Helper()
	r := memberRecord{peer: o.id, seq: seq, issued: time.UnixMilli(1e12), cert: []byte("certificate")}
	for _, a := range addrs {
		r.addrs = append(r.addrs, multiaddr.StringCast(a))
	}
	s, err := sealRecord(r, o.key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecordSurvivesTheWay(t *testing.T) {
	o := newOwner(t)
	sent := memberRecord{
		peer: o.id, seq: 7, issued: time.UnixMilli(1_700_000_000_000), relay: true, cert: []byte{1, 2, 3},
		addrs: []multiaddr.Multiaddr{
			multiaddr.StringCast("/ip4/192.168.1.20/tcp/4717"),
			multiaddr.StringCast("/ip6/2001:db8::1/udp/4717/quic-v1"),
			multiaddr.StringCast("/ip4/192.0.2.1/tcp/4717/p2p/" + newOwner(t).id.String() + "/p2p-circuit"),
		},
	}
	signed, err := sealRecord(sent, o.key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := openRecord(signed.raw)
	if err != nil {
		t.Fatal(err)
	}
	if got.peer != sent.peer || got.seq != 7 || !got.issued.Equal(sent.issued) || !got.same(&sent) {
		t.Errorf("got %+v, want %+v", got.memberRecord, sent)
	}
}

func TestForgedRecords(t *testing.T) {
	o, other := newOwner(t), newOwner(t)
	good := o.sign(t, 1, "/ip4/192.0.2.1/tcp/1")
	flipped := bytes.Clone(good.raw)
	flipped[bytes.Index(flipped, []byte("certificate"))] ^= 1
	inOthersName, err := sealRecord(memberRecord{peer: o.id, seq: 9}, other.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "cut": good.raw[:len(good.raw)-1], "changed": flipped,
		"signed by another": inOthersName.raw, "too long": append(bytes.Clone(good.raw), make([]byte, maxRecord)...),
		"sequence 0":        sealed(t, o, payload(o.id, 0, 1)),
		"sequence too high": sealed(t, o, payload(o.id, maxRecordSeq+1, 1)),
		"17 addresses":      sealed(t, o, payload(o.id, 1, maxRecordAddrs+1)),
		"nobody":            sealed(t, o, payload("", 1, 1)),
		"of another kind":   sealedAs(t, o, "/something/else"),
	} {
		if r, err := openRecord(raw); err == nil {
			t.Errorf("%s: accepted as %+v", name, r.memberRecord)
		}
	}
}

// payload encodes what sealRecord would refuse.
func payload(p peer.ID, seq uint64, addrs int) []byte {
	b := protowire.AppendBytes(protowire.AppendTag(nil, fieldPeer, protowire.BytesType), []byte(p))
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldSeq, protowire.VarintType), seq)
	for range addrs {
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldAddr, protowire.BytesType), multiaddr.StringCast("/ip4/192.0.2.1/tcp/1").Bytes())
	}
	return b
}

// rawRecord is a payload that is signed as it is.
type rawRecord struct {
	payload []byte
	codec   string
}

func (rawRecord) Domain() string                   { return recordDomain }
func (r rawRecord) Codec() []byte                  { return []byte(r.codec) }
func (r rawRecord) MarshalRecord() ([]byte, error) { return r.payload, nil }
func (rawRecord) UnmarshalRecord([]byte) error     { return nil }

func sealed(t testing.TB, o owner, payload []byte) []byte {
	return sealRaw(t, o, rawRecord{payload, recordPayload})
}

func sealedAs(t testing.TB, o owner, codec string) []byte {
	return sealRaw(t, o, rawRecord{payload(o.id, 1, 1), codec})
}

func sealRaw(t testing.TB, o owner, r rawRecord) []byte {
	t.Helper()
	e, err := envelope.Seal(r, o.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestRecordSkipsWhatALaterVersionSays(t *testing.T) {
	o := newOwner(t)
	b := payload(o.id, 1, 1)
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldAddr, protowire.BytesType), []byte{0xff, 0x7f, 1}) // an unknown kind of address
	b = protowire.AppendFixed64(protowire.AppendTag(b, 99, protowire.Fixed64Type), 1)
	r, err := openRecord(sealed(t, o, b))
	if err != nil || len(r.addrs) != 1 {
		t.Errorf("%+v, %v", r.memberRecord, err)
	}
}

func TestRecordAddrsAreBounded(t *testing.T) {
	relay := newOwner(t).id.String()
	var texts []string
	for i := range 40 {
		texts = append(texts, fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i), fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i))
	}
	if got := recordAddrs(texts); len(got) != maxRecordAddrs {
		t.Errorf("%d addresses", len(got))
	}
	for i := range 3 {
		texts = append(texts, fmt.Sprintf("/ip4/198.51.100.%d/tcp/1/p2p/%s/p2p-circuit", i, relay))
	}
	got := recordAddrs(texts)
	if len(got) != maxRecordDirect+3 || !isRelayed(got[len(got)-1]) {
		t.Errorf("%v", got)
	}
	long := "/dns4/" + strings.Repeat("x", maxRecordAddr/2) + "/tcp/1"
	var many []string
	for i := range maxRecordAddrs {
		many = append(many, long+fmt.Sprint(i))
	}
	o := newOwner(t)
	if _, err := sealRecord(memberRecord{peer: o.id, seq: 1, addrs: recordAddrs(many), cert: make([]byte, 5<<10)}, o.key); err != nil {
		t.Errorf("what was chosen does not fit: %v", err)
	}
}

func TestNextSeq(t *testing.T) {
	now := time.UnixMilli(1000)
	for _, tt := range []struct {
		now        time.Time
		last, want uint64
	}{
		{now, 0, 1000}, {now, 999, 1000}, {now, 1000, 1001}, {now, 5000, 5001}, {time.UnixMilli(-5), 0, 1},
	} {
		if got := nextSeq(tt.now, tt.last); got != tt.want {
			t.Errorf("after %d at %d: %d, want %d", tt.last, tt.now.UnixMilli(), got, tt.want)
		}
	}
}

func FuzzOpenRecord(f *testing.F) {
	o := newOwner(f)
	f.Add(o.sign(f, 1, "/ip4/192.0.2.1/tcp/1", "/ip6/::1/udp/1/quic-v1").raw)
	f.Add(sealed(f, o, payload(o.id, 0, 20)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := openRecord(raw)
		if err == nil && (len(r.addrs) > maxRecordAddrs || len(r.raw) > maxRecord || r.seq == 0 || r.seq > maxRecordSeq) {
			t.Errorf("out of bounds: %+v", r.memberRecord)
		}
		// The signature keeps a fuzzer out: the payload is tried without one too.
		var p memberRecord
		if p.UnmarshalRecord(raw) != nil {
			return
		}
		again, err := p.MarshalRecord()
		if err != nil {
			t.Fatal(err)
		}
		var q memberRecord
		if err := q.UnmarshalRecord(again); err != nil || q.peer != p.peer || q.seq != p.seq || !q.same(&p) {
			t.Errorf("%+v became %+v, %v", p, q, err)
		}
	})
}
