# Thin: every target is one or two commands that can be typed by hand. See README.md.
PREFIX ?= /usr
DESTDIR ?=
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/release
SMALL := target/$(TARGET)/small

.PHONY: all build test test-vm lint demo install bench compare conformance-runtime conformance-engines fuzz clean

all: build

# The shim and the worker are built by themselves, static and small; no other crate's features leak into them.
build:
	cargo build --release -p cleatd -p cleat
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile small --target $(TARGET) -p containerd-shim-cleat-v1 -p cleat-runc

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: lint
	tests/tools.sh
	$(MAKE) build
	cargo build --workspace
	PATH="$(CURDIR)/target/tools/usr/bin:$(CURDIR)/target/tools/bin:$$PATH" cargo test --workspace
	tests/demo.sh target/release $(SMALL)
	tests/install.sh

# In a virtual machine with systemd and cgroup v2 alone; VM is the script that boots it, see tests/vm/run.sh.
# Ten minutes are enough on a quiet machine without hardware virtualization.
VM ?= ../shared/tools/vm.sh
VM_BUDGET ?= 600
test-vm:
	tests/tools.sh
	$(MAKE) build
	VM=$(abspath $(VM)) RELEASE=$(RELEASE) SMALL=$(SMALL) timeout --foreground $(VM_BUDGET) tests/vm/run.sh $(VM_PARTS)

demo: build
	tests/tools.sh
	tests/demo.sh target/release $(SMALL)

install: build
	install -D -m 755 $(RELEASE)/cleatd $(DESTDIR)$(PREFIX)/bin/cleatd
	install -D -m 755 $(RELEASE)/cleat $(DESTDIR)$(PREFIX)/bin/cleat
	install -D -m 755 $(SMALL)/containerd-shim-cleat-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-cleat-v1
	install -D -m 755 $(SMALL)/cleat-runc $(DESTDIR)$(PREFIX)/bin/cleat-runc
	install -D -m 644 deploy/systemd/cleat.socket $(DESTDIR)/usr/lib/systemd/system/cleat.socket
	install -D -m 644 deploy/systemd/cleat.sysusers $(DESTDIR)/usr/lib/sysusers.d/cleat.conf
	install -d $(DESTDIR)/usr/lib/systemd/system
	sed 's,/usr/bin/cleatd,$(PREFIX)/bin/cleatd,' deploy/systemd/cleat.service > $(DESTDIR)/usr/lib/systemd/system/cleat.service

# Against another engine: PEER=unix:///its/socket; BENCH and SUITES are the directories of the harness and the suites.
BENCH ?= ../shared/bench
SUITES ?= ../shared/suites
PEER ?=
bench: build
	tests/with-daemon.sh target/release $(SMALL) $(BENCH)/bench.py --b $(PEER) --busybox target/tools/bin/busybox --cpu $(BENCH_ARGS) --a

compare: build
	tests/with-daemon.sh target/release $(SMALL) $(SUITES)/apidiff/apidiff.py --a $(PEER) $(COMPARE_ARGS) --b

# runc's own integration suite, out of Debian's source package, against our worker and against runc itself. Minutes; opt-in.
conformance-runtime: build
	COMPARE=1 tests/conformance-runtime.sh $(SMALL)/cleat-runc $(FILES)

# What reads text that others wrote, a minute each on what `fuzz/corpus` begins with; opt-in. It needs a C++ compiler and no other
# toolchain: these are the flags that `cargo fuzz` gives, but for the sanitizer's, which only a nightly compiler takes
# (`cargo fuzz run --sanitizer none TARGET` does as well).
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= config_json mount_options seccomp_profile mount_spec image_reference
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-trace-compares \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1
fuzz:
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --target $(TARGET)
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p target/fuzz/corpus/$$target target/fuzz/artifacts/$$target && \
	  target/fuzz/$(TARGET)/release/$$target target/fuzz/corpus/$$target fuzz/corpus/$$target -artifact_prefix=target/fuzz/artifacts/$$target/ \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -max_len=16384 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

# Engines run their containers with our worker: dockerd and Podman of the tree in which the command ENGINES runs programs.
ENGINES ?=
conformance-engines: build
	ENGINES="$(ENGINES)" tests/conformance-engines.sh $(SMALL)/cleat-runc

clean:
	cargo clean
