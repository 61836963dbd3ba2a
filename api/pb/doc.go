// Package pb holds the definition of the gRPC API. The messages and services
// live in cloudless/v1: the .proto files are written by hand, the Go code
// beside them is generated and committed, so that building Cloudless needs
// neither protoc nor its plugins.
//
// Only api/wire turns messages into the nouns of package api and back; only
// api/client and node speak to the services.
package pb

//go:generate ./generate.sh
