/* The program of the container that holds the network namespace of a Pod: it waits until it is stopped. */
#include <signal.h>
#include <unistd.h>

static void stop(int signal) { _exit(0); }

int main(void) {
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    for (;;)
        pause();
}
