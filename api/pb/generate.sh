#!/bin/sh
# Generates the Go code of the gRPC API beside its .proto files.
#
#   generate.sh            regenerates in place
#   generate.sh --check    fails, with the difference, when the code is stale
#
# protoc and the well-known types come from the system (Debian: protobuf-compiler
# and libprotobuf-dev), the plugins from the versions pinned in tools/go.mod.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=$root/build/bin
module=github.com/cloudless-project/cloudless/api/pb

if ! command -v protoc >/dev/null; then
	echo "generate.sh: protoc is missing: apt-get install protobuf-compiler libprotobuf-dev" >&2
	exit 1
fi

mkdir -p "$bin"
GOBIN=$bin go -C "$root/tools" install \
	google.golang.org/protobuf/cmd/protoc-gen-go \
	google.golang.org/grpc/cmd/protoc-gen-go-grpc

# generate writes the Go code of every .proto file below the directory $1.
generate() {
	(
		cd "$here"
		PATH=$bin:$PATH protoc --proto_path=. \
			--go_out="$1" --go_opt=module=$module \
			--go-grpc_out="$1" --go-grpc_opt=module=$module \
			cloudless/v1/*.proto
	)
	# The version of protoc is the machine's, not ours: keep it out of the code.
	sed -i.orig -E '/^\/\/ (- )?\t?protoc +v/d' "$1"/cloudless/v1/*.pb.go
	rm -f "$1"/cloudless/v1/*.orig
}

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

case ${1-} in
'')
	generate "$fresh"
	rm -f "$here"/cloudless/v1/*.pb.go
	cp "$fresh"/cloudless/v1/*.pb.go "$here/cloudless/v1/"
	;;
--check)
	generate "$fresh"
	mkdir "$fresh/committed"
	cp "$here"/cloudless/v1/*.pb.go "$fresh/committed/"
	if ! diff -ru "$fresh/committed" "$fresh/cloudless/v1"; then
		echo "generate.sh: the generated code is stale: run make generate and commit the result" >&2
		exit 1
	fi
	;;
*)
	echo "usage: generate.sh [--check]" >&2
	exit 2
	;;
esac
