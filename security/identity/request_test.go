package identity

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

// Anybody may send a certificate request, to enrol or to renew. Whatever it asks
// for, the certificate that comes of it is for the key that signed the request,
// and for the roles that the cluster gives.
func FuzzCertificateRequest(f *testing.F) {
	a, key := newAuthority(f), newKey(f)
	for _, name := range []string{"pi", "", "ada", "a.very.long.name"} {
		csr, err := NewCSR(key, name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(csr)
		f.Add(csr[:len(csr)-1])
	}
	f.Add(issue(f, a, key, "", MaxTTL, api.RoleNode))
	f.Add([]byte{0x30, 0x80})
	f.Add(bytes.Repeat([]byte{0x30}, maxCertificate+1))
	f.Fuzz(func(t *testing.T, csr []byte) {
		id, err := CSRNode(csr)
		if err != nil {
			if kind := api.KindOf(err); kind != api.KindInvalid && kind != api.KindDenied {
				t.Errorf("kind of %v", err)
			}
			return
		}
		cert, _, err := a.Issue(csr, []api.Role{api.RoleNode}, "", now, MaxTTL)
		if err != nil {
			t.Fatalf("a request of %s is good and gets no certificate: %v", id, err)
		}
		m, err := Verify(cert, a.Certificate(), now, VerifyOptions{Peer: id})
		if err != nil || len(m.Roles) != 1 || !m.Has(api.RoleNode) || m.Operator != "" {
			t.Errorf("the certificate says %+v, %v", m, err)
		}
	})
}

// A new anchor believes the authority that the leader hands to it if it is that of
// the cluster.
func FuzzImportAuthority(f *testing.F) {
	a := newAuthority(f)
	plain, err := a.export()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(bytes.Replace(plain, []byte(`"key"`), []byte(`"yek"`), 1))
	if plain, err = json.Marshal(exported{Successors: make([]exportedGeneration, MaxAuthorities+1), Issuer: -1}); err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		got, err := importAuthority(bytes.Clone(plain), a.ClusterID())
		if err == nil && got.ClusterID() != a.ClusterID() {
			t.Errorf("the authority of %s was taken for that of %s", got.ClusterID(), a.ClusterID())
		}
	})
}

// Any member passes a revocation on. One counts as it was signed, and not with
// another identity, time or reason.
func FuzzRevocation(f *testing.F) {
	a := newAuthority(f)
	signed, err := a.Revoke(api.Revocation{ID: "pi", Reason: "lost", At: now})
	if err != nil {
		f.Fatal(err)
	}
	add := func(change func(*api.Revocation)) {
		r := signed
		change(&r)
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	add(func(*api.Revocation) {})
	add(func(r *api.Revocation) { r.ID = "nas" })
	add(func(r *api.Revocation) { r.Signature = nil })
	add(func(r *api.Revocation) { r.At = r.At.Add(1<<63 - 1).Add(1<<63 - 1).Add(2) }) // 2⁶⁴ ns, some 584 years
	f.Fuzz(func(t *testing.T, data []byte) {
		var r api.Revocation
		if json.Unmarshal(data, &r) != nil || VerifyRevocation(r, a.Certificate()) != nil {
			return
		}
		if r.ID != signed.ID || r.Reason != signed.Reason || !r.At.Equal(signed.At) {
			t.Errorf("%+v was believed, %+v was signed", r, signed)
		}
	})
}

// A notice of removal brings along the generations that lead to its signer, by
// which nothing but a revocation that they have signed is believed.
func FuzzRevocationIssuers(f *testing.F) {
	first := newAuthority(f)
	second := succeed(f, first)
	third := succeed(f, second)
	known, err := TrustIn(first.Certificate()).With(third.Lineage(), 1)
	if err != nil {
		f.Fatal(err)
	}
	var signed []api.Revocation
	for _, a := range []*Authority{second, third, succeed(f, newAuthority(f))} {
		r, err := a.Revoke(api.Revocation{ID: "pi", Reason: "lost", At: now})
		if err != nil {
			f.Fatal(err)
		}
		signed = append(signed, r)
		f.Add(uint8(len(signed)-1), known.IssuersOf(r))
		f.Add(uint8(len(signed)-1), bytes.Join(a.Lineage(), nil))
	}
	stranger := len(signed) - 1 // its authority is that of another cluster
	f.Fuzz(func(t *testing.T, which uint8, issuers []byte) {
		i := int(which) % len(signed)
		if err := TrustIn(first.Certificate()).VerifyRevocationBy(signed[i], issuers); err == nil && i == stranger {
			t.Error("a revocation of another cluster's authority was believed")
		}
	})
}
