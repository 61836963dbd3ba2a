# Everything that is done with this repository, by name. "make" lists it.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODULE  := github.com/cloudless-project/cloudless
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X $(MODULE)/internal/buildinfo.version=$(VERSION) -X $(MODULE)/internal/buildinfo.commit=$(COMMIT)
GOBUILD := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'

# Every package but the lab. Those of the runtime and of the network need root and what `make setup` installs.
UNIT = $(shell go list ./... | grep -v '^$(MODULE)/testnet')
# How long `make fuzz` spends on each fuzz test.
FUZZTIME ?= 10s

##@ See it work

.PHONY: demo
demo: build setup ## The whole story in a lab of namespaces: join, deploy, lose a device, heal
	go run ./testnet/cmd/demo

.PHONY: lab
lab: build ## A small internet to play with by hand (testnet/lab help)
	testnet/lab up

##@ Build

.PHONY: build
build: ## bin/cloudless, one static binary
	$(GOBUILD) -o bin/cloudless .

.PHONY: cross
cross: ## Check that the other platforms compile: linux/arm64, and the CLI for macOS and Windows
	@mkdir -p build/cross
	GOOS=linux   GOARCH=arm64 $(GOBUILD) -o build/cross/cloudless-linux-arm64 .
	GOOS=darwin  GOARCH=arm64 $(GOBUILD) -o build/cross/cloudless-darwin-arm64 .
	GOOS=windows GOARCH=amd64 $(GOBUILD) -o build/cross/cloudless-windows-amd64.exe .

.PHONY: generate
generate: ## Regenerate what is generated (the gRPC API); the result is committed
	api/pb/generate.sh

.PHONY: fmt
fmt: ## Format the source
	gofmt -w $(shell git ls-files '*.go' | grep -v '\.pb\.go$$')

##@ Test

.PHONY: test
test: setup ## Every test: packages with the race detector, then the lab with real containers (needs root)
	$(MAKE) --no-print-directory race
	$(MAKE) --no-print-directory e2e

.PHONY: unit
unit: ## The tests of the packages, quickly
	go test $(UNIT)

.PHONY: race
race: ## The tests of the packages with the race detector
	go test -race $(UNIT)

.PHONY: e2e
e2e: build ## The real binary in the lab (needs root)
	go test -count=1 -timeout 18m -p 1 -parallel 3 ./testnet/... # never cached: the binary under test is no dependency that go knows of; -parallel is for tests that mostly wait

.PHONY: bench
bench: build build/tools/wireguard ## Measure join, placement, failover, throughput, footprint; writes build/bench.jsonl
	go run ./testnet/cmd/bench

.PHONY: sim
sim: ## Thousands of nodes in virtual time: convergence, false deaths, faults; appends to build/bench.jsonl
	go run ./testnet/sim/cmd

.PHONY: yardstick
yardstick: ## hashicorp/memberlist itself in virtual time, 1,000 members (many minutes); appends to build/bench.jsonl
	@mkdir -p build
	go -C testnet/yardstick test -count=1 -timeout 40m -v -run Memberlist . -members 1000 -rounds 3 -out $(CURDIR)/build/bench.jsonl

.PHONY: nat
nat: setup ## Measure how the mesh gets through every pair of NATs (needs root; some minutes); adds to build/bench.jsonl
	go run ./testnet/natmatrix/cmd

.PHONY: fuzz
fuzz: ## Every fuzz test, FUZZTIME each (default 10s)
	tools/fuzz.sh $(FUZZTIME)

.PHONY: cover
cover: ## Coverage of the packages; writes build/cover.html
	@mkdir -p build
	go test -coverprofile=build/cover.out $(UNIT)
	go tool cover -html=build/cover.out -o build/cover.html
	go tool cover -func=build/cover.out | tail -1

##@ Keep it in order

.PHONY: lint
lint: build/tools/staticcheck build/tools/lint ## gofmt, go vet, staticcheck, unchecked errors
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [[ -n "$$unformatted" ]]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -vettool=$(CURDIR)/build/tools/lint ./...
	build/tools/staticcheck ./...

.PHONY: stale
stale: ## Fail when generated code is not what the generators make
	api/pb/generate.sh --check

.PHONY: check
check: ## What CI runs
	.ci/run

.PHONY: setup
setup: ## Install what the lab needs from Debian packages, when it is missing
	@tools/setup.sh

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin build

build/tools/wireguard: tools/go.mod tools/go.sum tools/wireguard/main.go # the bench compares with it
	@mkdir -p build/tools
	GOBIN=$(CURDIR)/build/tools go -C tools install ./wireguard
	@touch $@

build/tools/%: tools/go.mod tools/go.sum $(wildcard tools/lint/*.go)
	@mkdir -p build/tools
	GOBIN=$(CURDIR)/build/tools go -C tools install ./lint honnef.co/go/tools/cmd/staticcheck
	@touch build/tools/lint build/tools/staticcheck

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z0-9_-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
