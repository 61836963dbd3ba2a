package atomicfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cloudless-project/cloudless/internal/atomicfile"
)

func TestWriteReplacesWholeFiles(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, content := range []string{"first, and longer", "second"} {
		if err := atomicfile.Write(root, "key", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "key"))
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v; want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("left %v, %v; want the file alone", entries, err)
	}
}

func TestWriteKeepsOldFileOnError(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := atomicfile.Write(root, "../escape", []byte("x"), 0o600); err == nil {
		t.Fatal("wrote outside the root")
	}
	if err := atomicfile.Write(root, "missing/key", []byte("x"), 0o600); err == nil {
		t.Fatal("wrote into a directory that does not exist")
	}
}
