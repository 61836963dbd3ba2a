package identity

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func newRecoveryKey(t *testing.T) *RecoveryKey {
	t.Helper()
	k, err := NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sealedSnapshot makes a snapshot that only the holder of a recovery key opens.
func sealedSnapshot(t *testing.T, a *Authority, public []byte) []byte {
	t.Helper()
	h := BackupHeader{Cluster: a.ClusterID(), Name: "home", Epoch: 1, Index: 7, CreatedAt: time.Unix(1, 0).UTC()}
	key, err := h.SealTo(public)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = a.WriteBackup(&out, h, key, func(w io.Writer) error { _, err := io.WriteString(w, "the state"); return err })
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSnapshotOpensWithItsRecoveryKeyAlone(t *testing.T) {
	a, err := NewAuthority("home", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k := newRecoveryKey(t)
	sealed := sealedSnapshot(t, a, k.Public())
	h, err := ReadBackupHeader(bytes.NewReader(sealed), int64(len(sealed)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRecoveryKey(k.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	key, err := again.Unseal(h)
	if err != nil {
		t.Fatal(err)
	}
	opened, state, err := OpenBackup(bytes.NewReader(sealed), int64(len(sealed)), key)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(state); err != nil || string(b) != "the state" || opened.ClusterID() != a.ClusterID() {
		t.Errorf("opened %q of %s, %v", b, opened.ClusterID(), err)
	}
	if _, err := newRecoveryKey(t).Unseal(h); api.KindOf(err) != api.KindDenied {
		t.Errorf("another key: %v", err)
	}
	for name, change := range map[string]func(*BackupHeader){
		"another state":   func(h *BackupHeader) { h.Index++ },
		"another cluster": func(h *BackupHeader) { h.Cluster += "x" },
		"another secret":  func(h *BackupHeader) { h.Sealed = bytes.Clone(h.Sealed); h.Sealed[40] ^= 1 },
		"no secret":       func(h *BackupHeader) { h.Sealed = nil },
	} {
		other := h
		change(&other)
		if _, err := k.Unseal(other); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// Who keeps a snapshot can read nothing in it but its header.
func TestSnapshotTellsItsKeeperNothing(t *testing.T) {
	a, err := NewAuthority("home", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sealed := sealedSnapshot(t, a, newRecoveryKey(t).Public())
	plain, err := a.export()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("the state")) || bytes.Contains(sealed, plain) {
		t.Error("it is readable")
	}
}

func TestParseRecoveryKeyRefuses(t *testing.T) {
	good := newRecoveryKey(t).String()
	for name, text := range map[string]string{
		"empty": "", "a token": "cl1." + good[5:], "cut": good[:len(good)-3], "a slip": good[:10] + flipped(good[10]) + good[11:],
		"long": good + strings.Repeat("A", 8),
	} {
		if _, err := ParseRecoveryKey(text); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func flipped(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func FuzzParseRecoveryKey(f *testing.F) {
	k, err := NewRecoveryKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.String())
	f.Add("clr1.")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseRecoveryKey(text); err == nil && k.String() != strings.TrimSpace(text) && len(k.Public()) != recoveryKeyBytes {
			t.Errorf("%q becomes %q", text, k)
		}
	})
}
