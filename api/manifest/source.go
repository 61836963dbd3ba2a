package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/cloudless-project/cloudless/api"
)

// source is a manifest's text and how to point into it. For one document of
// several it is a part of the text.
type source struct {
	name string
	data []byte // the whole text
	part []byte // the text of one document
	skip int    // lines before part
}

func newSource(name string, data []byte) *source {
	if name == "" || name == "-" {
		name = "stdin"
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) > 0 && (t[0] == '{' || t[0] == '[') {
		// JSON may be indented with tabs, YAML may not. In JSON no tab is part of
		// a value, and a blank in its place keeps every column.
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" "))
	}
	return &source{name: name, data: data, part: data}
}

// split cuts the text where documents begin and end. A line that starts with
// "---" or "..." does nothing else in YAML, not even within a block of text.
func (src *source) split() []*source {
	var parts []*source
	start, line, first := 0, 0, 0
	cut := func(end int) {
		parts = append(parts, &source{name: src.name, data: src.data, part: src.data[start:end], skip: first})
		start, first = end, line
	}
	for at := 0; at < len(src.data); line++ {
		text := src.data[at:]
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			text = text[:i+1]
		}
		if at > start && isMarker(text) {
			cut(at)
		}
		at += len(text)
	}
	cut(len(src.data))
	return parts
}

func isMarker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || bytes.IndexByte([]byte(" \t\r\n"), line[3]) >= 0
}

// position is a place in the text, both counted from 1. Column 0 means the
// whole line.
type position struct{ line, column int }

func positionOf(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key // the token of a block mapping is its first colon
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		n = m.Key
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return position{line: 1, column: 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// Located is the cause of every error with a position.
type Located struct {
	File         string
	Line, Column int    // from 1; column 0 means the whole line
	Field        string // dotted path, as in api.Error
	Snippet      string // the line of the file and a caret under the column
}

func (l *Located) Error() string {
	if l.Column == 0 {
		return fmt.Sprintf("%s:%d", l.File, l.Line)
	}
	return fmt.Sprintf("%s:%d:%d", l.File, l.Line, l.Column)
}

// Snippet returns the lines that show where err is, "" when it is nowhere.
func Snippet(err error) string {
	var l *Located
	if errors.As(err, &l) {
		return l.Snippet
	}
	return ""
}

// at gives an error its place. The field becomes a part of the message, since
// file:line:column comes first, as editors expect it.
func (src *source) at(pos position, field string, e *api.Error) *api.Error {
	pos.line += src.skip
	where := &Located{File: src.name, Line: pos.line, Column: pos.column, Field: field, Snippet: src.snippet(pos)}
	text := e.Message
	if field != "" {
		text = field + ": " + text
	}
	return &api.Error{Kind: e.Kind, Message: where.Error() + ": " + text, Hint: e.Hint, Err: where}
}

const maxSnippet = 120

func (src *source) snippet(pos position) string {
	lines := bytes.Split(src.data, []byte("\n"))
	if pos.line < 1 || pos.line > len(lines) {
		return ""
	}
	line := strings.TrimRight(string(lines[pos.line-1]), "\r")
	if len(line) > maxSnippet {
		line = strings.ToValidUTF8(line[:maxSnippet], "") + "…"
	}
	gutter := fmt.Sprintf("%4d | ", pos.line)
	if pos.column < 1 || pos.column > utf8.RuneCountInString(line)+1 {
		return gutter + line
	}
	return gutter + line + "\n     | " + strings.Repeat(" ", pos.column-1) + "^"
}

// hinted tells the way out of what most often breaks the syntax around a line:
// tabs, which look like blanks.
func (src *source) hinted(line int, e *api.Error) *api.Error {
	lines := bytes.Split(src.part, []byte("\n"))
	for i := max(line-2, 0); i <= line && i < len(lines); i++ {
		indent := lines[i][:len(lines[i])-len(bytes.TrimLeft(lines[i], " \t"))]
		if bytes.IndexByte(indent, '\t') >= 0 {
			return e.WithHint("indent with spaces: YAML takes no tabs")
		}
	}
	return e
}

// fromYAML turns an error of goccy/go-yaml into one with a position.
func (src *source) fromYAML(err error) *api.Error {
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		p := y.GetToken().Position
		return src.at(position{p.Line, p.Column}, "", src.hinted(p.Line, api.Invalid("", "%s", y.GetMessage())))
	}
	return api.Errorf(api.KindInvalid, "%s: %s", src.name, err)
}
