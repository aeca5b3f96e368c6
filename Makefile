# The front door: every target is one call of CMake, CTest or a script. `make help` lists them.
BUILD := build/release
VLENS := $(BUILD)/bin/vlens
JOBS  := $(shell nproc)

.PHONY: all help deps demo test test-all asan tsan fuzz-short real peers dist deb format lint install clean

all: deps ## build the program and the library (release)
	@test -f $(BUILD)/build.ninja || cmake --preset release >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS) -- --quiet

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

deps: ## install missing Debian packages
	@mkdir -p build
	@tools/install-deps.sh

demo: all ## cache, train, evaluate, export and read the demo model
	@tools/demo.sh $(VLENS)

test: all ## every test that belongs to a change (under 12 minutes on two cores)
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure -LE long

test-all: all asan tsan ## make test, the long tests, and everything again under sanitizers
	@tools/install-deps.sh valgrind
	@ctest --test-dir $(BUILD) -j $(JOBS) --output-on-failure

asan: deps ## build and test with AddressSanitizer and UBSan
	@cmake --preset asan >/dev/null
	@cmake --build --preset asan -j $(JOBS) -- --quiet
	@ASAN_OPTIONS=detect_leaks=1 ctest --test-dir build/asan -j $(JOBS) --output-on-failure -LE "long|bench"

tsan: deps ## build and test with ThreadSanitizer (clang, its OpenMP runtime and archer)
	@tools/install-deps.sh clang libclang-rt-dev libomp-dev llvm
	@cmake --preset tsan >/dev/null
	@cmake --build --preset tsan -j $(JOBS) -- --quiet
	@ctest --test-dir build/tsan -j $(JOBS) --output-on-failure -L "^(base|ops|unit|model|eval|threads)$$" -LE long

fuzz-short: deps ## ten minutes of fuzzing over the readers of strangers' files (clang)
	@tools/install-deps.sh clang libclang-rt-dev llvm
	@cmake --preset fuzz >/dev/null
	@cmake --build --preset fuzz -j $(JOBS) -- --quiet
	@tests/fuzz/run.sh build/fuzz 600

real: all ## a real language model on real text: SmolLM2-135M (needs pip and apt)
	@tools/real/run.sh $(VLENS)

peers: all ## lenses to and from tuned-lens, NumPy, HDF5 (a Python environment in build/peers; needs pip)
	@tests/peers/run.sh $(VLENS)

format: ## format the sources
	@git ls-files '*.c' '*.h' | xargs clang-format -i

lint: ## clang-tidy over the library
	@cmake --preset debug >/dev/null
	@git ls-files 'trainer/*.c' 'kernels/*.c' | xargs clang-tidy -p build/debug --quiet

install: all ## install under /usr/local (DESTDIR and --prefix as CMake knows them)
	@cmake --install $(BUILD)

dist: ## a tarball of the sources, in build/dist
	@tools/dist.sh build/dist

deb: all ## Debian packages, in build/deb
	@tools/package.sh $(BUILD) build/deb

clean: ## remove all builds
	@rm -rf build out
