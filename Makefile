# SPDX-License-Identifier: MIT
# make help lists the targets.

O      ?= build
export O
CC     := gcc
CLANG  ?= clang
PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
V      ?= 0
SAN    ?=
Q      := $(if $(filter 1,$(V)),,@)
say     = $(if $(filter 1,$(V)),,@printf '  %-8s %s\n' $(1) $(2))

VERSION := 0.1.0
# `git archive` fills dist/commit in; a tree from it may lie inside of another repository.
COMMIT  := $(shell sed -nE 's/^([0-9a-f]{12}).*/\1/p' dist/commit | grep . || \
		   git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
# Of the commit, so that what is made of it is the same whenever it is made.
SOURCE_DATE_EPOCH ?= $(shell sed -nE 's/^[0-9a-f]+ ([0-9]+)$$/\1/p' dist/commit | grep . || \
			     git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

PKGS := libbpf libelf zlib libcurl libcjson libmicrohttpd libidn2
# Asked only where something is compiled, so that `make check` can install them first.
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS   = $(shell pkg-config --libs $(PKGS))

WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
HARDEN   := -fPIE -fstack-protector-strong -fstack-clash-protection \
	    $(if $(SAN),,-D_FORTIFY_SOURCE=2)
# The same binary in whatever directory it is built.
NOWHERE  := -ffile-prefix-map=$(CURDIR)=.
CFLAGS   := -O2 -g
BUILD     = $(CC) $(CFLAGS) $(NOWHERE) $(WARN) $(HARDEN) $(SAN)
ALL_CFLAGS = -std=gnu17 $(CFLAGS) $(NOWHERE) $(WARN) $(HARDEN) -D_GNU_SOURCE -I$(O) -Iuser -Ibpf \
	     $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
	     $(PKG_CFLAGS)
LDFLAGS  := -pie -Wl,-z,relro,-z,now -Wl,--as-needed -pthread

BPF_ARCH := $(patsubst x86_64,x86,$(patsubst aarch64,arm64,$(shell uname -m)))
BPF_CFLAGS := -g -O2 $(NOWHERE) -mcpu=v3 -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -Wall -Wextra -Werror \
	      -Ivmlinux -Ibpf -I/usr/include/$(shell $(CC) -print-multiarch)

BIN  := $(O)/kakuremichi-agent
SRC  := $(sort $(wildcard user/*.c))
OBJ  := $(SRC:%.c=$(O)/%.o)
LIBOBJ := $(filter-out $(O)/user/main.o,$(OBJ))
SKEL := $(O)/kakuremichi.skel.h

# The tests' own sanitised build of everything, beside the real one.
SANO := $(O)/san
UNIT := $(patsubst selftests/unit/%.c,%,$(sort $(wildcard selftests/unit/*.c)))
PROG := $(patsubst selftests/prog_tests/%.c,%,$(sort $(wildcard selftests/prog_tests/*.c)))
FUZZ := $(patsubst selftests/fuzz/%.c,%,$(sort $(wildcard selftests/fuzz/*.c)))
FUZZ_SECONDS ?= 60
JOBS ?= $(shell nproc)
# Not tracing comparisons doubles the speed; the dictionaries know the words.
FUZZ_CFLAGS := -std=gnu17 -O2 -g $(WARN) -D_GNU_SOURCE -Iuser -Ibpf -fno-sanitize-recover=all \
	       -fsanitize=fuzzer,address,undefined -fno-sanitize-coverage=trace-cmp

.PHONY: all help install uninstall dist deb deps deps-all demo check check-unit check-prog check-e2e check-long check-kernels \
	selftests fuzzers fuzz bench clean
.DELETE_ON_ERROR:
.PRECIOUS: $(O)/%.o $(O)/%.bpf.o

all: $(BIN)

help:
	@echo 'make              build $(BIN)'
	@echo 'make demo         two labelled containers answer under their domains (root; private Docker)'
	@echo 'make check        all tests (root), under 10 minutes'
	@echo 'make check-long   the tests that take longer'
	@echo 'make check-kernels  the agent on the kernels of Debian 12, in virtual machines'
	@echo 'make fuzz         the fuzzers, each for FUZZ_SECONDS=$(FUZZ_SECONDS)'
	@echo 'make bench        speed, as ratios to HAProxy in the same round, 15 minutes (root)'
	@echo 'make install      to $$(DESTDIR)$$(PREFIX), now $(DESTDIR)$(PREFIX)'
	@echo 'make dist         a source archive of HEAD in $(O)'
	@echo 'make deb          a Debian package in $(O)'
	@echo 'make deps         install what all of these need (Debian)'
	@echo 'variables         V=1 commands, O=dir output, SAN=address,undefined, PREFIX, DESTDIR'

$(O)/%.bpf.o: bpf/%.bpf.c
	$(call say,CLANG,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $(@:.o=.raw.o)
	$(Q)bpftool gen object $@ $(@:.o=.raw.o)

$(SKEL): $(O)/kakuremichi.bpf.o
	$(call say,SKEL,$@)
	$(Q)bpftool gen skeleton $< name kakuremichi > $@

# datapath.c alone includes the skeleton; the order-only prerequisite serves the first build, the
# dependency files all later ones.
$(O)/user/datapath.o: | $(SKEL)
$(O)/user/version.o: ALL_CFLAGS += -DKKM_VERSION='"$(VERSION)"' -DKKM_COMMIT='"$(COMMIT)"'
$(O)/user/version.o: $(O)/version.stamp

# Rebuilt when the version or the commit changes, and only then.
$(O)/version.stamp: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo '$(VERSION) $(COMMIT)' | cmp -s - $@ || echo '$(VERSION) $(COMMIT)' > $@
.PHONY: FORCE
FORCE:

$(O)/%.o: %.c $(O)/flags.stamp
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(O)/flags.stamp: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo '$(BUILD)' | cmp -s - $@ || echo '$(BUILD)' > $@

$(BIN): $(OBJ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -o $@ $(PKG_LIBS)

$(O)/unit/%: $(O)/selftests/unit/%.o $(LIBOBJ)
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -o $@ $(PKG_LIBS) -lcmocka

$(O)/prog_tests/%: $(O)/selftests/prog_tests/%.o $(LIBOBJ)
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) $^ -o $@ $(PKG_LIBS)

# Programs that do it wrong, for prog_tests/hazards alone.
$(O)/progs/%.bpf.o: selftests/progs/%.bpf.c
	$(call say,CLANG,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $(@:.o=.raw.o)
	$(Q)bpftool gen object $@ $(@:.o=.raw.o)

$(O)/progs/%.skel.h: $(O)/progs/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)bpftool gen skeleton $< name $* > $@

$(O)/selftests/prog_tests/hazards.o: | $(O)/progs/naive.skel.h

selftests: $(UNIT:%=$(O)/unit/%) $(PROG:%=$(O)/prog_tests/%)

# The parsers are pure: a fuzzer is its own file and theirs, compiled in one go.
$(O)/fuzz/%: selftests/fuzz/%.c user/hostname.c user/hostname.h $(wildcard selftests/fuzz/*.h)
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(FUZZ_CFLAGS) $(filter %.c,$^) -o $@ -Wl,--as-needed -lidn2 -lcjson -lhttp_parser

$(addprefix $(O)/fuzz/,request response chunked differential): user/http1.c user/http1.h
$(O)/fuzz/clienthello: user/clienthello.c user/clienthello.h
$(O)/fuzz/proxyproto: user/proxyproto.c user/proxyproto.h
$(O)/fuzz/routesfile: user/routesjson.c user/routesjson.h user/json.c user/json.h
# cJSON is the library as it is, without instrumentation.
$(addprefix $(O)/fuzz/,dockerevent dockerlist): $(addprefix user/,$(foreach \
	name,dockerjson json labels text,$(name).c $(name).h) route.h)

fuzzers: $(FUZZ:%=$(O)/fuzz/%)

deps:
	@scripts/deps

deps-all:
	@scripts/deps --all

# These three must work on a machine on which nothing is installed yet, so make is called again
# once the dependencies are there.
demo: deps
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory all
	$(Q)scripts/demo

check: deps
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory all
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory O=$(SANO) SAN=address,undefined all selftests
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory fuzzers
	$(Q)selftests/run

check-long: deps
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory all
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory O=$(SANO) SAN=address,undefined all selftests
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory fuzzers
	$(Q)selftests/run --long

check-kernels: deps-all
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory all $(PROG:%=$(O)/prog_tests/%)
	$(Q)selftests/kernels/run

fuzz: deps
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory fuzzers
	$(Q)selftests/fuzz/run $(FUZZ_SECONDS)

bench: deps-all
	$(Q)$(MAKE) -j$(JOBS) --no-print-directory all
	$(Q)selftests/bench/run

DOCDIR := $(PREFIX)/share/doc/kakuremichi-agent
UNIT_FILE := $(PREFIX)/lib/systemd/system/kakuremichi-agent.service
MAN := $(PREFIX)/share/man/man8/kakuremichi-agent.8
COMPLETION := $(PREFIX)/share/bash-completion/completions/kakuremichi-agent
SETTINGS := $(SYSCONFDIR)/default/kakuremichi-agent

# What the binary says of itself, for people. PREFIX may differ from the last time.
$(O)/kakuremichi-agent.8: dist/kakuremichi-agent.8.in scripts/gen-dist $(BIN) FORCE
	$(Q)scripts/gen-dist $(BIN) man $(DOCDIR) <$< >$@

$(O)/kakuremichi-agent.default: scripts/gen-dist $(BIN)
	$(Q)scripts/gen-dist $(BIN) default >$@

# Settings that are there already are somebody's.
install: all $(O)/kakuremichi-agent.8 $(O)/kakuremichi-agent.default
	install -D -m 755 $(BIN) $(DESTDIR)$(PREFIX)/sbin/kakuremichi-agent
	install -D -m 644 README.md $(DESTDIR)$(DOCDIR)/README.md
	install -m 644 docs/*.md docs/grafana-dashboard.json dist/unprivileged.conf $(DESTDIR)$(DOCDIR)/
	install -D -m 644 $(O)/kakuremichi-agent.8 $(DESTDIR)$(MAN)
	install -D -m 644 dist/completion.bash $(DESTDIR)$(COMPLETION)
	install -d $(DESTDIR)$(dir $(UNIT_FILE)) $(DESTDIR)$(dir $(SETTINGS))
	sed 's|@PREFIX@|$(PREFIX)|' dist/kakuremichi-agent.service >$(DESTDIR)$(UNIT_FILE)
	chmod 644 $(DESTDIR)$(UNIT_FILE)
	[ -e $(DESTDIR)$(SETTINGS) ] || \
		install -m 644 $(O)/kakuremichi-agent.default $(DESTDIR)$(SETTINGS)

uninstall: $(O)/kakuremichi-agent.default
	rm -f $(addprefix $(DESTDIR),$(PREFIX)/sbin/kakuremichi-agent $(UNIT_FILE) $(MAN) $(COMPLETION))
	rm -rf $(DESTDIR)$(DOCDIR)
	! cmp -s $(O)/kakuremichi-agent.default $(DESTDIR)$(SETTINGS) || rm $(DESTDIR)$(SETTINGS)

dist:
	$(Q)mkdir -p $(O)
	$(Q)git archive --prefix=kakuremichi-agent-$(VERSION)/ HEAD | xz -T1 -9 \
		>$(O)/kakuremichi-agent-$(VERSION).tar.xz
	@echo $(O)/kakuremichi-agent-$(VERSION).tar.xz

deb: all
	$(Q)rm -rf $(O)/deb
	$(Q)$(MAKE) --no-print-directory -s install DESTDIR=$(O)/deb PREFIX=/usr SYSCONFDIR=/etc
	$(Q)scripts/deb $(O)/deb $(VERSION) $(O)

clean:
	rm -rf $(O)

-include $(OBJ:.o=.d) $(O)/kakuremichi.bpf.d $(O)/progs/naive.bpf.d
-include $(UNIT:%=$(O)/selftests/unit/%.d) $(PROG:%=$(O)/selftests/prog_tests/%.d)
