# Entry points. `go build ./cmd/...` and `go test ./...` do the same work; make shortens.
GO ?= go
PKG ?= ./internal/bedrock
FUZZ ?= FuzzEventStream
FUZZTIME ?= 30s

.PHONY: help demo build test check lint race bench bench-gateway fuzz golden vuln tools-present

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

tools-present:
	@command -v $(GO) >/dev/null || { echo "Go is missing: see https://go.dev/doc/install (1.26 or newer)"; exit 2; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null || { echo "a C++ compiler is missing: apt-get install g++, or xcode-select --install"; exit 2; }

build: tools-present ## both programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/waybilld ./cmd/waybilld
	$(GO) build -trimpath -o bin/waybill ./cmd/waybill

demo: build ## a small company's month, then a gateway to play with
	./bin/waybill demo

test: tools-present ## every test that needs no AWS account
	$(GO) test -timeout 20m ./...

check: tools-present ## what CI runs: formatting, vet, linter, race detector
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'd:"; gofmt -l .; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...
	$(GO) test -timeout 20m -race ./...

bench: tools-present ## benchmarks; figures go to docs/performance.md
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-gateway: ## the gateway against nginx and reverse proxies, in eight minutes (Linux)
	$(GO) run ./internal/bench

fuzz: tools-present ## make fuzz PKG=./internal/bedrock FUZZ=FuzzStamp FUZZTIME=1m
	$(GO) test -run '^$$' -fuzz '^$(FUZZ)$$' -fuzztime $(FUZZTIME) $(PKG)

golden: tools-present ## rewrite golden files; read the diff afterwards
	WAYBILL_UPDATE=1 $(GO) test -timeout 20m ./...

vuln: ## known vulnerabilities
	$(GO) tool -modfile=tools/go.mod govulncheck ./...
