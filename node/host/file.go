package host

import (
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// maxFile bounds what is read of one file. Those of the kernel are small.
const maxFile = 1 << 20

// text returns what a file holds, without the white space around it; "" when it
// cannot be read.
func text(root fs.FS, name string) string {
	f, err := root.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number returns the number that a file holds.
func number(root fs.FS, name string) (int, bool) {
	n, err := strconv.Atoi(text(root, name))
	return n, err == nil
}

// names lists what lies in a directory, sorted; nothing when it is not there.
func names(root fs.FS, dir string) []string {
	entries, err := fs.ReadDir(root, dir)
	if err != nil {
		return nil
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out
}

func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}

// settings reads the KEY=VALUE lines of a uevent file.
func settings(root fs.FS, name string) map[string]string {
	out := make(map[string]string)
	for line := range strings.Lines(text(root, name)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			out[key] = value
		}
	}
	return out
}

// below turns an absolute path into one of the tree that stands for "/".
func below(abs string) string {
	if p := strings.TrimPrefix(path.Clean("/"+abs), "/"); p != "" {
		return p
	}
	return "."
}
