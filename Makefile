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
LIB_LDFLAGS := -shared $(HARD_LINK) -Wl,-z,nodelete -Wl,--no-undefined -Wl,--version-script=$(NATIVE)/exports.map

MUTANTS ?=
JOBS ?=

.PHONY: help demo lib test test-long test-xen test-systems mutants sanitize sanitize-memory fuzz bench extras check lint format install uninstall clean

help: ## show this help
	@echo "libmicrovmi: look into a running virtual machine from outside."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20
	@echo
	@echo "Variables: PYTHON=$(PYTHON) CC=$(CC) CFLAGS='$(CFLAGS)' PREFIX=$(PREFIX) LIBDIR=$(LIBDIR) DESTDIR=$(DESTDIR)"

demo: lib ## build, then look into a memory image, a made-up machine and (with QEMU) a real one
	@"$(PY)" c_tests/demo.py

lib: $(LIB) $(MODULE) $(WATCHER) $(PRIVATE)/.ready $(NBDKIT_PLUGIN) ## build build/lib/libmicrovmi.so

test: lib ## build and run all tests but those of test-xen; JOBS=2 is how many at once
	@$(if $(filter-out 1,$(JOBS)),"$(PY)" tests/parallel/run.py $(JOBS),"$(PY)" -m pytest)

test-long: lib ## the tests that repeat something as often as there is time, as often as they should: a thousand snapshots, 50 guests
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_background.py tests/live/test_snapshots.py tests/live/test_watcher.py tests/live/test_events_killed.py tests/live/test_events_kvm.py -k "every_snapshot or torn or plain or any_moment or whenever"
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_linux.py -k "not common"
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_scan.py -k killed
	@MICROVMI_LONG=1 "$(PY)" -m pytest -v tests/live/test_libvirt_saves.py

test-xen: lib ## boot Xen under QEMU and run the checks of tests/xenlab in its dom0; three minutes
	@"$(PY)" -m pytest -v tests/xenlab

test-systems: ## demo and tests in Debian 12, 13 and sid, which debootstrap makes; as root; hours (docs/testing.md)
	@.ci/setup "$(PYTHON)" && PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 "$(PYTHON)" -m systems

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
	    ASAN_OPTIONS=detect_leaks=0:handle_sigbus=0 MICROVMI_CHECKER=address \
	    MICROVMI_LIBRARY=$(abspath $(ASAN))/lib/libmicrovmi.so PYTHONPATH=$(abspath $(ASAN))/lib/libmicrovmi \
	    "$(dir $(PY))pytest" -p no:cacheprovider tests/memory tests/fuzz/test_page_tables.py tests/fuzz/test_migration_streams.py tests/fuzz/test_stub_packets.py tests/drivers/qemu/test_migration.py tests/drivers/dump/test_saved_records.py tests/drivers/dump/test_dump_packed.py tests/transport/test_packets.py \
	    $(addprefix tests/capi/test_,batch.py holes.py kept_streams.py map.py memory.py virtual.py virtual_map.py virtual_ways.py \
	        address_spaces.py capi_states.py diff.py)

bench: lib ## measure against memcpy and the system calls; writes docs/benchmarks.md and .svg
	@"$(PY)" c_tests/bench/bench.py

extras: $(BUILD)/extras/.ready ## fetch the Python packages of users that tests of tools need: volatility3, drgn, Dask

check: test lint ## test, lint and types

# Every C file alone: what it uses it includes. With the analyzer where the compiler has one.
UNITS := $(sort $(wildcard $(NATIVE)/*.c))
ANALYZER = $(shell $(CC) -fanalyzer -Werror -E -x c /dev/null > /dev/null 2>&1 && echo -fanalyzer)
UNIT_CFLAGS = -Werror -Wmissing-prototypes -Wstrict-prototypes $(ANALYZER)
C_STYLE := $(NATIVE)/*.[ch] $(NBDKIT_SOURCE) include/*.h c_tests/*.[ch] c_tests/*/*.[ch]

lint: $(VENV)/.lint $(BUILD)/embed.c ## lint and types, of the generated ctypes stubs and of C as well
	@"$(PY)" -m ruff check .
	@"$(PY)" -m ruff format --check .
	@"$(PY)" -m mypy
	@"$(PY)" -m libmicrovmi_py.stubgen -o $(BUILD)/microvmi_ctypes.py
	@"$(PY)" -m ruff check --no-cache $(BUILD)/microvmi_ctypes.py
	@"$(PY)" -m ruff format --no-cache --check $(BUILD)/microvmi_ctypes.py
	@"$(PY)" -m mypy --strict --config-file= $(BUILD)/microvmi_ctypes.py
	@flags=$$("$(PY)" $(NATIVE)/pythonflags.py) && for unit in $(UNITS); do \
	    $(CC) $(CPPFLAGS) $(CFLAGS) $(LIB_CFLAGS) $(UNIT_CFLAGS) $$flags -c -o /dev/null $$unit || exit 1; done
	@$(if $(NBDKIT_PLUGIN),$(CC) $(CPPFLAGS) $(CFLAGS) $(HARDENED) -std=gnu11 -D_GNU_SOURCE $(WARNINGS) $(UNIT_CFLAGS) -Iinclude -c -o /dev/null $(NBDKIT_SOURCE))
	@"$(dir $(PY))clang-format" --dry-run -Werror --ferror-limit=3 $(C_STYLE)

format: $(VENV)/.lint ## write Python and C files as lint wants them to look
	@"$(PY)" -m ruff format -q .
	@"$(dir $(PY))clang-format" -i $(C_STYLE)

install: lib ## install into DESTDIR/PREFIX
	install -d "$(DESTDIR)$(LIBDIR)" "$(DESTDIR)$(INCLUDEDIR)" "$(DESTDIR)$(LIBDIR)/pkgconfig"
	rm -rf "$(DESTDIR)$(LIBDIR)/libmicrovmi"
	cp -R $(PRIVATE) "$(DESTDIR)$(LIBDIR)/libmicrovmi"
	install -m 755 $(MODULE) "$(DESTDIR)$(LIBDIR)/libmicrovmi/libmicrovmi_py/"
	install -m 755 $(LIB) "$(DESTDIR)$(LIBDIR)/libmicrovmi.so"
	install -m 644 include/libmicrovmi.h "$(DESTDIR)$(INCLUDEDIR)/libmicrovmi.h"
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' '' 'Name: libmicrovmi' \
	    'Description: Virtual machine introspection' "Version: $$("$(PY)" -c 'import libmicrovmi_py.version as v; print(v.__version__)')" \
	    'Libs: -L$${libdir} -lmicrovmi' 'Cflags: -I$${includedir}' > "$(DESTDIR)$(LIBDIR)/pkgconfig/libmicrovmi.pc"

	"$(PY)" -m libmicrovmi_py.command.laid install "$(DESTDIR)" "$(BINDIR)" "$(DATADIR)" "$(LIBDIR)"

uninstall: ## remove what install laid down
	rm -rf "$(DESTDIR)$(LIBDIR)/libmicrovmi"
	rm -f "$(DESTDIR)$(LIBDIR)/libmicrovmi.so" "$(DESTDIR)$(LIBDIR)/pkgconfig/libmicrovmi.pc" \
	    "$(DESTDIR)$(INCLUDEDIR)/libmicrovmi.h"
	"$(PY)" -m libmicrovmi_py.command.laid uninstall "$(DESTDIR)" "$(BINDIR)" "$(DATADIR)" "$(LIBDIR)"

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

# Beside the venv, as the library and its own tests do without. Made aside and put in place at once.
$(BUILD)/extras/.ready: .ci/extras $(READY)
	@rm -rf $(BUILD)/extras $(BUILD)/extras.next
	@"$(PY)" -m pip install -q --disable-pip-version-check --target $(BUILD)/extras.next -r .ci/extras
	@touch $(BUILD)/extras.next/.ready
	@mv $(BUILD)/extras.next $(BUILD)/extras

# What a build is made from: our flags and the sums of its sources. It changes when they do, whatever their dates are.
$(BUILD)/native.inputs: INPUTS := $(C_SOURCES) $(GENERATOR)
$(BUILD)/watcher.inputs: INPUTS := $(WATCHER_SOURCES) $(NATIVE)/watcher.h
$(BUILD)/python.inputs: INPUTS := $(PY_SOURCES)
$(BUILD)/%.inputs: export FLAGS = $(LIB_CFLAGS) $(LIB_LDFLAGS)
$(BUILD)/%.inputs: FORCE
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

# Our Python modules and cffi, as the library finds them: nothing of this tree or the venv is needed at run time.
# Made aside and put in place at once, for programs that start meanwhile.
$(PRIVATE)/.ready: $(BUILD)/python.inputs $(BUILD)/microvmi-watcher $(READY)
	@rm -rf $(NEXT)
	@mkdir -p $(NEXT)
	cp -R libmicrovmi_py $(NEXT)/
	"$(PY)" -c 'import cffi, pycparser, _cffi_backend; from os.path import dirname; \
	    print(dirname(cffi.__file__), dirname(pycparser.__file__), _cffi_backend.__file__, sep="\n")' | xargs -d '\n' cp -R -t $(NEXT)
	@rm -rf $(addprefix $(NEXT)/libmicrovmi_py/,_native lib include _direct.abi3.so tools/nbd/plugin.c)
	@cp $(BUILD)/microvmi-watcher $(NEXT)/libmicrovmi_py/
	@find $(NEXT) -name __pycache__ -prune -exec rm -rf {} +
	"$(PY)" -m compileall -q -d libmicrovmi --invalidation-mode unchecked-hash $(NEXT)
	@touch $(NEXT)/.ready
	@rm -rf $(PRIVATE)
	@mv $(NEXT) $(PRIVATE)

# It finds the library beside it, or one folder up.
$(PRIVATE)/nbdkit-microvmi-plugin.so: $(NBDKIT_SOURCE) $(LIB) $(PRIVATE)/.ready
	$(CC) $(CPPFLAGS) $(CFLAGS) $(HARDENED) -std=gnu11 -D_GNU_SOURCE -fPIC -fvisibility=hidden $(WARNINGS) -Iinclude -shared -o $@ $< \
	    $(LDFLAGS) $(HARD_LINK) -L$(dir $(LIB)) -lmicrovmi -Wl,-rpath,'$$ORIGIN:$$ORIGIN/..'
