# Tidemill. `make help` lists the targets.

VERSION := 0.1.0
SOVERSION := 0
BUILD := build
PREFIX ?= /usr/local
DESTDIR ?=
CC := gcc
LUA := lua5.4

CPPFLAGS += -D_GNU_SOURCE -Iruntime -I/usr/include/lua5.4 -I/usr/include/postgresql
CFLAGS ?= -O2 -g
WARNINGS := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
COMPILE = $(CC) $(CPPFLAGS) -std=gnu11 $(CFLAGS) -fPIC -fvisibility=hidden $(WARNINGS) -MMD -MP
SANFLAGS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
LIBS := -lpq -luv -lcurl -lyajl -lboost_context -llua5.4 -lpthread -lm
LUA_LIBS := -lpq -lyajl -lm

ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif

# ---- What is made of what ----

# The library's layers, in the order in which they may use each other (tests/support/layers checks that).
LAYERS := base loop store vm ctx engine lib
LIB_SRC := $(foreach layer,$(LAYERS),$(wildcard runtime/$(layer)/*.c))
CLI_SRC := $(wildcard runtime/cli/*.c)
SQL := $(wildcard sql/migrations/*.sql sql/functions/*.sql sql/views/*.sql sql/statements/*.sql)

# The Lua binding has what an enqueue needs, and neither liblua nor libuv.
LUA_SRC := $(wildcard bindings/lua/*.c runtime/base/*.c) \
    $(addprefix runtime/store/,array.c conn.c enqueue.c reply.c sql.c tx.c) runtime/lib/client.c \
    $(addprefix runtime/ctx/,options.c request.c) \
    $(addprefix runtime/vm/,column.c params.c value.c)

UNIT := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*_test.c))
UNIT_BIN := $(UNIT:%=$(BUILD)/san/%)
SUITES ?= $(UNIT_BIN) $(wildcard tests/shell/*_test.sh) $(wildcard spec/*_spec.lua)

# Tells the system's linker what changed in a folder that it searches; only root can, and only for the system itself.
ldconfig = if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

objects = $(1:%.c=$(BUILD)/$(2)/%.o) $(BUILD)/$(2)/sql.o
LIB_OBJ := $(call objects,$(LIB_SRC),obj)
LUA_OBJ := $(call objects,$(LUA_SRC),obj)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/obj/%.o)
SAN_OBJ := $(call objects,$(LIB_SRC),san)
SAN_CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/san/%.o)

PRODUCTS := $(BUILD)/bin/tidemill $(BUILD)/lib/libtidemill.so $(BUILD)/lib/libtidemill.a $(BUILD)/lua/tidemill.so
TEST_PRODUCTS := $(PRODUCTS) $(UNIT_BIN) $(BUILD)/san/tidemill $(BUILD)/demo/enqueue_demo

# ---- Targets for people ----

## all        build the program, the libraries and the Lua module, in build/
all: $(PRODUCTS) $(BUILD)/layers.checked $(BUILD)/symbols.checked

## demo       show Tidemill at work, from an enqueue to the work done
demo: $(PRODUCTS) $(BUILD)/demo/enqueue_demo $(BUILD)/deps-test.stamp
	@tests/demo/demo

## test       run every suite, or SUITES="..."; ends in "N passed, N failed"
test: all $(TEST_PRODUCTS) $(BUILD)/deps-test.stamp
	@tests/support/run $(SUITES)

## reload-soak    1,000 reloads under load, and 100 broken ones of each kind: some 20 minutes
reload-soak: all
	@TIDEMILL_RELOADS=1000 SUITE_SECONDS=7200 tests/support/run spec/reload_load_spec.lua

## bench-reload   how soon the next job runs what was saved, with 1,000 workers, and what that costs the others
bench-reload: all
	@tests/support/run tests/bench/reload_bench.lua

## bench          measure it against its peers in 20 minutes (BENCH=--list: the cells)
bench: $(PRODUCTS) $(BUILD)/bench/drive $(BUILD)/deps-test.stamp
	@tests/bench/bench $(BENCH)

## bench-large    the same for 10 million jobs
bench-large: $(PRODUCTS) $(BUILD)/bench/drive $(BUILD)/deps-test.stamp
	@tests/bench/bench --large --reps 1 --no-peers $(BENCH)

## deps       install the Debian packages that all of these need
deps: $(BUILD)/deps-build.stamp $(BUILD)/deps-test.stamp $(BUILD)/deps-lint.stamp

## lint       luacheck, shellcheck, the layers and the exported symbols
lint: $(BUILD)/layers.checked $(BUILD)/symbols.checked $(BUILD)/deps-lint.stamp
	@luacheck -q --no-color handlers spec tests runtime
	@shellcheck -x $(shell git grep -lE '^#!.*bash|^# shellcheck shell=bash' tests .ci)

## format     clang-format over the C sources
format: $(BUILD)/deps-lint.stamp
	@clang-format -i $(shell git ls-files '*.c' '*.h')

## install    install below PREFIX (/usr/local); DESTDIR is put before it
install: all
	@install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include lib/pkgconfig lib/lua/5.4)
	@install $(BUILD)/bin/tidemill $(DESTDIR)$(PREFIX)/bin/
	@install -m 644 runtime/tidemill.h $(DESTDIR)$(PREFIX)/include/
	@install -m 644 $(BUILD)/lib/libtidemill.a $(DESTDIR)$(PREFIX)/lib/
	@install $(BUILD)/lib/libtidemill.so $(DESTDIR)$(PREFIX)/lib/libtidemill.so.$(VERSION)
	@ln -sf libtidemill.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libtidemill.so.$(SOVERSION)
	@ln -sf libtidemill.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libtidemill.so
	@install -m 644 $(BUILD)/lua/tidemill.so $(DESTDIR)$(PREFIX)/lib/lua/5.4/
	@sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|@LIBS@|$(LIBS)|' runtime/share/tidemill.pc.in \
	    > $(DESTDIR)$(PREFIX)/lib/pkgconfig/tidemill.pc
	@$(call ldconfig)
	@echo "installed below $(DESTDIR)$(PREFIX)"

## uninstall  remove what install installed
uninstall:
	@rm -f $(addprefix $(DESTDIR)$(PREFIX)/,bin/tidemill include/tidemill.h lib/libtidemill.a lib/libtidemill.so \
	    lib/libtidemill.so.$(SOVERSION) lib/libtidemill.so.$(VERSION) lib/lua/5.4/tidemill.so lib/pkgconfig/tidemill.pc)
	@$(call ldconfig)
	@echo "uninstalled from $(DESTDIR)$(PREFIX)"

## clean      remove what was built
clean:
	@rm -rf $(BUILD)

## help       list the targets
help:
	@sed -n 's/^## /  /p' $(filter-out %.d,$(MAKEFILE_LIST))

# ---- The parts ----

$(BUILD)/deps-%.stamp: tests/support/deps
	@tests/support/deps $*
	@mkdir -p $(@D) && touch $@

$(BUILD)/gen/sql.c: runtime/store/embed.lua $(SQL) | $(BUILD)/deps-build.stamp
	@mkdir -p $(@D)
	@$(LUA) runtime/store/embed.lua $(SQL) > $@.new && mv $@.new $@

$(BUILD)/obj/sql.o: $(BUILD)/gen/sql.c
	@mkdir -p $(@D)
	@$(COMPILE) -Wno-overlength-strings -c $< -o $@

$(BUILD)/san/sql.o: $(BUILD)/gen/sql.c
	@mkdir -p $(@D)
	@$(COMPILE) -Wno-overlength-strings $(SANFLAGS) -c $< -o $@

$(BUILD)/obj/%.o: %.c | $(BUILD)/deps-build.stamp
	@echo '  CC    $<'
	@mkdir -p $(@D)
	@$(COMPILE) -c $< -o $@

$(BUILD)/san/%.o: %.c | $(BUILD)/deps-build.stamp $(BUILD)/deps-test.stamp
	@echo '  SAN   $<'
	@mkdir -p $(@D)
	@$(COMPILE) $(SANFLAGS) -c $< -o $@

# One object in which only what tidemill.h declares is visible, so that the archive keeps its other names to itself.
$(BUILD)/lib/libtidemill.a: $(LIB_OBJ)
	@echo '  AR    $@'
	@mkdir -p $(@D)
	@ld -r -o $(BUILD)/obj/libtidemill.o $^
	@objcopy --localize-hidden $(BUILD)/obj/libtidemill.o
	@rm -f $@ && ar rcs $@ $(BUILD)/obj/libtidemill.o

$(BUILD)/lib/libtidemill.so: $(LIB_OBJ)
	@echo '  LD    $@'
	@mkdir -p $(@D)
	@$(CC) -shared -Wl,-soname,libtidemill.so.$(SOVERSION) -Wl,--no-undefined $(LDFLAGS) -o $@ $^ $(LIBS)
	@ln -sf libtidemill.so $@.$(SOVERSION)

$(BUILD)/bin/tidemill: $(CLI_OBJ) $(LIB_OBJ)
	@echo '  LD    $@'
	@mkdir -p $(@D)
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/lua/tidemill.so: $(LUA_OBJ)
	@echo '  LD    $@'
	@mkdir -p $(@D)
	@$(CC) -shared $(LDFLAGS) -o $@ $^ $(LUA_LIBS)

$(BUILD)/demo/%: tests/demo/%.c runtime/tidemill.h $(BUILD)/lib/libtidemill.so
	@mkdir -p $(@D)
	@$(COMPILE) -o $@ $< -L$(BUILD)/lib -Wl,-rpath,'$$ORIGIN/../lib' -ltidemill

$(BUILD)/bench/drive: tests/bench/drive.c runtime/tidemill.h $(BUILD)/lib/libtidemill.so
	@mkdir -p $(@D)
	@$(COMPILE) -o $@ $< -L$(BUILD)/lib -Wl,-rpath,'$$ORIGIN/../lib' -ltidemill -lpq -lpthread

$(BUILD)/san/libtidemill.a: $(SAN_OBJ)
	@rm -f $@ && ar rcs $@ $^

$(BUILD)/san/tidemill: $(SAN_CLI_OBJ) $(BUILD)/san/libtidemill.a
	@echo '  LD    $@'
	@$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/san/%_test: $(BUILD)/san/tests/unit/%_test.o $(BUILD)/san/libtidemill.a
	@echo '  LD    $@'
	@$(CC) $(SANFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)

# ---- Checks ----

$(BUILD)/layers.checked: tests/support/layers $(LIB_SRC) $(CLI_SRC) $(wildcard runtime/*/*.h) $(LUA_SRC)
	@mkdir -p $(@D)
	@tests/support/layers && touch $@

$(BUILD)/symbols.checked: tests/support/symbols $(PRODUCTS)
	@tests/support/symbols $(BUILD) && touch $@

include tests/bench/engine.mk

.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all demo test bench bench-large reload-soak bench-reload deps lint format install uninstall clean help

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
