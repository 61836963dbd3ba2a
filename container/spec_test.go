package container

import (
	"strings"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func TestFingerprintIsOfTheMeaning(t *testing.T) {
	a := Spec{ID: "a", Image: "i", Env: map[string]string{"A": "1", "B": "2"}}
	b := Spec{ID: "a", Image: "i", Env: map[string]string{"B": "2", "A": "1"}, Args: []string{}, Labels: map[string]string{}, Mounts: []Mount{}}
	if a.Fingerprint() != b.Fingerprint() {
		t.Error("nil and empty, or the order of a map, make a difference")
	}
	b.Env["A"] = "2"
	if a.Fingerprint() == b.Fingerprint() {
		t.Error("another variable makes none")
	}
}

func TestValidateID(t *testing.T) {
	for _, id := range []string{"a", "web.2.5", "my-app_1.0.1", strings.Repeat("x", maxIDLength)} {
		if err := ValidateID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", ".", "..", "a/b", "../a", "a..b", "-a", "a-", "a b", "ä", "a\n", strings.Repeat("x", maxIDLength+1)} {
		if err := ValidateID(id); api.KindOf(err) != api.KindInvalid {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestValidateMountTargets(t *testing.T) {
	for target, ok := range map[string]bool{
		"/data": true, "/dev/shm": true, "/etc/hosts": true, "/system": true,
		"/": false, "/proc": false, "/proc/sys": false, "/sys/fs": false, "/dev": false, "data": false, "/a/../proc": false, "/a/": false,
	} {
		s := Spec{ID: "a", Image: "i", Tmpfs: []Tmpfs{{Target: target, Size: 1}}}
		if err := s.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", target, err)
		}
	}
}
