SHELL = /bin/bash
PREFIX = /usr/local
DESTDIR =

# Static, so that a guest without libraries can run the binaries. The flags and the target are the
# same everywhere, so nothing is built twice.
TARGET = x86_64-unknown-linux-gnu
STATIC = -C target-feature=+crt-static
demo check test msrv: export RUSTFLAGS = $(STATIC)

.PHONY: help demo check test msrv deny deny-advisories fuzz words sim sim-mutants kills attack soak \
	bench-reclaim bench-stat bench-watch bench-pressure bench-apps bench-oomd bench-mounts bench-swap bench-harm \
	bench-matrix bench-pods contrib-tests \
	install uninstall package image clean-cache

help:
	@echo 'make demo             boot a real kernel and show memctl at work on it'
	@echo 'make check            check format and lints, and run the tests that need no emulator'
	@echo 'make test             run all tests: those of make check, and those in real kernels'
	@echo 'make msrv             check with the oldest supported Rust, and fetch that if it is missing'
	@echo 'make deny             check licences, duplicate versions and sources of the dependencies'
	@echo 'make deny-advisories  check the dependencies for security advisories, which are fetched'
	@echo 'make fuzz             fuzz the parsers (FUZZ_SECONDS=60 each); without cargo-fuzz, replay the seeds'
	@echo 'make sim              run simulated worlds of a watch, by a range of seeds (FROM=0 TO=100000)'
	@echo 'make sim-mutants      put defects back one by one, and check that simulated worlds find each'
	@echo 'make kills            kill a watch of 20 cgroups at random moments, and check that nothing is left (KILLS=200)'
	@echo 'make attack           attack a watch as another user, and check that it is not misled (ATTACK_SECONDS=600)'
	@echo 'make soak             check the figures and the growth of a watch of many cgroups that come and go'
	@echo '                      (SOAK_SECONDS=1200 SOAK_CGROUPS=200)'
	@echo 'make words            print figures on the doc comments, a row for each folder'
	@echo 'make bench-reclaim    measure the engine beside bare writes, in real kernels'
	@echo 'make bench-stat       measure reading many cgroups beside a minimal reader'
	@echo 'make bench-watch      measure what watch spares an application, beside a loop in the shell'
	@echo 'make bench-pressure   measure what watch --pressure finds, and what that costs an application'
	@echo 'make bench-apps       measure it with PostgreSQL, Redis and Java, also under the limit that it suggests'
	@echo 'make bench-matrix     measure each cell of tests/vm/matrix.tsv that has no result of this commit (CELLS=NAME)'
	@echo 'make bench-oomd       measure whom systemd-oomd kills with memctl at work and without (ROUNDS=10)'
	@echo 'make bench-harm       measure how much memctl slows an application, in rounds (OF="watch stream")'
	@echo 'make bench-swap       measure what is swapped out to a slow disk, beside bare writes (RUNS=5)'
	@echo 'make bench-pods       measure what memctl takes as a pod beside 100 pods of three containers'
	@echo 'make bench-mounts     measure what thousands of mounts cost memctl (MOUNTS=20000)'
	@echo 'make install          install what `cargo build --release` built (PREFIX=$(PREFIX) DESTDIR=$(DESTDIR))'
	@echo 'make uninstall        remove what make install installs, with the same variables'
	@echo 'make package          make a .deb, an .rpm and a static tarball in target/package'
	@echo 'make image            build an image with memctl alone for Kubernetes, with podman or docker'
	@echo 'make clean-cache      remove the kernels, disks and tools that other targets fetched and made'

demo:
	tests/vm/setup
	cargo build --release --target $(TARGET)
	colour=; [ ! -t 1 ] || colour='export CLICOLOR_FORCE=1'; \
	tests/vm/boot --file target/$(TARGET)/release/memctl:/bin/memctl 7 -- "$$colour"$$'\n'"$$(cat tests/vm/demo-job)"

check:
	cargo fmt --check
	cargo clippy --target $(TARGET) --all-targets -- -D warnings
	cargo test --target $(TARGET)
	RUSTDOCFLAGS='-D warnings' cargo doc --target $(TARGET) --no-deps

test:
	tests/vm/setup
	$(MAKE) check
	paths=$$(tests/vm/build) && eval "$$paths" && export MEMCTL_BIN CLI_TESTS BENCH_WATCH BENCH_PRESSURE \
		&& MEMCTL_VM_BESIDE='nice make contrib-tests' tests/vm/run && tests/vm/cells

# Beside the tests in guests, which mostly wait: `test` sets the variables of tests/vm/build.
contrib-tests:
	$(MAKE) deny
	tests/prometheus/run
	tests/prometheus/real
	tests/kubernetes/run
	tests/kubernetes/image
	tests/package/run

msrv:
	tests/msrv --target $(TARGET)

deny:
	tests/deny licenses bans sources

deny-advisories:
	tests/deny advisories

fuzz:
	fuzz/run $(FUZZ_SECONDS)

words:
	tests/words

FROM = 0
TO = 100000
sim:
	MEMCTL_SIM_FROM=$(FROM) MEMCTL_SIM_TO=$(TO) cargo test --release --lib watch::sim -- --nocapture

sim-mutants:
	tests/sim-mutants

# The long forms of cases that `make test` runs briefly, on the newest kernel.
kills: export MEMCTL_KILLS = $(or $(KILLS),200)
attack: export MEMCTL_ATTACK_SECONDS = $(or $(ATTACK_SECONDS),600)
soak: export MEMCTL_SOAK_SECONDS = $(or $(SOAK_SECONDS),1200)
soak: export MEMCTL_SOAK_CGROUPS = $(or $(SOAK_CGROUPS),200)
soak: export MEMCTL_VM_MEMORY = 4096
kills attack soak: export MEMCTL_VM_TIMEOUT = 7200
kills attack soak:
	tests/vm/setup
	paths=$$(tests/vm/build) && eval "$$paths" && export MEMCTL_BIN CLI_TESTS \
		&& MEMCTL_TEST_ARGS=trouble::$@ tests/vm/run 7

bench-reclaim:
	tests/vm/setup
	tests/vm/bench-reclaim

bench-stat:
	tests/vm/setup
	tests/vm/bench-stat

bench-watch:
	tests/vm/setup
	tests/vm/bench-watch

bench-pressure:
	tests/vm/setup
	tests/vm/bench-pressure

bench-apps:
	tests/vm/setup
	tests/vm/bench-apps

bench-matrix: export CELLS := $(CELLS)
bench-matrix:
	tests/vm/setup
	tests/vm/bench-matrix

bench-oomd:
	tests/vm/setup
	tests/vm/bench-oomd $(ROUNDS)

bench-harm:
	tests/vm/setup
	tests/vm/bench-harm $(or $(OF),watch stream)

bench-swap:
	tests/vm/setup
	tests/vm/bench-swap $(RUNS)

bench-pods:
	tests/vm/setup
	tests/vm/bench-pods

bench-mounts:
	tests/vm/setup
	paths=$$(tests/vm/build) && eval "$$paths" && export MEMCTL_BIN CLI_TESTS && tests/vm/bench-mounts $(MOUNTS)

# Names of folders for contrib/package/install, which has the defaults. Debian's zsh looks for
# completions in ZSHDIR=/usr/share/zsh/vendor-completions only.
export PREFIX DESTDIR
FOLDERS = BINDIR MANDIR DOCDIR UNITDIR USERUNITDIR BASHDIR ZSHDIR FISHDIR
$(foreach folder,$(FOLDERS),$(if $(value $(folder)),$(eval export $(folder))))
install uninstall:
	contrib/package/install $@

package:
	contrib/package/build

image:
	contrib/package/image

clean-cache:
	. tests/vm/lib.sh && rm -rf "$$cache"
