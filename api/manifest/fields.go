package manifest

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/cloudless-project/cloudless/api"
)

// laterFields are the fields of the manifest language that come with a later
// version. To ignore them would be to promise what nobody keeps.
var laterFields = map[string]string{
	"spec.volumes":        "a volume",
	"spec.secrets":        "a secret",
	"spec.ports[].expose": "exposing a port",
	"spec.probes.startup": "a startup probe",
	"spec.priority":       "a priority",
	"spec.devices":        "a device",
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// check compares a node with the type it will be decoded into and returns one
// error for every field that is unknown and every value that does not parse.
func (src *source) check(n ast.Node, t reflect.Type, path string) []error {
	n = resolve(n)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n.(type) {
	case *ast.AliasNode: // its anchor may stand where another type is wanted
		return nil
	case *ast.NullNode:
		return nil
	}
	switch {
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return src.checkScalar(n, t, path)
	case t.Kind() == reflect.Struct:
		return src.checkStruct(n, t, path)
	case t.Kind() == reflect.Slice:
		return src.checkList(n, t, path)
	case t.Kind() == reflect.Map:
		return src.checkMap(n, t, path)
	}
	return src.checkScalar(n, t, path)
}

func (src *source) checkStruct(n ast.Node, t reflect.Type, path string) []error {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		return src.wrong(n, path, "a mapping of fields")
	}
	fields := fieldsOf(t)
	var errs []error
	for _, v := range m.Values {
		if v.Key.IsMergeKey() {
			continue
		}
		name := keyOf(v)
		if ft, ok := fields[name]; ok {
			errs = append(errs, src.check(v.Value, ft, join(path, name))...)
			continue
		}
		errs = append(errs, src.unknown(v, fields, path, name))
	}
	return errs
}

func (src *source) unknown(v *ast.MappingValueNode, fields map[string]reflect.Type, path, name string) error {
	full := join(path, name)
	if what, ok := laterFields[indexes.ReplaceAllString(full, "[]")]; ok {
		return src.at(positionOf(v.Key), clip(full), api.Errorf(api.KindUnsupported, "%s is not supported by this version", what)).WithHint("leave it out")
	}
	e := src.at(positionOf(v.Key), path, api.Invalid("", "there is no field %q", clip(name)))
	names := sortedKeys(fields)
	if near, ok := nearest(name, names); ok {
		return e.WithHint("did you mean %s?", near)
	}
	return e.WithHint("the fields are %s", strings.Join(names, ", "))
}

func (src *source) checkList(n ast.Node, t reflect.Type, path string) []error {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		return src.wrong(n, path, "a list")
	}
	var errs []error
	for i, v := range list.Values {
		errs = append(errs, src.check(v, t.Elem(), fmt.Sprintf("%s[%d]", path, i))...)
	}
	return errs
}

func (src *source) checkMap(n ast.Node, t reflect.Type, path string) []error {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		return src.wrong(n, path, "a mapping of names to values")
	}
	var errs []error
	for _, v := range m.Values {
		if !v.Key.IsMergeKey() {
			errs = append(errs, src.check(v.Value, t.Elem(), join(path, keyOf(v)))...)
		}
	}
	return errs
}

func (src *source) checkScalar(n ast.Node, t reflect.Type, path string) []error {
	switch n.(type) {
	case *ast.MappingNode, *ast.SequenceNode:
		return src.wrong(n, path, "a single value")
	}
	err := yaml.NodeToValue(n, reflect.New(t).Interface())
	if err == nil {
		return nil
	}
	var y yaml.Error
	if errors.As(err, &y) {
		return src.wrong(n, path, describe(t))
	}
	return []error{src.at(positionOf(n), clip(path), api.Invalid("", "%s", err))}
}

func (src *source) wrong(n ast.Node, path, want string) []error {
	return []error{src.at(positionOf(n), clip(path), api.Invalid("", "this must be %s", want))}
}

func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	}
	return "a text"
}

// fieldsOf returns the fields of a struct by the name they have in a manifest.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		out[name] = f.Type
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
