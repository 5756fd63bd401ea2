// Runs a command and writes what it took to a file: exit code, CPU seconds, and the memory of its largest process.
//
//   launch FILE COMMAND ARGUMENTS…
//
// Linux counts what a process held before its exec as its own, so a large parent makes every child look large. This one
// is small enough to disappear.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 125;
    pid_t child = fork();
    if (child < 0) return 125;
    if (child == 0) {
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) != child) return 125;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    FILE *out = fopen(argv[1], "w");
    if (out == NULL) return 125;
    fprintf(out, "%d %.6f %ld\n", code, cpu, usage.ru_maxrss);
    return fclose(out) == 0 ? 0 : 125;
}
