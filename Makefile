SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The same settings everywhere, so that packages are compiled once; the race detector alone needs cgo.
export CGO_ENABLED := 0
export GOFLAGS := $(GOFLAGS) -trimpath

PREFIX ?= /usr/local
FUZZTIME ?= 30s
GOLANGCI_LINT_VERSION := v2.15.0

GOFMT = $(shell go env GOROOT)/bin/gofmt
# Version stamping fails in a checkout that belongs to somebody else, as containers have it.
VCS = $(shell git rev-parse HEAD >/dev/null 2>&1 && echo auto || echo false)
E2E = ./internal/testkit ./test/...
UNIT = $(shell go list ./... | grep -v '/peel/test/\|/peel/internal/testkit$$')
# End-to-end tests need root for mount(2), users and namespaces; building them does not.
AS_ROOT = $(if $(filter 0,$(shell id -u)),,-exec "sudo -E env PATH=$$PATH HOME=$$HOME")

DEPS_RUN  := fusermount3=fuse3
DEPS_RACE := gcc=gcc+libc6-dev
DEPS_E2E  := umoci=umoci skopeo=skopeo python3=python3 setfattr=attr getcap=libcap2-bin zstd=zstd pzstd=zstd \
	pigz=pigz gzip=gzip tar=tar setpriv=util-linux unshare=util-linux useradd=passwd dpkg-deb=dpkg \
	docker-registry=docker-registry nginx=nginx-light runc=runc
DEPS_BENCH := containerd=containerd ctr=containerd
DEPS_COLD  := podman=podman npm=npm unshare=util-linux

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: bin/peel ## the static binary bin/peel

.PHONY: bin/peel
bin/peel:
	@mkdir -p bin
	go build -buildvcs=$(VCS) -o $@ ./cmd/peel

.PHONY: install
install: build ## bin/peel into $(PREFIX)/bin
	install -D -m 0755 bin/peel $(DESTDIR)$(PREFIX)/bin/peel

.PHONY: demo
demo: deps-run build ## what peel does, in one minute, with an image made from this machine's files
	bin/peel demo $(DEMOFLAGS)

.PHONY: deps-run
deps-run:
	@.ci/deps $(DEPS_RUN)

.PHONY: deps
deps: ## installs with apt-get what the tests need and this machine lacks
	@.ci/deps $(DEPS_RUN) $(DEPS_RACE) $(DEPS_E2E)

.PHONY: deps-bench
deps-bench: deps
	@.ci/deps $(DEPS_BENCH)

.PHONY: test
test: deps test-fmt test-vet test-race test-e2e ## everything: formatting, vet, unit tests with -race, end to end
	@echo "peel: all tests passed"

.PHONY: test-fmt
test-fmt:
	@out=$$($(GOFMT) -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	[ -z "$$out" ] || { echo "not formatted (make fmt):"; echo "$$out"; exit 1; }

.PHONY: test-vet
test-vet:
	go vet ./...

.PHONY: test-unit
test-unit: ## unit tests
	go test -vet=off -shuffle=on $(UNIT)

.PHONY: test-race
test-race: ## unit tests with the race detector
	CGO_ENABLED=1 go test -vet=off -race -shuffle=on $(UNIT)
	CGO_ENABLED=1 GOMAXPROCS=1 go test -vet=off -race -count=1 ./internal/flight ./cache ./remote

.PHONY: test-e2e
test-e2e: build ## end to end: real mounts, a real registry, real tools (as root)
	@[ -d ../shared/vectors ] || echo "test-e2e: ../shared/vectors is not here: only images made by the test are compared"
	PATH="$$PATH:/usr/sbin:/sbin" PEEL_BIN=$(CURDIR)/bin/peel go test -vet=off -shuffle=on -timeout 9m $(AS_ROOT) $(E2E)

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	@.ci/fuzz $(FUZZTIME)

.PHONY: bench
bench: deps-bench build ## against overlayfs and containerd, as root; writes the table of docs/benchmarks.md
	PATH="$$PATH:/usr/sbin:/sbin" PEEL_BIN=$(CURDIR)/bin/peel go test -run '^$$' -bench . -benchtime 1x -timeout 60m -v $(AS_ROOT) ./test/bench -table $(CURDIR)/docs/benchmarks.md

# In namespaces of its own: however it ends, no mount, no container and no daemon is left. The shell is there to be
# the process that all others are left to. For use between double quotes.
CONTAINED = unshare --mount --pid --fork --kill-child --mount-proc sh -c '\"\$$@\"; exit \$$?' sh

.PHONY: deps-cold
deps-cold: deps-bench
	@.ci/deps $(DEPS_COLD)

.PHONY: bench-cold
bench-cold: deps-cold build ## containers started cold, against L and full pulls, as root; COLD="python wan estargz" selects; docs/benchmarks.md
	PATH="$$PATH:/usr/sbin:/sbin" PEEL_BIN=$(CURDIR)/bin/peel go test -run '^$$' -bench Cold -benchtime 1x -timeout 60m -v \
		-exec "$(if $(filter 0,$(shell id -u)),,sudo -E env PATH=$$PATH HOME=$$HOME )$(CONTAINED)" ./test/cold \
		-table $(CURDIR)/docs/benchmarks.md -svg $(CURDIR)/docs/bench-cold.svg -figures $(CURDIR)/docs/bench-cold.json

.PHONY: bench-go
bench-go: ## benchmarks of the packages: time, allocations, requests and wire bytes
	go test -run '^$$' -bench . -benchmem $(UNIT)

.PHONY: lint
lint: bin/golangci-lint ## golangci-lint with .golangci.yml
	bin/golangci-lint run ./...

bin/golangci-lint: Makefile
	GOBIN=$(CURDIR)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@

.PHONY: fmt
fmt: bin/golangci-lint ## gofumpt and gci
	bin/golangci-lint fmt ./...

.PHONY: check
check: test-fmt test-vet lint ## formatting, vet, lint, tidy modules, clean tree
	go mod tidy -diff
	@[ -z "$$(git status --porcelain)" ] || { git status --short; echo "check: the tree is not clean"; exit 1; }

.PHONY: cover
cover: ## unit test coverage by function
	go test -coverprofile=coverage.out $(UNIT)
	go tool cover -func=coverage.out

.PHONY: clean
clean: ## removes what make built
	rm -rf bin coverage.out
