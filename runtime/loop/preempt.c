/* preempt.c: the signals by which fibers are interrupted. See preempt.h.

   Both handlers run on a loop thread, and do nothing on any other. On SIGURG the handler runs on the fiber's own stack,
   so that switching away leaves the kernel's frame there, and coming back later returns through it, which restores
   every register. SIGURG is blocked meanwhile, so that a second one finds neither the middle of what
   the first interrupted, in the code that arms, nor a stack full of handlers; but not while other fibers run. On
   SIGSEGV the handler runs on the thread's alternate stack and leaves that for good. */
#include "private.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define ALTERNATE_BYTES ((size_t)64 << 10)
#define FRAME_BYTES     ((uintptr_t)16 << 10) /* more than the kernel's frame of a signal takes, with all registers */
#define GUARD_SEEN      ((uintptr_t)4 << 10)

/* A signal's disposition belongs to the process, and so do these. */
static pthread_mutex_t handlers_mutex = PTHREAD_MUTEX_INITIALIZER;
static int handlers_count;
static struct sigaction old_urge, old_fault;

/* ---- In the handlers ---- */

static uintptr_t program_counter(const ucontext_t *context) {
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.pc;
#else
    (void)context;
    return 0;
#endif
}

static uintptr_t stack_pointer(const ucontext_t *context) {
#if defined(__x86_64__)
    return (uintptr_t)context->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__)
    return (uintptr_t)context->uc_mcontext.sp;
#else
    (void)context;
    return 0;
#endif
}

/* Not inlined, so that the address of errno is found anew after a switch. */
__attribute__((noinline)) static void set_errno(int value) {
    errno = value;
}

/* pass_on lets the program's own handler have a signal that is none of ours. */
static void pass_on(const struct sigaction *old, int signal, siginfo_t *info, void *context) {
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(signal, info, context);
    } else if (old->sa_handler != SIG_IGN && old->sa_handler != SIG_DFL) {
        old->sa_handler(signal);
    } else if (signal == SIGSEGV) { /* it faults again, and the process ends as it would have */
        sigaction(SIGSEGV, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
    }
}

/* let_urge_in unblocks SIGURG in a handler that is left for another fiber. */
static void let_urge_in(void) {
    sigset_t urge;
    sigemptyset(&urge);
    sigaddset(&urge, SIGURG);
    pthread_sigmask(SIG_UNBLOCK, &urge, NULL);
}

static void on_urge(int signal, siginfo_t *info, void *context) {
    td_fiber *fiber = td_fiber_self();
    if (!td_thread_self()) {
        pass_on(&old_urge, signal, info, context);
        return;
    }
    const td_preempt *preempt = fiber && !fiber->nopreempt ? fiber->preempt : NULL;
    if (!preempt) return;
    uintptr_t counter = program_counter(context);
    int error = errno;
    if (counter >= preempt->low && counter < preempt->high) {
        fiber->torn = true;
        let_urge_in(); /* for the thread's other fibers; the return from here puts the mask back as it was */
        td_schedule_yield(fiber);
        fiber->torn = false;
    } else {
        preempt->arm(fiber->preempt_arg);
    }
    set_errno(error);
}

/* is_overflow says whether a fault is that of a stack that is full: in its guard, or, where the kernel found no room
   for a signal's frame (and tells no address), near it. */
static bool is_overflow(const td_stack *stack, const siginfo_t *info, const ucontext_t *context) {
    uintptr_t low = (uintptr_t)stack->low, top = (uintptr_t)stack, at = (uintptr_t)info->si_addr;
    if (info->si_code == SI_KERNEL) {
        at = stack_pointer(context);
        return at >= low - GUARD_SEEN && at < low + FRAME_BYTES;
    }
    return at < low && at >= low - (stack->mapped_bytes - (top - low) - sizeof *stack);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    td_fiber *fiber = td_fiber_self();
    if (!fiber || fiber->nopreempt || !fiber->overflow || !is_overflow(fiber->stack, info, context)) {
        pass_on(&old_fault, signal, info, context);
        return;
    }
    fiber->overflowed = true;
    let_urge_in();
    td_switch_back(fiber); /* for good: the kernel takes the alternate stack for left */
}

/* ---- Installing ---- */

static int install(tidemill_error *err) {
    struct sigaction urge = { .sa_sigaction = on_urge, .sa_flags = SA_SIGINFO | SA_RESTART };
    struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };
    if (sigaction(SIGURG, &urge, &old_urge) == 0) {
        if (sigaction(SIGSEGV, &fault, &old_fault) == 0) return 0;
        sigaction(SIGURG, &old_urge, NULL);
    }
    return td_error_set(err, TIDEMILL_EIO, "the signal handlers for preemption cannot be set: %s", strerror(errno));
}

int td_preempt_open(tidemill_error *err) {
    pthread_mutex_lock(&handlers_mutex);
    int rc = handlers_count > 0 ? 0 : install(err);
    if (rc == 0) handlers_count++;
    pthread_mutex_unlock(&handlers_mutex);
    return rc;
}

void td_preempt_close(void) {
    pthread_mutex_lock(&handlers_mutex);
    if (--handlers_count == 0) {
        sigaction(SIGURG, &old_urge, NULL);
        sigaction(SIGSEGV, &old_fault, NULL);
    }
    pthread_mutex_unlock(&handlers_mutex);
}

bool td_preempt_opened(void) {
    pthread_mutex_lock(&handlers_mutex);
    bool opened = handlers_count > 0;
    pthread_mutex_unlock(&handlers_mutex);
    return opened;
}

void td_preempt_thread_open(td_thread *thread) {
    void *memory = mmap(NULL, ALTERNATE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return; /* then an overflow ends the process, as it does elsewhere */
    thread->alternate = (stack_t){ .ss_sp = memory, .ss_size = ALTERNATE_BYTES };
    sigaltstack(&thread->alternate, NULL);
}

void td_preempt_thread_close(td_thread *thread) {
    if (!thread->alternate.ss_sp) return;
    sigaltstack(&(stack_t){ .ss_flags = SS_DISABLE }, NULL);
    munmap(thread->alternate.ss_sp, ALTERNATE_BYTES);
}
