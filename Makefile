# Everything here needs Go and make only, unless its line says more.

# What "build" says of itself beside packaging/VERSION. Empty: nothing.
COMMIT ?= $(shell packaging/version.sh commit)
GO_LDFLAGS = -s -w -X main.commit=$(COMMIT)
TOOL := go tool -modfile=packaging/tools.mod

export CGO_ENABLED ?= 0

# Where "build" puts the binary, and "run" and "cluster" their settings, data and logs.
BIN ?= bin/leader-latch
RUN ?= run

# leader_latch.timing of "cluster" and "faults".
TIMING ?= normal

.PHONY: help build run cluster test race lint fuzz model faults corpus bench microbench packages test-packages clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## one static binary, bin/leader-latch
	go build -trimpath -buildvcs=false -ldflags '$(GO_LDFLAGS)' -o $(BIN) ./cmd/leader-latch

run: build ## serve one node on 127.0.0.1:5323, data under ./run
	@mkdir -p $(RUN)/etc $(RUN)/log
	@test -e $(RUN)/etc/riak.conf || cp packaging/riak.conf.run $(RUN)/etc/riak.conf
	$(BIN) serve --config $(RUN)/etc/riak.conf

NETWORK ?= 127.0.0
cluster: build ## serve three nodes of one cluster, on 127.0.0.1 to 127.0.0.3, data under ./run (needs setsid)
	@packaging/cluster.sh $(BIN) $(RUN) $(NETWORK) $(TIMING)

# A package that takes longer than this hangs: ten minutes, Go's own limit, may be too short on a machine
# that does much else.
PATIENCE = 25m

test: ## all tests
	go test -timeout $(PATIENCE) ./...

race: ## all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -timeout $(PATIENCE) ./...

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .) && test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go vet -tags faults ./ensemble/... ./cmd/leader-latch/e2e
	go vet -tags bench ./ensemble/... ./cmd/leader-latch/e2e
	$(TOOL) staticcheck ./...
	$(TOOL) staticcheck -tags faults ./ensemble/... ./cmd/leader-latch/e2e
	$(TOOL) staticcheck -tags bench ./ensemble/... ./cmd/leader-latch/e2e

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME (30s) each
	@set -e; for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; \
	done

MODELTIME ?= 20s
model: ## the model of keyed members, each case for MODELTIME (20s) at most; MODEL=f1 those whose names begin so (ensemble/holdmodel/HOLDS.md)
	go run ./ensemble/holdmodel -time $(MODELTIME) -cases '$(MODEL)'

FAULTS ?= 90s
faults: ## real processes under faults, random ones for FAULTS (90s) beside some minutes of named ones (needs root; cmd/leader-latch/e2e/FAULTS.md)
	LEADER_LATCH_TEST_TIMING=$(TIMING) go test -tags faults -count=1 -timeout 12h -parallel 2 -v -run '^TestFault' ./cmd/leader-latch/e2e -faults $(FAULTS) $(FAULTS_FLAGS)

CORPUS ?= testdata/riakconf/real
corpus: ## read every riak.conf of a folder, CORPUS=..., beside its expected outcome
	CORPUS=$(abspath $(CORPUS)) go test -count=1 -run 'Real|EffectiveValues' -v ./riakconf | grep -E '^(---|ok|FAIL|PASS| +[a-z_]+\.go)'

BENCH ?=
BESIDE ?=
bench: ## the table of cmd/leader-latch/e2e/SPEED.md, measured on this machine in 40 minutes; BENCH=storm one of its parts, BENCH_FLAGS=-short a trial; BESIDE=<commit or binary>: not worse than that one?
	@go test -C cmd/leader-latch/e2e -tags bench -count=1 -timeout 6h $(if $(BESIDE),\
	  -run '^TestBeside$$' -beside='$(or $(abspath $(wildcard $(BESIDE))),$(BESIDE))' -rows='$(BENCH)',\
	  -run '^TestMeasure$$/$(BENCH)') $(BENCH_FLAGS)

BENCHTIME ?= 1s
microbench: ## the benchmarks of the packages, with allocations, each for BENCHTIME (1s)
	go test -run '^$$' -bench . -benchtime $(BENCHTIME) -benchmem ./...

packages: ## deb and rpm for amd64 and arm64, in dist/
	packaging/build.sh

test-packages: ## check and install them in roots of their own (needs root and Debian)
	packaging/test.sh

clean: ## remove what the other targets made
	rm -rf bin run dist
