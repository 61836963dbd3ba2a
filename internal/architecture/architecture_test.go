package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The house prefers files that fit into a head. Generated code, and tables of
// test cases, are what they are.
const maxLines = 500

// file is one Go file of the module, whatever its build constraints.
type file struct {
	path  string // slash-separated, relative to the module
	dir   string
	test  bool
	gen   bool
	lines int
	ast   *ast.File
	fset  *token.FileSet
}

// TestArchitecture reads every Go file of the module and holds it against the
// rules.
func TestArchitecture(t *testing.T) {
	files, err := readModule(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d Go files found: is this the right directory?", len(files))
	}
	for _, f := range files {
		for _, v := range f.violations() {
			t.Error(v)
		}
	}
}

func readModule(root string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || slices.Contains([]string{"build", "bin", "testdata", "vendor"}, name)) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
				return filepath.SkipDir // another module
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parse(filepath.ToSlash(rel), src)
		files = append(files, f)
		return err
	})
	return files, err
}

func parse(name string, src []byte) (file, error) {
	f := file{path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), fset: token.NewFileSet()}
	var err error
	f.ast, err = parser.ParseFile(f.fset, name, src, parser.ParseComments)
	if err != nil {
		return f, err
	}
	f.gen = ast.IsGenerated(f.ast)
	f.lines = f.fset.File(f.ast.Pos()).LineCount()
	return f, nil
}

// violations lists what is wrong with a file, each with its place and the rule.
func (f file) violations() []string {
	var list []string
	complain := func(pos token.Pos, what, why string) {
		list = append(list, fmt.Sprintf("%s: %s\n\trule: %s", f.fset.Position(pos), what, why))
	}
	for _, spec := range f.ast.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		f.checkLayer(spec.Pos(), imported, complain)
		f.checkOwner(spec.Pos(), imported, complain)
		f.checkImport(spec.Pos(), imported, complain)
	}
	f.checkSelectors(complain)
	f.checkShape(complain)
	return list
}

type complaint func(pos token.Pos, what, why string)

func (f file) checkLayer(pos token.Pos, imported string, complain complaint) {
	dir, ok := strings.CutPrefix(imported, module)
	if !ok {
		return
	}
	dir = strings.TrimPrefix(dir, "/")
	l, ok := layerOf(f.dir)
	if !ok {
		complain(pos, f.dir+" has no place in the picture", "every directory belongs to a layer: add it to rules_test.go and to docs/architecture.md")
		return
	}
	if dir == f.dir || l.allows(dir) { // an external test imports its own package
		return
	}
	complain(pos, fmt.Sprintf("%s imports %s", f.dir, dir), l.why)
}

func (f file) checkOwner(pos token.Pos, imported string, complain complaint) {
	for _, o := range owners {
		if !strings.HasPrefix(imported, o.dependency) || f.test || underAny(f.dir, o.trees) {
			continue
		}
		if o.except != "" && strings.HasPrefix(imported, o.except) && underAny(f.dir, o.also) {
			continue
		}
		complain(pos, fmt.Sprintf("%s imports %s", f.dir, imported), o.why)
	}
}

func (f file) checkImport(pos token.Pos, imported string, complain complaint) {
	if imported == "log" && !f.test {
		complain(pos, f.dir+" imports log", "logs go through an injected zap logger")
	}
	if !f.test && underAny(f.dir, pure) && slices.Contains(impureImports, imported) {
		complain(pos, fmt.Sprintf("%s imports %s", f.dir, imported), whyPure)
	}
}

// checkSelectors looks at uses of other packages, by the names under which the
// file imports them. That is enough: nobody here calls a variable time.
func (f file) checkSelectors(complain complaint) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok || !f.imports(pkg.Name) {
			return true
		}
		name := pkg.Name + "." + sel.Sel.Name
		switch {
		case !f.test && underAny(f.dir, pure) && pkg.Name == "time" && slices.Contains(clock, sel.Sel.Name):
			complain(sel.Pos(), f.dir+" uses "+name, whyPure)
		case f.test && name == "time.Sleep" && !f.imports("synctest"): // where it costs nothing
			complain(sel.Pos(), f.path+" sleeps", "no test sleeps to wait: it polls a condition with a deadline, or runs in virtual time (testing/synctest)")
		case name == "zap.L" || name == "zap.S" || name == "zap.ReplaceGlobals":
			complain(sel.Pos(), f.path+" uses "+name, "the logger is injected, never global")
		}
		return true
	})
}

func (f file) imports(name string) bool {
	return slices.ContainsFunc(f.ast.Imports, func(s *ast.ImportSpec) bool {
		if s.Name != nil {
			return s.Name.Name == name
		}
		return path.Base(strings.Trim(s.Path.Value, `"`)) == name
	})
}

func (f file) checkShape(complain complaint) {
	switch name := f.ast.Name.Name; name {
	case "util", "utils", "common", "helper", "helpers", "misc":
		complain(f.ast.Name.Pos(), "a package is called "+name, "a package is named by its job")
	}
	if !f.gen && !f.test && f.lines > maxLines {
		complain(f.ast.Pos(), fmt.Sprintf("%s has %d lines", f.path, f.lines), fmt.Sprintf("a file stays under %d lines: split it by what its parts do", maxLines))
	}
}

// TestRulesBite proves that the rules catch what they are for, and nothing
// that is fine.
func TestRulesBite(t *testing.T) {
	tests := []struct {
		name, path, src string
		want            string // part of the complaint, "" for none
	}{
		{"sibling", "svcnet/a.go", `package svcnet; import _ "` + module + `/p2p"`, "svcnet imports p2p"},
		{"down", "svcnet/a.go", `package svcnet; import _ "` + module + `/api"`, ""},
		{"own child", "container/a.go", `package container; import _ "` + module + `/container/logfile"`, ""},
		{"security sibling", "security/policy/a.go", `package policy; import _ "` + module + `/security/identity"`, "security/policy imports security/identity"},
		{"api looks up", "api/a.go", `package api; import _ "` + module + `/api/wire"`, "api imports api/wire"},
		{"cli never imports node", "cli/a.go", `package cli; import _ "` + module + `/node"`, "cli imports node"},
		{"main", "main.go", `package main; import _ "` + module + `/node"`, ""},
		{"main looks deeper", "main.go", `package main; import _ "` + module + `/p2p"`, ". imports p2p"},
		{"internal", "internal/retry/a.go", `package retry; import _ "` + module + `/api"`, "internal/retry imports api"},
		{"unknown tree", "stuff/a.go", `package stuff; import _ "` + module + `/api"`, "has no place"},
		{"libp2p", "svcnet/a.go", `package svcnet; import _ "github.com/libp2p/go-libp2p"`, "imports github.com/libp2p/go-libp2p"},
		{"libp2p in a test", "svcnet/a_test.go", `package svcnet; import _ "github.com/libp2p/go-libp2p"`, ""},
		{"core types in node", "node/a.go", `package node; import _ "github.com/libp2p/go-libp2p/core/host"`, ""},
		{"raft", "node/a.go", `package node; import _ "github.com/hashicorp/raft"`, "imports github.com/hashicorp/raft"},
		{"containerd", "container/a.go", `package container; import _ "github.com/containerd/containerd/v2/client"`, "imports github.com/containerd"},
		{"clock in a pure package", "sched/place/a.go", `package place; import "time"; var x = time.Now()`, "uses time.Now"},
		{"durations are fine", "sched/place/a.go", `package place; import "time"; var x = time.Second`, ""},
		{"disk in a pure package", "raftmeta/state/a.go", `package state; import _ "os"`, "imports os"},
		{"clock in the test of one", "sched/place/a_test.go", `package place; import "time"; var x = time.Now()`, ""},
		{"sleep", "p2p/a_test.go", `package p2p; import "time"; func f() { time.Sleep(1) }`, "sleeps"},
		{"sleep in virtual time", "p2p/a_test.go", `package p2p; import ("time"; "testing/synctest"); func f() { time.Sleep(1); synctest.Wait() }`, ""},
		{"global logger", "p2p/a.go", `package p2p; import "go.uber.org/zap"; var x = zap.L()`, "zap.L"},
		{"name", "internal/util/a.go", `package util`, "called util"},
		{"length", "p2p/a.go", "package p2p\n" + strings.Repeat("//\n", maxLines), "lines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := parse(tt.path, []byte(tt.src))
			if err != nil {
				t.Fatal(err)
			}
			got := f.violations()
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("unexpected complaint: %s", strings.Join(got, "; "))
			case tt.want != "" && !strings.Contains(strings.Join(got, "\n"), tt.want):
				t.Errorf("complaints %q, want one with %q", got, tt.want)
			}
		})
	}
}
