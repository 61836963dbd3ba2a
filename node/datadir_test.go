package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cloudless-project/cloudless/api"
)

func TestDataDirKeepsOthersOut(t *testing.T) {
	for name, c := range map[string]struct {
		file string // in it already
		mode os.FileMode
		want os.FileMode
		kind api.Kind // of the refusal
	}{
		"private":             {"", 0o700, 0o700, ""},
		"private, with files": {"notes", 0o700, 0o700, ""},
		"empty":               {"", 0o755, 0o700, ""},
		"a disk of its own":   {"lost+found", 0o755, 0o700, ""},
		"of a daemon before":  {keyFile, 0o750, 0o700, ""},
		"shared":              {"notes", 0o755, 0o755, api.KindInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(path, c.file), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			dir, err := openDataDir(path)
			if err == nil {
				dir.Close()
			}
			if api.KindOf(err) != c.kind {
				t.Errorf("got %v", err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != c.want {
				t.Errorf("mode %v, want %v: %v", info.Mode().Perm(), c.want, err)
			}
		})
	}
}
