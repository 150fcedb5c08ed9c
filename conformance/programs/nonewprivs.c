/* The program of the image nonewprivs:1.3, installed with the set-user-id bit of root: tells as whom it came to run. With
 * no_new_privs the kernel ignores the bit and the caller's own id is printed. The NoNewPrivs specs compare the line as it is. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    printf("Effective uid: %u\n", (unsigned)geteuid());
    return 0;
}
