// Package buildinfo names the build of the running binary.
package buildinfo

import (
	"runtime"
	"runtime/debug"
)

// version and commit are set by the linker:
//
//	-ldflags "-X …/internal/buildinfo.version=v1.2.3 -X …/internal/buildinfo.commit=abc123"
var (
	version = "dev"
	commit  = ""
)

// Info names a build.
type Info struct {
	Version string // "dev" outside of a release
	Commit  string // "unknown" when neither the linker nor the toolchain recorded it
	Go      string
	OS      string
	Arch    string
}

// Read returns what is known about the running binary.
func Read() Info {
	info := Info{Version: version, Commit: commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info.Commit == "" {
		info.Commit = "unknown"
		if build, ok := debug.ReadBuildInfo(); ok {
			for _, s := range build.Settings {
				if s.Key == "vcs.revision" {
					info.Commit = s.Value
				}
			}
		}
	}
	return info
}
