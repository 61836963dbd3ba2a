package identity

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cloudless-project/cloudless/api"
)

func writeTestBackup(t testing.TB, key []byte, state string) (*Authority, []byte) {
	t.Helper()
	authority, err := NewAuthority("home", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	h := BackupHeader{Cluster: authority.ClusterID(), Name: "home", Index: 12, Salt: []byte("salt")}
	err = authority.WriteBackup(&file, h, key, func(w io.Writer) error {
		_, err := io.WriteString(w, state)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return authority, file.Bytes()
}

func TestBackup(t *testing.T) {
	key := BackupKey([]byte("correct horse"), []byte("0123456789abcdef"))
	state := strings.Repeat("a line of state\n", 20000) // several segments
	authority, file := writeTestBackup(t, key, state)
	r, size := bytes.NewReader(file), int64(len(file))
	h, err := ReadBackupHeader(r, size)
	if err != nil || h.Index != 12 || h.Cluster != authority.ClusterID() {
		t.Fatalf("header %+v: %v", h, err)
	}
	opened, in, err := OpenBackup(r, size, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(in)
	if err != nil || string(got) != state || !opened.keys[0].Equal(authority.keys[0]) {
		t.Fatalf("%d bytes of state, %v", len(got), err)
	}
	if bytes.Contains(file, []byte("a line of state")) {
		t.Error("the state is in the clear")
	}
	wrong := BackupKey([]byte("wrong"), []byte("0123456789abcdef"))
	if _, _, err := OpenBackup(r, size, wrong); api.KindOf(err) != api.KindDenied {
		t.Errorf("a wrong passphrase: %v", err)
	}
	for at := 0; at < len(file); at += 997 {
		bad := bytes.Clone(file)
		bad[at] ^= 1
		if _, err := ReadBackupHeader(bytes.NewReader(bad), size); err == nil {
			t.Fatalf("damage of byte %d is not found", at)
		}
	}
	if _, err := ReadBackupHeader(bytes.NewReader(file[:size-1]), size-1); err == nil {
		t.Error("a cut file is not found out")
	}
}

func TestGrant(t *testing.T) {
	authority, err := NewAuthority("home", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, public, err := NewGrantKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := authority.Grant(public, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := key.Open(sealed, authority.ClusterID(), "node-1")
	if err != nil || !got.keys[0].Equal(authority.keys[0]) {
		t.Fatalf("open: %v", err)
	}
	if _, err := key.Open(sealed, authority.ClusterID(), "node-2"); api.KindOf(err) != api.KindDenied {
		t.Errorf("a grant for another node: %v", err)
	}
	other, _, err := NewGrantKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(sealed, authority.ClusterID(), "node-1"); api.KindOf(err) != api.KindDenied {
		t.Errorf("another key: %v", err)
	}
	if _, err := authority.Grant([]byte("short"), "node-1"); api.KindOf(err) != api.KindInvalid {
		t.Errorf("a bad key: %v", err)
	}
}

// A backup may come from anywhere.
func FuzzOpenBackup(f *testing.F) {
	key := bytes.Repeat([]byte{7}, BackupKeySize)
	_, file := writeTestBackup(f, key, "state\n")
	f.Add(file)
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		_, in, err := OpenBackup(bytes.NewReader(file), int64(len(file)), key)
		if err == nil {
			_, _ = io.Copy(io.Discard, in)
		}
	})
}
