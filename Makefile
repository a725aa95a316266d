# kindred's build. `make help` lists the targets.
#
# Non-recursive, GNU make; everything is written below build/<VARIANT>/.
# CC, CFLAGS, CPPFLAGS, LDFLAGS, DESTDIR and PREFIX are the caller's: the
# project's own flags are kept apart from them, and theirs come last.

VARIANT ?= release
PREFIX ?= /usr/local
B := build/$(VARIANT)
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
VERSION := $(shell sed -n \
    's/^.define KINDRED_VERSION "\(.*\)"/\1/p' src/base/version.h)

ifneq ($(filter-out release debug asan tsan failpoints fuzz,$(VARIANT)),)
$(error VARIANT is release, debug, asan, tsan, failpoints or fuzz)
endif
ifeq ($(origin CC),default)
CC := $(if $(filter fuzz,$(VARIANT)),clang,gcc)
endif

# ---- flags ----------------------------------------------------------------
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wcast-qual \
    -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes
OPT_release := -O2 -fstack-protector-strong \
    $(if $(findstring FORTIFY,$(CFLAGS) $(CPPFLAGS)),,-D_FORTIFY_SOURCE=2)
OPT_debug := -O0
OPT_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined \
    -fno-omit-frame-pointer
OPT_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
OPT_failpoints := -O2 -DKINDRED_FAILPOINTS
OPT_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined \
    -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LD_asan := -fsanitize=address,undefined
LD_tsan := -fsanitize=thread
LD_fuzz := -fsanitize=address,undefined

# -ffp-contract=off: two machines, and two compilers, round alike wherever
# kernels do not ask for fused operations by name.
KINDRED_CPPFLAGS := -D_POSIX_C_SOURCE=200809L -Isrc -I.
KINDRED_CFLAGS := -std=c17 -g $(OPT_$(VARIANT)) -ffp-contract=off \
    -fno-math-errno -pthread $(WARN)
KINDRED_LDFLAGS := -pthread -Wl,--as-needed $(LD_$(VARIANT))

# The instruction sets, by the file name's suffix, here and nowhere else.
MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null)
ISA_avx2 := -mavx2 -mfma -mf16c
ISA_avx512 := $(ISA_avx2) -mavx512f -mavx512bw -mavx512vl -mavx512vnni
ISA_neon :=
ISAS_HERE := $(if $(filter x86_64%,$(MACHINE)),avx2 avx512) \
    $(if $(filter aarch64% arm64%,$(MACHINE)),neon)
ISAS_ELSEWHERE := $(filter-out $(ISAS_HERE),avx2 avx512 neon)
isa_of = $(foreach i,avx2 avx512 neon,$(if $(filter %_$(i).c,$(1)),$(ISA_$(i))))
# Loops over floats gain from -O3; the rest does not.
opt_of = $(if $(filter src/kern/% src/nn/% src/image/%,$(1)),\
    $(if $(filter release failpoints,$(VARIANT)),-O3))
file_flags = $(strip $(call opt_of,$(1)) $(call isa_of,$(1)))

# ---- libraries ------------------------------------------------------------
# pkg-config name, least version, Debian package
LIBS_CORE := jansson:2.13:libjansson-dev sqlite3:3.37:libsqlite3-dev \
    libutf8proc:2.5:libutf8proc-dev nettle:3.7:nettle-dev \
    libjpeg:2.0:libjpeg-dev libpng:1.6.34:libpng-dev \
    libwebp:1.0:libwebp-dev libarchive:3.6:libarchive-dev
LIBS_SERVER := libmicrohttpd:0.9.75:libmicrohttpd-dev inih:50:libinih-dev
LIBS_CLIENT := libcurl:7.70:libcurl4-openssl-dev
LIBS_TEST := cmocka:1.1.5:libcmocka-dev
# oneDNN has no pkg-config file; it is asked for where the front of the
# numeric library includes it.
USES_DNNL := $(shell grep -l '<dnnl.h>' src/kern/*.c 2>/dev/null)
DNNL := $(if $(USES_DNNL),-ldnnl -l:libgomp.so.1)
# curl and sqlite3 are for the demo and the HTTP tests.
PACKAGES_BASE := gcc libc6-dev make pkg-config curl ca-certificates sqlite3

pc_names = $(foreach l,$(1),$(firstword $(subst :, ,$(l))))
pc_libs = $(shell pkg-config --libs $(call pc_names,$(1)) 2>/dev/null)
PC_CFLAGS := $(shell pkg-config --cflags $(call pc_names,\
    $(LIBS_CORE) $(LIBS_SERVER) $(LIBS_CLIENT) $(LIBS_TEST)) 2>/dev/null)
CORE_LIBS := $(call pc_libs,$(LIBS_CORE)) $(DNNL) -lm
SERVER_LIBS := $(call pc_libs,$(LIBS_SERVER))
CLIENT_LIBS := $(call pc_libs,$(LIBS_CLIENT) jansson nettle libarchive) -lm
TEST_LIBS := $(call pc_libs,$(LIBS_TEST) $(LIBS_CLIENT))

# ---- sources --------------------------------------------------------------
here = $(filter-out $(foreach i,$(ISAS_ELSEWHERE),%_$(i).c),$(1))
SRC_C := $(call here,$(sort $(wildcard src/*/*.c)))
SERVER_C := $(sort $(wildcard server/*.c))
CLIENT_C := $(sort $(wildcard clients/kindred/*.c))
SUPPORT_C := $(sort $(wildcard tests/support/*.c) \
    $(filter-out tests/bench/bench_% tests/bench/make_%,\
    $(wildcard tests/bench/*.c)))
TEST_C := $(sort $(wildcard $(foreach d,unit grad prop golden,\
    tests/$(d)/test_*.c)))
# Benchmarks, the makers of their data, and what they share.
BENCH_C := $(sort $(wildcard tests/bench/bench_*.c tests/bench/make_*.c))
FUZZ_C := $(sort $(wildcard tests/fuzz/fuzz_*.c))
HTTP_C := $(sort $(wildcard tests/http/test_*.c))
CRASH_C := $(sort $(wildcard tests/crash/crash_*.c))
SCHEMA_SQL := $(sort $(wildcard schema/[0-9]*.sql))
ALL_C := $(SRC_C) $(SERVER_C) $(CLIENT_C) $(SUPPORT_C) $(TEST_C) $(BENCH_C) \
    $(FUZZ_C) $(HTTP_C) $(CRASH_C)

obj_of = $(patsubst %.c,$(B)/obj/%.o,$(1))
EMBED_O := $(foreach n,schema openapi prior_df,$(B)/obj/gen/embed_$(n).o)
SRC_O := $(call obj_of,$(SRC_C)) $(EMBED_O)
SERVER_O := $(call obj_of,$(SERVER_C))
CLIENT_O := $(call obj_of,$(CLIENT_C) $(filter src/base/%,$(SRC_C)))
SUPPORT_O := $(call obj_of,$(SUPPORT_C))

# An archive for each directory of src/, linked from the highest rank down. A
# test named after a directory (test_text_...) is linked with that one and what
# it may include, so the layers hold for the linker too.
MODULES := $(sort $(foreach f,$(SRC_C),$(word 2,$(subst /, ,$(f)))))
BELOW_base := base
BELOW_kern := kern base
BELOW_text := text kern base
BELOW_nn := nn kern base
BELOW_ann := ann kern base
BELOW_store := store kern base
BELOW_image := image kern base
BELOW_model := model image store ann nn text kern base
BELOW_train := train $(BELOW_model)
BELOW_engine := engine $(BELOW_train)
lib_of = $(patsubst %,$(B)/lib/%.a,$(filter $(MODULES),\
    $(or $(BELOW_$(1)),$(BELOW_engine))))
LIBS := $(call lib_of,engine)
LIB_SERVER := $(B)/lib/server.a
LIB_CLIENT := $(B)/lib/client.a
LIB_SUPPORT := $(B)/lib/support.a
DAEMON := $(if $(wildcard server/main.c),$(B)/kindredd)
CLIENT := $(if $(wildcard clients/kindred/main.c),$(B)/kindred)
TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(TEST_C))
BENCHES := $(patsubst tests/%.c,$(B)/tests/%,$(BENCH_C))
FUZZERS := $(patsubst tests/%.c,$(B)/tests/%,$(FUZZ_C))
# Started by tests/http/run.sh, which gives them a daemon.
HTTP_TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(HTTP_C))
# Started by tests/crash/run.sh; they fork daemons themselves.
CRASH_TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(CRASH_C))

# ---- rules ----------------------------------------------------------------
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.PHONY: FORCE all prior programs tests benches fuzzers deps run demo check \
    check-build check-run check-full check-variant check-clang check-valgrind \
    fuzz-run bench lint format compile_commands.json install uninstall dist \
    clean help

all: programs

programs: $(DAEMON) $(CLIENT) $(LIBS)
tests: $(TESTS) $(HTTP_TESTS) $(CRASH_TESTS)
benches: $(BENCHES)
fuzzers: $(FUZZERS)

# Rebuild when a flag changes, not when make is merely called again.
FLAGS_NOW := $(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) | $(KINDRED_CPPFLAGS) \
    $(KINDRED_CFLAGS) $(KINDRED_LDFLAGS) $(PC_CFLAGS) $(CORE_LIBS) \
    $(SERVER_LIBS) $(CLIENT_LIBS) $(TEST_LIBS) | $(ISA_avx512)
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' >$@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi

# Every library is there and new enough; the message names the package.
$(B)/libraries: $(B)/flags
	@sh tests/support/libraries.sh $(LIBS_CORE) $(LIBS_SERVER) $(LIBS_CLIENT) \
	    $(if $(USES_DNNL),header=dnnl.h:2:libdnnl-dev)
	@touch $@
$(B)/libraries-test: $(B)/flags
	@sh tests/support/libraries.sh $(LIBS_TEST)
	@touch $@

define compile
$(CC) $(KINDRED_CPPFLAGS) $(PC_CFLAGS) $(CPPFLAGS) $(KINDRED_CFLAGS) \
    $(call file_flags,$(1)) $(CFLAGS)
endef

$(B)/obj/%.o: %.c $(B)/flags $(B)/libraries
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(call compile,$<) -MMD -MP -c $< -o $@

$(call obj_of,$(TEST_C) $(HTTP_C) $(CRASH_C) $(SUPPORT_C)): $(B)/libraries-test

$(B)/obj/gen/%.o: $(B)/gen/%.c $(B)/flags
	@mkdir -p $(@D)
	@$(call compile,$<) -MMD -MP -c $< -o $@

# Files in the binary: see src/base/embed.h.
$(B)/gen/embed_schema.c: $(SCHEMA_SQL) $(B)/gen/schema.list \
    tests/support/embed.sh
	@mkdir -p $(@D)
	@sh tests/support/embed.sh list embedded_schema $(SCHEMA_SQL) >$@
$(B)/gen/embed_openapi.c: $(wildcard server/openapi.json) \
    tests/support/embed.sh
	@mkdir -p $(@D)
	@sh tests/support/embed.sh one embedded_openapi server/openapi.json >$@
$(B)/gen/embed_prior_df.c: $(wildcard src/text/prior_df.bin) \
    tests/support/embed.sh
	@mkdir -p $(@D)
	@sh tests/support/embed.sh one embedded_prior_df src/text/prior_df.bin >$@
# A removed file is older than everything; the list notices.
$(B)/gen/schema.list: FORCE
	@mkdir -p $(@D)
	@echo '$(SCHEMA_SQL)' >$@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi

define archive
@mkdir -p $(@D)
@rm -f $@
@ar rcs $@ $(filter %.o,$^)
endef
define link
@mkdir -p $(@D)
@echo "  LD      $@"
@$(CC) $(KINDRED_CFLAGS) $(CFLAGS) $(KINDRED_LDFLAGS) $(LDFLAGS) -o $@ \
    $(filter %.o,$^) $(filter %.a,$^) $(1)
endef

$(B)/lib/base.a: $(EMBED_O)
$(foreach m,$(MODULES),$(eval $(B)/lib/$(m).a: \
    $(call obj_of,$(filter src/$(m)/%,$(SRC_C)))))
$(patsubst %,$(B)/lib/%.a,$(MODULES)):
	$(archive)
$(LIB_SERVER): $(filter-out %/main.o,$(SERVER_O))
	$(archive)
$(LIB_CLIENT): $(call obj_of,$(filter-out %/main.c,$(CLIENT_C)))
	$(archive)
$(LIB_SUPPORT): $(SUPPORT_O)
	$(archive)

$(B)/kindredd: $(SERVER_O) $(LIBS)
	$(call link,$(SERVER_LIBS) $(CORE_LIBS))
$(B)/kindred: $(CLIENT_O)
	$(call link,$(CLIENT_LIBS))

# The archives of a test, benchmark or fuzz target by the second word of its
# name; those named after the server or the client see it without its main as well.
second_word = $(word 2,$(subst _, ,$(notdir $(1))))
libs_of = $(if $(findstring server,$(1)),$(LIB_SERVER)) \
    $(if $(findstring client,$(1)),$(LIB_CLIENT)) \
    $(call lib_of,$(call second_word,$(1)))
$(TESTS) $(BENCHES) $(HTTP_TESTS) $(CRASH_TESTS): $(B)/tests/%: \
    $(B)/obj/tests/%.o $(LIB_SUPPORT) \
    $$(call libs_of,$$*)
	$(call link,$(TEST_LIBS) $(if $(findstring server,$*),$(SERVER_LIBS)) \
	    $(CORE_LIBS))

# A fuzz target is driven by libFuzzer in the fuzz variant, and by a loop over
# its committed seeds in the others.
ifeq ($(VARIANT),fuzz)
FUZZ_MAIN :=
FUZZ_LINK := -fsanitize=fuzzer
else
FUZZ_MAIN := $(B)/obj/tests/fuzz/replay.o
FUZZ_LINK :=
endif
$(FUZZERS): $(B)/tests/%: $(B)/obj/tests/%.o $(FUZZ_MAIN) \
    $$(call libs_of,$$*)
	$(call link,$(FUZZ_LINK) $(SERVER_LIBS) $(CORE_LIBS))

-include $(patsubst %.o,%.d,$(SRC_O) $(SERVER_O) $(CLIENT_O) $(SUPPORT_O) \
    $(call obj_of,$(TEST_C) $(BENCH_C) $(FUZZ_C) $(HTTP_C) \
    $(CRASH_C)) $(B)/obj/tests/fuzz/replay.d)

# ---- what a person asks for -------------------------------------------------
ALL_LIBS := $(LIBS_CORE) $(LIBS_SERVER) $(LIBS_CLIENT) $(LIBS_TEST) \
    $(if $(USES_DNNL),header=dnnl.h:2:libdnnl-dev)

deps:
	@sh tests/support/deps.sh $(PACKAGES_BASE) -- $(ALL_LIBS)

run: deps
	@$(MAKE) --no-print-directory -j$(JOBS) programs
	@exec $(B)/kindredd $(ARGS)

demo: deps
	@$(MAKE) --no-print-directory -j$(JOBS) programs
	@exec sh clients/demo/demo.sh $(B)

# One summary over all: the scripts end with a line 'N passed, N failed, N
# skipped', as cmocka programs do in their own way.
check: deps
	@$(MAKE) --no-print-directory -j$(JOBS) check-build
	@$(if $(wildcard tests/crash/run.sh),$(MAKE) --no-print-directory \
	    -j$(JOBS) VARIANT=failpoints programs)
	@$(MAKE) --no-print-directory check-run

check-build: programs tests fuzzers

check-run:
	@KINDRED_BUILD=$(B) KINDRED_CRASH_BUILD=build/failpoints \
	    KINDRED_TIER=$(or $(TIER),check) JOBS=$(JOBS) \
	    sh tests/support/run_tests.sh $(TESTS) \
	    $(foreach f,$(FUZZERS),replay:$(f)) \
	    $(wildcard tests/http/run.sh tests/crash/run.sh) tests/lint/lint.sh

check-variant:
	@$(MAKE) --no-print-directory -j$(JOBS) check-build
	@KINDRED_BUILD=$(B) KINDRED_TIER=full JOBS=$(JOBS) TEST_SECONDS_MAX=3600 \
	    sh tests/support/run_tests.sh $(TESTS) \
	    $(foreach f,$(FUZZERS),replay:$(f)) $(wildcard tests/http/run.sh)

check-clang:
	@$(MAKE) --no-print-directory -j$(JOBS) CC=clang CFLAGS=-Werror \
	    B=build/clang check-build

check-valgrind: tests
	@sh tests/support/valgrind.sh $(TESTS)

fuzz-run:
	@$(MAKE) --no-print-directory -j$(JOBS) VARIANT=fuzz fuzzers
	@sh tests/support/fuzz.sh $(or $(FUZZ_SECONDS),60) \
	    $(patsubst tests/%.c,build/fuzz/tests/%,$(FUZZ_C))

check-full: deps
	@$(MAKE) --no-print-directory TIER=full check
	@$(MAKE) --no-print-directory VARIANT=asan check-variant
	@$(MAKE) --no-print-directory VARIANT=tsan check-variant
	@$(MAKE) --no-print-directory check-clang
	@$(MAKE) --no-print-directory VARIANT=debug -j$(JOBS) check-valgrind
	@$(MAKE) --no-print-directory fuzz-run

bench: programs benches
	@$(if $(wildcard tests/bench/run.sh),\
	    KINDRED_BUILD=$(B) sh tests/bench/run.sh $(BENCHES),\
	    for bench in $(BENCHES); do echo "== $$bench"; $$bench; done)

# Makes src/text/prior_df.bin again; see src/text/README.md.
$(B)/make_prior: $(B)/obj/tests/data/prior/make_prior.o $(call lib_of,model)
	$(call link,$(CORE_LIBS))
prior: $(B)/make_prior
	sh tests/data/prior/make_prior.sh $(B)/make_prior

lint:
	@sh tests/lint/lint.sh

format:
	@clang-format -i $(ALL_C) $(wildcard src/*/*.h server/*.h \
	    clients/kindred/*.h tests/support/*.h)

compile_commands.json:
	@{ echo '['; sep=; \
	$(foreach f,$(ALL_C),printf '%s{"directory":"%s","file":"%s","command":"%s"}' \
	    "$$sep" '$(CURDIR)' '$(f)' \
	    '$(strip $(call compile,$(f))) -c $(f)'; sep=',';) \
	echo; echo ']'; } >$@
	@echo "wrote $@"

man_pages = $(wildcard clients/kindred/*.$(1) server/*.$(1))
install: programs
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(DAEMON) $(CLIENT) $(DESTDIR)$(PREFIX)/bin
	$(foreach s,1 5 8,$(if $(call man_pages,$(s)),\
	    install -d $(DESTDIR)$(PREFIX)/share/man/man$(s) && \
	    install -m 644 $(call man_pages,$(s)) \
	    $(DESTDIR)$(PREFIX)/share/man/man$(s) &&)) :
	$(if $(wildcard clients/kindred/completion/*.bash),\
	    install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions && \
	    install -m 644 $(firstword $(wildcard clients/kindred/completion/*.bash)) \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/kindred)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/kindredd $(DESTDIR)$(PREFIX)/bin/kindred \
	    $(foreach s,1 5 8,$(foreach p,$(call man_pages,$(s)),\
	    $(DESTDIR)$(PREFIX)/share/man/man$(s)/$(notdir $(p)))) \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/kindred

# The committed tree, as one archive.
dist:
	@mkdir -p build
	@git archive --format=tar --prefix=kindred-$(VERSION)/ HEAD | \
	    gzip -9n >build/kindred-$(VERSION).tar.gz
	@echo "wrote build/kindred-$(VERSION).tar.gz"

clean:
	rm -rf build compile_commands.json

help:
	@echo 'make                build build/release/kindredd and .../kindred'
	@echo 'make deps           install the Debian packages that are missing'
	@echo 'make demo           the guided tour on real texts'
	@echo 'make run            start the daemon (ARGS="..." for its options)'
	@echo 'make check          tests and lint, about a minute'
	@echo 'make check-full     also sanitizers, clang, valgrind, fuzzing, crash'
	@echo 'make bench          the benchmarks'
	@echo 'make lint           the rules that a compiler does not check'
	@echo 'make format         clang-format over the tree'
	@echo 'make fuzz-run       fuzz every target (FUZZ_SECONDS=60)'
	@echo 'make compile_commands.json'
	@echo 'make install        PREFIX=$(PREFIX), DESTDIR'
	@echo 'make dist, make clean'
	@echo
	@echo 'VARIANT=release debug asan tsan failpoints fuzz; CC, CFLAGS,'
	@echo 'CPPFLAGS, LDFLAGS are honoured, and JOBS sets the parallel ones.'
