package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Whoever looks for contexts and has none leaves nothing behind, and needs no
// home directory.
func TestLookingForContextsMakesNothing(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	for _, h := range []string{home, ""} {
		t.Setenv("HOME", h)
		if all, err := loadContexts(); err != nil || len(all.Contexts) != 0 {
			t.Errorf("HOME=%q: %+v, %v", h, all, err)
		}
	}
	if _, err := os.Stat(home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home directory was made: %v", err)
	}

	t.Setenv("HOME", home)
	if err := (&contexts{Current: "home"}).save(); err != nil {
		t.Fatal(err)
	}
	if all, err := loadContexts(); err != nil || all.Current != "home" {
		t.Errorf("saved and read again: %+v, %v", all, err)
	}
}
