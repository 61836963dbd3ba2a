package manifest

import (
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// resolve strips what stands before a value: an anchor's name, a tag. A
// mapping of one field becomes a mapping like any other.
func resolve(n ast.Node) ast.Node {
	for {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.TagNode:
			n = v.Value
		case *ast.MappingValueNode:
			return ast.Mapping(v.GetToken(), false, v)
		default:
			return n
		}
	}
}

// keyOf returns a field's name as it is meant, without quotes.
func keyOf(v *ast.MappingValueNode) string {
	if s, ok := v.Key.(*ast.StringNode); ok {
		return s.Value
	}
	return v.Key.String()
}

// lookup follows a dotted path such as spec.ports[1].port. When a part of it is
// not there (validation speaks of defaults too) it returns the last node that
// is, and false.
func lookup(n ast.Node, path string) (ast.Node, bool) {
	if path == "" {
		return n, true
	}
	for _, part := range strings.Split(path, ".") {
		name, rest, _ := strings.Cut(part, "[")
		child, ok := field(n, name)
		if !ok {
			return n, false
		}
		n = child
		for rest != "" {
			var index string
			index, rest, _ = strings.Cut(rest, "]")
			rest = strings.TrimPrefix(rest, "[")
			child, ok := item(n, index)
			if !ok {
				return n, false
			}
			n = child
		}
	}
	return n, true
}

func field(n ast.Node, name string) (ast.Node, bool) {
	m, ok := resolve(n).(*ast.MappingNode)
	if !ok {
		return nil, false
	}
	for _, v := range m.Values {
		if keyOf(v) == name {
			return v.Value, true
		}
	}
	return nil, false
}

func item(n ast.Node, index string) (ast.Node, bool) {
	list, ok := resolve(n).(*ast.SequenceNode)
	i, err := strconv.Atoi(index)
	if !ok || err != nil || i < 0 || i >= len(list.Values) {
		return nil, false
	}
	return list.Values[i], true
}
