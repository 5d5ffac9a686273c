/* Loaded into daemun's supervisor: the front and the interpreters that it starts run under callgrind.
 *
 * The front is started from /proc/self/exe, which is valgrind itself where the supervisor runs under valgrind; so the
 * supervisor runs as ever, and only what it executes is changed. BENCH_CALLGRIND is the folder of the counts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* PR_GET_AUXV: tells of a vDSO that is not there under valgrind. Without an answer /proc/self/auxv is read, of which
 * valgrind gives a right one. */
#define GET_AUXV 0x41555856

static char folder[4096];

__attribute__((constructor)) static void remember(void) {
    const char *given = getenv("BENCH_CALLGRIND");
    if (given) snprintf(folder, sizeof folder, "%s", given);
    /* Nothing else is to be under it. */
    unsetenv("LD_PRELOAD");
}

static void hide_auxv(void) {
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, GET_AUXV, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof steps / sizeof *steps, steps};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int execvp(const char *file, char *const arguments[]) {
    int (*next)(const char *, char *const[]) = (int (*)(const char *, char *const[]))dlsym(RTLD_NEXT, "execvp");
    const char *role = NULL;
    int count = 0;
    for (; arguments[count]; count++) {
        if (strcmp(arguments[count], "--role=front") == 0) role = "front";
        if (strstr(arguments[count], "daemun_worker.py")) role = "worker";
    }
    if (!role || !folder[0]) return next(file, arguments);
    static char output[4200];
    snprintf(output, sizeof output, "--callgrind-out-file=%s/%s.%%p", folder, role);
    char **words = calloc(count + 8, sizeof *words);
    if (!words) return next(file, arguments);
    int at = 0;
    words[at++] = "valgrind";
    words[at++] = "--tool=callgrind";
    words[at++] = "--quiet";
    words[at++] = "--vgdb=no";
    words[at++] = output;
    /* Its own name for the front is a link that only the supervisor can read. */
    words[at++] = strcmp(file, "/proc/self/exe") == 0 ? arguments[0] : (char *)file;
    for (int argument = 1; argument <= count; argument++) words[at++] = arguments[argument];
    hide_auxv();
    return next("/usr/bin/valgrind", words);
}
