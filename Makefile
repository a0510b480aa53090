# Tidemill. `make help` lists the targets.

BUILD := build
CC ?= gcc
LUA := lua5.4

CPPFLAGS := -D_GNU_SOURCE -Iruntime -I/usr/include/lua5.4 -I/usr/include/postgresql
CFLAGS := -std=gnu11 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes \
    -Wmissing-prototypes $(if $(WERROR),-Werror)
SANFLAGS := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined
LIBS := -lpq -luv -lcurl -lyajl -lboost_context -llua5.4 -lpthread -lm

# The layers below the database: what can be tested without one.
CORE := $(wildcard runtime/base/*.c runtime/loop/*.c runtime/vm/*.c)
SAN_CORE := $(CORE:%.c=$(BUILD)/san/%.o)
UNIT := base loop value call guard handlers
UNIT_BIN := $(UNIT:%=$(BUILD)/san/%_test)

## all: compile the layers that stand so far
all: $(BUILD)/deps.stamp
	@$(MAKE) --no-print-directory $(CORE:%.c=$(BUILD)/obj/%.o)

## deps: install the Debian packages that building and testing need
deps $(BUILD)/deps.stamp: tests/support/deps
	@tests/support/deps
	@mkdir -p $(BUILD) && touch $(BUILD)/deps.stamp

## test: run every suite; the last line is "N passed, N failed"
test: $(BUILD)/deps.stamp
	@$(MAKE) --no-print-directory $(CORE:%.c=$(BUILD)/obj/%.o) $(UNIT_BIN)
	@tests/support/run $(UNIT_BIN)

## lint: luacheck over the Lua sources
lint:
	luacheck --std lua54 -q handlers spec

## format: clang-format over the C sources
format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

## clean: remove what was built
clean:
	rm -rf $(BUILD)

## help: list the targets
help:
	@sed -n 's/^## //p' Makefile

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -c $< -o $@

$(BUILD)/san/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(SANFLAGS) -MMD -c $< -o $@

$(BUILD)/san/%_test: $(BUILD)/san/tests/unit/%_test.o $(SAN_CORE)
	$(CC) $(SANFLAGS) -o $@ $^ -lcmocka $(LIBS)

.PRECIOUS: $(BUILD)/san/%.o
.PHONY: all deps test lint format clean help

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
