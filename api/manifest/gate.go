package manifest

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"

	"github.com/cloudless-project/cloudless/api"
)

// The bounds of a manifest.
const (
	MaxSize      = 1 << 20 // bytes
	maxDocuments = 256
	maxDepth     = 32 // a workload needs 7
	maxNodes     = 100_000
)

// gate refuses input that is too big, too deep, or made to exhaust whoever
// decodes it. It returns how many documents have something in them.
func (src *source) gate() (count int, err error) {
	if len(src.data) > MaxSize {
		return 0, api.Errorf(api.KindInvalid, "%s: a manifest has at most 1 MiB", src.name).WithHint("split it into several files")
	}
	if !utf8.Valid(src.data) || bytes.IndexByte(src.data, 0) >= 0 {
		return 0, api.Errorf(api.KindInvalid, "%s: this is not a text file in UTF-8", src.name)
	}
	dec := yaml.NewDecoder(bytes.NewReader(src.data))
	for n, budget := 0, maxNodes; ; n++ {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return 0, src.fromGate(err)
		}
		if n == maxDocuments {
			return 0, src.at(position{line: doc.Line, column: 1}, "", api.Invalid("", "a manifest has at most %d documents", maxDocuments))
		}
		if err := src.measure(&doc, 0, &budget); err != nil {
			return 0, err
		}
		// Only decoding into a value follows aliases, and counts them.
		var value any
		if err := doc.Decode(&value); err != nil {
			return 0, src.fromGate(err)
		}
		if value != nil {
			count++
		}
	}
}

// measure walks a document without following aliases.
func (src *source) measure(node *yaml.Node, depth int, budget *int) error {
	*budget--
	where := position{line: node.Line, column: node.Column}
	if depth > maxDepth {
		return src.at(where, "", api.Invalid("", "this is nested more than %d levels deep", maxDepth))
	}
	if *budget < 0 {
		return src.at(where, "", api.Invalid("", "a manifest has at most %d values", maxNodes))
	}
	for _, child := range node.Content {
		if err := src.measure(child, depth+1, budget); err != nil {
			return err
		}
	}
	return nil
}

var gateLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s+)?(?:line (\d+): )?`)

// fromGate turns the gate's "yaml: line 3: …" into an error with a position.
func (src *source) fromGate(err error) error {
	if better := src.secondOpinion(); better != nil {
		return better
	}
	text := err.Error()
	m := gateLine.FindStringSubmatch(text)
	line, _ := strconv.Atoi(m[1])
	if line == 0 {
		return api.Errorf(api.KindInvalid, "%s: %s", src.name, text[len(m[0]):])
	}
	return src.at(position{line: line}, "", src.hinted(line, api.Invalid("", "%s", text[len(m[0]):])))
}

// secondOpinion asks the other parser about bad syntax, since it knows the
// column, and the line better. It is asked only when the text is too small to
// hurt it.
func (src *source) secondOpinion() error {
	const small, few = 16 << 10, 200
	if len(src.data) > small || bytes.Count(src.data, []byte("["))+bytes.Count(src.data, []byte("{"))+bytes.Count(src.data, []byte("- ")) > few {
		return nil
	}
	for _, part := range src.split() {
		if _, err := part.parse(); err != nil {
			return err
		}
	}
	return nil
}
