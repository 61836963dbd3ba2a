package identity

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func TestRevocationIsTheAuthoritysWord(t *testing.T) {
	now := time.Now()
	ours, err := NewAuthority("ours", now)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := NewAuthority("theirs", now)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := ours.Revoke(api.Revocation{ID: "12D3KooWPi", Reason: "stolen", At: now})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	var travelled api.Revocation
	if err := json.Unmarshal(raw, &travelled); err != nil {
		t.Fatal(err)
	}
	if err := VerifyRevocation(travelled, ours.Certificate()); err != nil {
		t.Errorf("after a journey: %v", err)
	}
	forged := map[string]func(*api.Revocation){
		"another identity": func(r *api.Revocation) { r.ID = "12D3KooWNas" },
		"another reason":   func(r *api.Revocation) { r.Reason = "sold" },
		"another time":     func(r *api.Revocation) { r.At = r.At.Add(1) },
		"no signature":     func(r *api.Revocation) { r.Signature = nil },
		"half a signature": func(r *api.Revocation) { r.Signature = r.Signature[:32] },
		"moved line break": func(r *api.Revocation) { r.ID, r.Reason = r.ID+"\n0", "" },
	}
	for name, change := range forged {
		r := signed
		change(&r)
		if err := VerifyRevocation(r, ours.Certificate()); api.KindOf(err) != api.KindDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := VerifyRevocation(signed, theirs.Certificate()); api.KindOf(err) != api.KindDenied {
		t.Errorf("another cluster takes it: %v", err)
	}
	if _, err := ours.Revoke(api.Revocation{ID: "x", Reason: strings.Repeat("y", MaxRevocationReason+1)}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("a reason without end: %v", err)
	}
}
