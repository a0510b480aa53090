# Measuring the engine, and what takes too long for `make test`: part of the Makefile.

## bench-engine  what the engine costs: jobs, switches, workers, lateness, kills (BENCH="kill" for a part)
bench-engine: $(BUILD)/bench/engine
	@$< $(BENCH)

## stress     an hour of random preemption, results compared (STRESS_S=3600)
stress: $(BUILD)/san/stress_test
	@TIDEMILL_STRESS_S=$(or $(STRESS_S),3600) ASAN_OPTIONS=detect_stack_use_after_return=0 $<

$(BUILD)/bench/%: tests/bench/%.c $(LIB_OBJ)
	@echo '  LD    $@'
	@mkdir -p $(@D)
	@$(COMPILE) -o $@ $< $(LIB_OBJ) $(LDFLAGS) $(LIBS)

# ---- Under ThreadSanitizer, which keeps signals back: the engine ticks there ----

TSAN_SUITES := loop_test wait_test preempt_test engine_test
TSAN_OBJ := $(call objects,$(LIB_SRC),tsan)
TSANFLAGS := -O1 -fno-omit-frame-pointer -fsanitize=thread

## tsan       the suites of threads and fibers under ThreadSanitizer
tsan: $(TSAN_SUITES:%=$(BUILD)/tsan/%)
	@for suite in $^; do echo $$suite; TSAN_OPTIONS='halt_on_error=1 suppressions=tests/support/tsan' \
	    timeout 600 setarch -R $$suite || exit 1; done

$(BUILD)/tsan/sql.o: $(BUILD)/gen/sql.c
	@mkdir -p $(@D)
	@$(COMPILE) -Wno-overlength-strings $(TSANFLAGS) -c $< -o $@

$(BUILD)/tsan/%.o: %.c
	@echo '  TSAN  $<'
	@mkdir -p $(@D)
	@$(COMPILE) $(TSANFLAGS) -c $< -o $@

$(BUILD)/tsan/%_test: $(BUILD)/tsan/tests/unit/%_test.o $(TSAN_OBJ)
	@$(CC) $(TSANFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)

# ---- Under valgrind ----

VALGRIND_SUITES := arena_test loop_test call_test guard_test

## valgrind   some suites under valgrind, built without sanitizers
valgrind: $(VALGRIND_SUITES:%=$(BUILD)/plain/%)
	@for suite in $^; do echo $$suite; timeout 900 valgrind -q --error-exitcode=1 --max-stackframe=4000000 \
	    $$suite || exit 1; done

$(BUILD)/plain/%_test: tests/unit/%_test.c $(LIB_OBJ)
	@mkdir -p $(@D)
	@$(COMPILE) -O1 -o $@ $< $(LIB_OBJ) $(LDFLAGS) -lcmocka $(LIBS)

.PHONY: bench-engine stress tsan valgrind
