/* The program of the image pause:3.9: waits until it is told to end. It is a container image's payload for the image specs,
 * and no part of Podbay: Podbay's own sandbox needs no such image. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal_number) {
    (void)signal_number;
    _exit(0);
}

static void reap(int signal_number) {
    (void)signal_number;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int main(void) {
    /* The first process of a pid namespace ignores every signal that it has no handler for, SIGTERM too. */
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGCHLD, reap);
    for (;;) {
        pause();
    }
}
