/* engine_try.c: runs one handler's body in an engine of its own, and tells how it ended: engine_try CODE [TIMEOUT_S
 * [MIB]]. */
#include "../unit/engine_fixture.h"

int main(int argc, char **argv) {
    char fields[80];
    if (argc < 2) return 2;
    snprintf(fields, sizeof fields, "timeout = %s, memory_limit = %s,", argc > 2 ? argv[2] : "1",
             argc > 3 ? argv[3] : "24");
    engine *e = engine_new(fields);
    e->signals = !getenv("NO_SIGNALS");
    engine_start(e, 1);
    td_job *job = engine_wait(e, engine_code(e, argv[1]), 100);
    if (!job) return 1;
    const td_result *r = &job->result;
    printf("%s, %.3f ms wall, %.3f ms cpu, %lld KiB: %s\n%s\n%s\n", td_outcome_name(r->outcome),
           (double)job->wall_us / 1e3, (double)job->cpu_us / 1e3, (long long)job->peak_bytes >> 10,
           r->error ? r->error : "", r->traceback ? r->traceback : "", r->result ? r->result : "");
    td_job_free(job);
    engine_free(e);
    return 0;
}
